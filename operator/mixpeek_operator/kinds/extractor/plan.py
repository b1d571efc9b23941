"""An extractor's code is brought by its owner: nothing is made for it, it is looked at. Pure.

Where it is realtime, its namespace makes it an application of its Ray cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mixpeek_operator.core.lifecycle import Step, Subject
from mixpeek_operator.extraction.ray import applications
from mixpeek_operator.ports.blobs import BlobInfo
from mixpeek_operator.ports.machines import Application, ClusterState


@dataclass(frozen=True, slots=True)
class Want:
    """Where the code is declared to be, and the application that should answer queries."""

    blob: str | None
    sha256: str | None
    application: Application | None = None


@dataclass(frozen=True, slots=True)
class Have:
    """The archive as it is stored, and the Ray cluster of the extractor's namespace."""

    archive: BlobInfo | None
    cluster: ClusterState | None = None


def want(subject: Subject) -> Want:
    """Return where the archive should be, blob None when it is no uploaded archive."""
    source = subject.spec.get("source") or {}
    application = None
    if on_own_machines(subject):
        application = applications.of_extractor(
            subject.namespace_id, subject.resource.name, subject.spec, subject.catalog
        )
    return Want(blob=blob_key(subject), sha256=source.get("sha256"), application=application)


def plan(want: Want | None, have: Have) -> Sequence[Step]:
    """Return no step."""
    return []


def on_own_machines(subject: Subject) -> bool:
    """Whether the extractor's namespace has a Ray cluster of its own."""
    namespace = subject.refs.get("Namespace", str(subject.spec.get("namespace")))
    infrastructure = (namespace.spec.get("infrastructure") or {}) if namespace is not None else {}
    return subject.facilities.dedicated_compute and (infrastructure.get("compute_tier") or "shared") != "shared"


def blob_key(subject: Subject) -> str | None:
    """Return the key of the archive, always inside the extractor's own namespace; None without one."""
    key = (subject.spec.get("source") or {}).get("blob")
    if not key or not subject.namespace_id:
        return None
    prefix = f"{subject.namespace_id}/"
    return str(key) if str(key).startswith(prefix) else f"{prefix}{key}"
