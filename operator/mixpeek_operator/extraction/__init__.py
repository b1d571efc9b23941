"""Extractors, the models they use, and where both run. Heavy libraries are imported inside functions only."""
