"""Who may do what: organizations, users, API keys and secrets, kept as records of the metadata store."""
