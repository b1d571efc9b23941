"""What a cluster says of itself. Pure."""

from __future__ import annotations

from mixpeek_operator.core.lifecycle import Report, Subject
from mixpeek_operator.kinds.cluster.plan import Have, Want


def status(subject: Subject, want: Want | None, have: Have) -> Report:
    """Return no facts: a cluster that never ran has none; it is ready when its collections are."""
    return Report()
