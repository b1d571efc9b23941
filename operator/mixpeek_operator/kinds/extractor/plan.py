"""An extractor's code is brought by its owner: nothing is made for it, it is looked at. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mixpeek_operator.core.lifecycle import Step, Subject
from mixpeek_operator.ports.blobs import BlobInfo


@dataclass(frozen=True, slots=True)
class Want:
    """Where the code is declared to be."""

    blob: str | None
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Have:
    """The archive as it is stored."""

    archive: BlobInfo | None


def want(subject: Subject) -> Want:
    """Return where the archive should be, blob None when it is no uploaded archive."""
    source = subject.spec.get("source") or {}
    return Want(blob=blob_key(subject), sha256=source.get("sha256"))


def plan(want: Want | None, have: Have) -> Sequence[Step]:
    """Return no step."""
    return []


def blob_key(subject: Subject) -> str | None:
    """Return the key of the archive, always inside the extractor's own namespace; None without one."""
    key = (subject.spec.get("source") or {}).get("blob")
    if not key or not subject.namespace_id:
        return None
    prefix = f"{subject.namespace_id}/"
    return str(key) if str(key).startswith(prefix) else f"{prefix}{key}"
