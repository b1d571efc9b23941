"""What users did with answers, and how good the answers are: interactions, evaluations, benchmarks, tuning."""
