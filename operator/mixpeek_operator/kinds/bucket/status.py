"""What a bucket says of itself. Pure."""

from __future__ import annotations

from mixpeek_operator.core.lifecycle import Report, Subject
from mixpeek_operator.kinds.bucket.plan import Have, Want


def status(subject: Subject, want: Want | None, have: Have) -> Report:
    """Return the bucket's facts; it is ready when its namespace is."""
    prefix = want.prefix if want is not None else None
    return Report((), {"storage_prefix": prefix, "object_count": have.records.get("objects", 0)})
