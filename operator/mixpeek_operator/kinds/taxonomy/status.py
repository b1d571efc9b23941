"""What a taxonomy says of itself. Pure."""

from __future__ import annotations

from mixpeek_operator.core.lifecycle import Report, Subject
from mixpeek_operator.kinds.taxonomy.plan import Have, Want


def status(subject: Subject, want: Want | None, have: Have) -> Report:
    """Return how many nodes it has; it is ready when what it refers to is."""
    config = subject.spec.get("config") or {}
    return Report((), {"node_count": len(config.get("hierarchical_nodes") or ()) or None})
