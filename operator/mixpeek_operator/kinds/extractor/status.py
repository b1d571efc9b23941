"""What an extractor says of itself. Pure."""

from __future__ import annotations

from enum import StrEnum

from mixpeek_operator.core.conditions import Finding
from mixpeek_operator.core.lifecycle import Report, Subject
from mixpeek_operator.extraction.features import features_of
from mixpeek_operator.kinds.extractor.plan import Have, Want


class Reason(StrEnum):
    """Why an extractor's own conditions are what they are."""

    LOADED = "Loaded"
    """ArchiveReady surfaces it when the extractor can be used by collections."""
    NOT_UPLOADED = "ArchiveNotUploaded"
    """Surfaces when the source is no uploaded archive."""
    ARCHIVE_MISSING = "ArchiveMissing"
    """Surfaces when no file is stored under the declared key."""
    HASH_MISMATCH = "ArchiveHashMismatch"
    """Surfaces when the stored file has another hash than declared."""
    NOT_LOADED = "ArchiveNotLoaded"
    """Surfaces when the archive is there and no runner of this server has taken it up."""
    IMAGE_UNAVAILABLE = "ImageUnavailable"
    """Surfaces when a container image is asked for where none can run."""


def status(subject: Subject, want: Want | None, have: Have) -> Report:
    """Return whether the extractor can be used, and its facts."""
    if want is None:
        return Report()
    name, version = subject.resource.name, str(subject.spec.get("version"))
    facts: dict[str, object] = {"plugin_id": f"{name}_{version.replace('.', '_')}"}
    if have.archive is not None:
        facts["archive_sha256"] = have.archive.sha256
    info = subject.catalog.extractors().get((name, version))
    facts["deployed"] = info is not None
    if info is not None:
        facts["feature_uris"] = [item.uri for item in features_of(name, version, info.vector_indexes)]
    return Report((_archive(subject, want, have),), facts)


def _archive(subject: Subject, want: Want, have: Have) -> Finding:
    def no(reason: Reason, message: str) -> Finding:
        return Finding("ArchiveReady", False, reason, message, stalled=True)

    name, version = subject.resource.name, str(subject.spec.get("version"))
    if (name, version) in subject.catalog.extractors():
        return Finding("ArchiveReady", True, Reason.LOADED)
    source = subject.spec.get("source") or {}
    if source.get("container_image"):
        return no(Reason.IMAGE_UNAVAILABLE, "a container image needs Kubernetes; give the code as an archive")
    if want.blob is None:
        return no(Reason.NOT_UPLOADED, "the archive was not uploaded; upload it and set source.blob to its key")
    if have.archive is None:
        return no(Reason.ARCHIVE_MISSING, f"no archive is stored under {want.blob}; upload it")
    if want.sha256 and have.archive.sha256 and have.archive.sha256 != want.sha256:
        found = have.archive.sha256
        return no(Reason.HASH_MISMATCH, f"the archive has the hash {found}, declared is {want.sha256}; upload it again")
    return no(Reason.NOT_LOADED, f"this server has no runner for custom code, so {name}@{version} cannot be used")
