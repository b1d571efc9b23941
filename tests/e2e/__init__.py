"""A real one-node cluster with our own images: `make e2e`."""
