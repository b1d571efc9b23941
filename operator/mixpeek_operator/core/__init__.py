"""The vocabulary every other part shares: errors, resources, references, the graph and the engine.

Must not import a vendor's client, kopf or FastAPI, nor any other folder of this package but `ports`.
"""
