"""What a collection needs in its namespace's vector collection, and the steps to it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mixpeek_operator.core import vectors
from mixpeek_operator.core.errors import Place, Problem, SpecError
from mixpeek_operator.core.lifecycle import Deletion, Step, Subject
from mixpeek_operator.ports.vectors import CollectionState, VectorParams

PASSTHROUGH = ("passthrough_extractor", "v1")


@dataclass(frozen=True, slots=True)
class Want:
    """The vectors and indexes that the collection's documents need."""

    vector_collection: str
    vectors: Mapping[str, VectorParams]
    payload_indexes: Mapping[str, str]
    tier: int


@dataclass(frozen=True, slots=True)
class Have:
    """The namespace's vector collection, and how many documents in it are ours."""

    collection_id: str
    state: CollectionState | None
    documents: int = 0
    signed_in: str | None = None
    """Namespace id under which the collection's index signature is kept; looked up for a deletion only."""


@dataclass(frozen=True, slots=True)
class DeleteDocuments(Deletion):
    """Delete every document of the collection."""

    vector_collection: str
    collection_id: str

    def what(self) -> str:
        return f"documents of {self.collection_id} in {self.vector_collection}"


@dataclass(frozen=True, slots=True)
class DeleteSignature(Deletion):
    """Delete the index signature and what embedded the documents: a later collection of that name has its own."""

    namespace_id: str
    collection_id: str

    def what(self) -> str:
        return f"index signature of {self.collection_id}"


def want(subject: Subject) -> Want:
    """Return what the collection's extractor needs.

    Raises SpecError when the namespace does not list the extractor.
    """
    use = subject.spec.get("feature_extractor") or {}
    name = str(use.get("feature_extractor_name") or PASSTHROUGH[0])
    version = str(use.get("version") or PASSTHROUGH[1])
    _check_allowed(subject, name, version)
    info = subject.catalog.extractors().get((name, version))
    indexes = subject.catalog.vector_indexes(name, version, use.get("parameters") or {})
    return Want(
        vector_collection=subject.namespace_id,
        vectors={index.name: vectors.params_of(index) for index in indexes},
        payload_indexes=vectors.payload_indexes(info.required_payload_indexes if info else ()),
        tier=tier(subject),
    )


def plan(want: Want | None, have: Have) -> Sequence[Step]:
    """Return what the vector collection lacks, or for a deletion the end of our documents."""
    state = have.state
    if want is None:
        steps: list[Step] = []
        if state is not None and have.documents:
            steps.append(DeleteDocuments(state.name, have.collection_id))
        if have.signed_in is not None:
            steps.append(DeleteSignature(have.signed_in, have.collection_id))
        return steps
    if state is None:
        # The namespace makes it; a collection only adds to it.
        return []
    return vectors.missing(want.vectors, want.payload_indexes, state)


def tier(subject: Subject) -> int:
    """Return 0 for a collection fed by buckets, else one more than its highest source."""
    source = subject.spec.get("source") or {}
    above = [subject.refs.get("Collection", name) for name in source.get("collection_ids") or ()]
    tiers = [int(item.status.get("tier") or 0) for item in above if item is not None]
    return 1 + max(tiers) if tiers else 0


def _check_allowed(subject: Subject, name: str, version: str) -> None:
    namespace = subject.refs.get("Namespace", subject.resource.namespace or "")
    listed = namespace.spec.get("feature_extractors") if namespace is not None else None
    if not listed or (name, version) == PASSTHROUGH:
        return
    info = subject.catalog.extractors().get((name, version))
    if info is None or info.source != "builtin":
        return
    allowed = {(use.get("feature_extractor_name"), use.get("version")) for use in listed}
    if (name, version) in allowed:
        return
    known = ", ".join(sorted(f"{extractor}@{number}" for extractor, number in allowed))
    message = (
        f"{name}@{version} is not among the extractors of namespace {subject.resource.namespace!r} ({known}); "
        "add it to the namespace's feature_extractors"
    )
    where = ("feature_extractor", "feature_extractor_name")
    place = Place(path="feature_extractor.feature_extractor_name")
    raise SpecError.of([Problem("extractor_not_in_namespace", message, place, location=where)])
