"""Models: which weights a name means, where they are found, and how a text becomes a vector."""
