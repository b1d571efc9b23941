"""What a namespace needs outside, and the steps to it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from mixpeek_operator.core import vectors
from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.core.lifecycle import Deletion, Step, Subject
from mixpeek_operator.kinds.namespace import compute
from mixpeek_operator.ports.machines import Cluster, ClusterState
from mixpeek_operator.ports.vectors import CollectionState, VectorParams

SYSTEM_INDEXES: Mapping[str, str] = {
    "_internal.lineage.root_object_id": "keyword",
    "collection_id": "keyword",
    "document_id": "keyword",
}
_DISTANCES = {"cosine": "cosine", "euclidean": "euclid", "dot_product": "dot"}


@dataclass(frozen=True, slots=True)
class Want:
    """The vector collection as declared."""

    collection: str
    vectors: Mapping[str, VectorParams]
    payload_indexes: Mapping[str, str]
    kept_indexes: frozenset[str]
    """Fields whose index is not ours to drop: collections of the namespace may need it."""
    labels: Mapping[str, str]
    cluster: Cluster | None = None


@dataclass(frozen=True, slots=True)
class Have:
    """The vector collection and the Ray cluster as they are, and how many records the namespace has."""

    namespace_id: str
    state: CollectionState | None
    records: Mapping[str, int] = field(default_factory=dict)
    """Table → records; counted for a deletion only."""
    organization: str = ""
    cluster: ClusterState | None = None


@dataclass(frozen=True, slots=True)
class CreateVectorCollection(Step):
    """Create the collection with its vectors."""

    collection: str
    vectors: Mapping[str, VectorParams]
    labels: Mapping[str, str]

    verb: ClassVar[str] = "create"
    past: ClassVar[str] = "Created"
    restores: ClassVar[bool] = True

    def what(self) -> str:
        return f"vector collection {self.collection} with {len(self.vectors)} vectors"


@dataclass(frozen=True, slots=True)
class DropPayloadIndex(Step):
    """Drop an index that is no longer declared, or that has another type."""

    collection: str
    field_name: str

    verb: ClassVar[str] = "drop"
    past: ClassVar[str] = "Dropped"
    destroys: ClassVar[bool] = True

    def what(self) -> str:
        return f"index on {self.field_name} in {self.collection}"


@dataclass(frozen=True, slots=True)
class EmptyCache(Step):
    """Forget everything cached for the namespace."""

    namespace_id: str

    verb: ClassVar[str] = "empty"
    past: ClassVar[str] = "Emptied"
    destroys: ClassVar[bool] = True

    def what(self) -> str:
        return f"the cache of {self.namespace_id}"


@dataclass(frozen=True, slots=True)
class DeleteFiles(Deletion):
    """Delete the files of every object."""

    prefix: str

    def what(self) -> str:
        return f"files under {self.prefix}"


@dataclass(frozen=True, slots=True)
class DeleteRecords(Deletion):
    """Delete the records of the data plane."""

    namespace_id: str
    tables: tuple[str, ...]

    def what(self) -> str:
        return f"records of {self.namespace_id} ({', '.join(self.tables)})"


@dataclass(frozen=True, slots=True)
class DropVectorCollection(Deletion):
    """Delete the collection with its documents."""

    collection: str

    def what(self) -> str:
        return f"vector collection {self.collection}"


def want(subject: Subject) -> Want:
    """Return the vector collection that the namespace declares.

    Raises SpecError when two of its extractors write one vector in two shapes.
    """
    spec, catalog = subject.spec, subject.catalog
    known = catalog.extractors()
    # Without a list every built-in extractor may be used: each collection then adds its vectors when it comes.
    chosen = [
        (use["feature_extractor_name"], use["version"], use.get("parameters") or {})
        for use in spec.get("feature_extractors") or ()
    ]
    named: dict[str, VectorParams] = {}
    for name, version, parameters in chosen:
        for index in catalog.vector_indexes(name, version, parameters):
            _add(named, index.name, vectors.params_of(index))
    for config in spec.get("vector_configs") or ():
        distance = _DISTANCES[config.get("metric") or "cosine"]
        _add(named, config["name"], VectorParams("dense", config["dimension"], distance))
    required = [item for info in known.values() for item in info.required_payload_indexes]
    indexes = dict(SYSTEM_INDEXES)
    for name, version, _parameters in chosen:
        info = known.get((name, version))
        indexes |= vectors.payload_indexes(info.required_payload_indexes if info else ())
    indexes |= vectors.payload_indexes(spec.get("payload_indexes") or ())
    return Want(
        collection=subject.id,
        vectors=named,
        payload_indexes=indexes,
        kept_indexes=frozenset(vectors.payload_indexes(required)),
        labels={"organization": subject.resource.metadata.organization, "namespace_id": subject.id},
        cluster=compute.wanted(subject),
    )


def plan(want: Want | None, have: Have) -> Sequence[Step]:
    """Return the steps from `have` to `want`; for a deletion the collection goes last, so that it marks the rest."""
    machines = compute.steps(want.cluster if want else None, have.organization, have.namespace_id, have.cluster)
    if want is None:
        return [*machines, *_deletion(have)]
    return [*_vector_steps(want, have.state), *machines]


def _vector_steps(want: Want, state: CollectionState | None) -> list[Step]:
    if state is None:
        steps: list[Step] = [CreateVectorCollection(want.collection, want.vectors, want.labels)]
        steps += [
            vectors.CreatePayloadIndex(want.collection, name, type)
            for name, type in sorted(want.payload_indexes.items())
        ]
        return steps
    if foreign(want, state):
        return []
    steps = []
    remaining = dict(state.payload_indexes)
    for name, type in sorted(state.payload_indexes.items()):
        wanted = want.payload_indexes.get(name)
        undeclared = wanted is None and name not in want.kept_indexes and not name.startswith("_internal.")
        if undeclared or (wanted is not None and wanted != type):
            steps.append(DropPayloadIndex(want.collection, name))
            del remaining[name]
    left = CollectionState(state.name, state.vectors, remaining, state.points, state.labels)
    return [*steps, *vectors.missing(want.vectors, want.payload_indexes, left)]


def foreign(want: Want, state: CollectionState) -> bool:
    """Whether the collection carries the mark of another owner."""
    return any(state.labels.get(key, value) != value for key, value in want.labels.items())


def _deletion(have: Have) -> Sequence[Step]:
    tables = tuple(sorted(table for table, count in have.records.items() if count))
    if have.state is None and not tables:
        return []
    steps: list[Step] = [EmptyCache(have.namespace_id), DeleteFiles(f"{have.namespace_id}/")]
    if tables:
        steps.append(DeleteRecords(have.namespace_id, tables))
    if have.state is not None:
        steps.append(DropVectorCollection(have.namespace_id))
    return steps


def _add(named: dict[str, VectorParams], name: str, params: VectorParams) -> None:
    before = named.setdefault(name, params)
    if not vectors.same(before, params):
        raise SpecError(
            f"vector {name} is declared twice: {vectors.described(before)} and {vectors.described(params)}; "
            "use one set of parameters per extractor",
            code="vector_conflict",
        )
