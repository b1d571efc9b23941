"""Who is asking and in which namespace; passed to every call that reads or writes data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scope:
    """An organization, and the namespace of the call when it has one."""

    organization: str
    """Internal id of the organization (`int_…`): the Kubernetes namespace and the tenant key of every store."""
    namespace_id: str | None = None
    namespace: str | None = None
    """Name of the namespace as its owner wrote it."""
