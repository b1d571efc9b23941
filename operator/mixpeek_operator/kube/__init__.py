"""The Kubernetes front door: changes of custom resources in, nothing of our own written to them.

kopf is used as a source of events only. Which replica works is decided by a Lease.
"""
