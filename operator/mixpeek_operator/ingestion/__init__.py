"""Objects, uploads, batches and documents: how what a user sends becomes searchable.

Must not import a vendor's client, kopf or FastAPI; every store is a port that the caller passes in.
"""
