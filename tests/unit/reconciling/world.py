"""A small world to reconcile in: the real stores, vectors in a dictionary, a catalog of two extractors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from mixpeek_operator.access.connections import TABLE as CONNECTIONS
from mixpeek_operator.access.connections import ConnectionNames
from mixpeek_operator.access.secrets import StoredSecrets
from mixpeek_operator.adapters.local_blobs import LocalBlobs
from mixpeek_operator.adapters.memory_cache import MemoryCache
from mixpeek_operator.adapters.sqlite_metadata import SqliteMetadata
from mixpeek_operator.adapters.sqlite_resources import SqliteResources
from mixpeek_operator.core.catalog import ExtractorInfo, Need, StageInfo, VectorIndex
from mixpeek_operator.core.clock import SystemClock
from mixpeek_operator.core.engine import Engine
from mixpeek_operator.core.errors import NotFoundError, Place, Problem, UnavailableError
from mixpeek_operator.core.filters import Compare, matches
from mixpeek_operator.core.index import ResourceIndex
from mixpeek_operator.core.lifecycle import Backends, Kind
from mixpeek_operator.core.queue import Queue
from mixpeek_operator.core.resource import Resource
from mixpeek_operator.core.resources import Resources
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.kinds import kinds
from mixpeek_operator.kinds.directory import StoreDirectory
from mixpeek_operator.ports.vectors import CollectionState, VectorParams

SCOPE = Scope("int_one")
URI = "mixpeek://text_extractor@v1/text_embedding"
DENSE = VectorIndex("text_extractor_v1_embedding", "text_embedding", "Dense text", "dense", 384)
SPARSE = VectorIndex("text_extractor_v1_sparse_embedding", "text_sparse_embedding", "BM25", "sparse", None, "dot")


class _Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid")
    split_by: str | None = None
    sparse: bool = False


_NEEDS: dict[str, Literal["secret", "connection"]] = {"secret_ref": "secret", "connection_id": "connection"}


class ToyCatalog:
    """text_extractor, passthrough_extractor, and the stages feature_search and limit."""

    def __init__(self) -> None:
        self._extractors = {
            ("text_extractor", "v1"): _info("text_extractor", (DENSE,)),
            ("passthrough_extractor", "v1"): _info("passthrough_extractor", ()),
        }

    def stages(self) -> Mapping[str, StageInfo]:
        return {}

    def extractors(self) -> Mapping[tuple[str, str], ExtractorInfo]:
        return self._extractors

    def vector_indexes(self, name: str, version: str, parameters: Mapping[str, Any]) -> tuple[VectorIndex, ...]:
        if (name, version) not in self._extractors:
            raise NotFoundError(f"no extractor {name}@{version}")
        if name != "text_extractor":
            return ()
        return (DENSE, SPARSE) if parameters.get("sparse") else (DENSE,)

    def output_schema(self, name: str, version: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"properties": {}}

    def check_stages(self, stages: list[Any], input_schema: Mapping[str, Any]) -> list[Any]:
        return [
            Problem("unknown_stage", f"unknown stage {stage['stage_id']!r}", Place(path=f"stages[{index}]"))
            for index, stage in enumerate(stages)
            if stage["stage_id"] not in ("feature_search", "limit", "document_enrich")
        ]

    def stage_needs(self, stages: list[Any]) -> list[Need]:
        return [
            Need(kind, stage["parameters"][name], ("stages", index, "parameters", name))
            for index, stage in enumerate(stages)
            for name, kind in _NEEDS.items()
            if name in stage["parameters"]
        ]


def _info(name: str, indexes: tuple[VectorIndex, ...]) -> ExtractorInfo:
    required = ({"field_name": "chunk", "type": "integer"},) if indexes else ()
    return ExtractorInfo(
        name=name,
        version="v1",
        description="For tests",
        icon="text",
        source="builtin",
        input_schema={"properties": {"text": {"type": "string"}}},
        output_schema={"properties": {}},
        parameters=_Parameters,
        supported_input_types=("text",),
        vector_indexes=indexes,
        required_payload_indexes=required,
    )


@dataclass
class Vectors:
    """A vector store as far as kinds use it: a dictionary that can be away or tampered with."""

    states: dict[str, CollectionState] = field(default_factory=dict)
    documents: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    away: bool = False
    calls: int = 0

    async def describe(self, collection: str, *, max_age_s: float = 0.0) -> CollectionState | None:
        self._answer()
        state = self.states.get(collection)
        return None if state is None else replace(state, points=len(self.documents.get(collection, ())))

    async def create_collection(
        self, collection: str, vectors: Mapping[str, VectorParams], *, labels: Mapping[str, str]
    ) -> None:
        self._answer()
        self.states.setdefault(collection, CollectionState(collection, dict(vectors), {}, 0, dict(labels)))

    async def delete_collection(self, collection: str) -> None:
        self._answer()
        self.states.pop(collection, None)
        self.documents.pop(collection, None)

    async def add_vector(self, collection: str, name: str, params: VectorParams) -> None:
        state = self._state(collection)
        self.states[collection] = replace(state, vectors={**state.vectors, name: params})

    async def create_payload_index(self, collection: str, field_name: str, type: str) -> None:
        state = self._state(collection)
        self.states[collection] = replace(state, payload_indexes={**state.payload_indexes, field_name: type})

    async def delete_payload_index(self, collection: str, field_name: str) -> None:
        state = self._state(collection)
        left = {key: value for key, value in state.payload_indexes.items() if key != field_name}
        self.states[collection] = replace(state, payload_indexes=left)

    async def count(self, collection: str, filter: Compare) -> int:
        self._answer()
        return sum(matches(filter, item) for item in self.documents.get(collection, ()))

    async def delete_by_filter(self, collection: str, filter: Compare) -> None:
        self._answer()
        self.documents[collection] = [item for item in self.documents.get(collection, ()) if not matches(filter, item)]

    def _state(self, collection: str) -> CollectionState:
        self._answer()
        if collection not in self.states:
            raise NotFoundError(f"no collection {collection}")
        return self.states[collection]

    def _answer(self) -> None:
        self.calls += 1
        if self.away:
            raise UnavailableError("the vector store is away")


class World:
    """Everything between the front doors and the stores, put together."""

    def __init__(self, path: Path) -> None:
        self.clock = SystemClock()
        self.kinds: Mapping[str, Kind] = kinds()
        self.catalog = ToyCatalog()
        self.vectors = Vectors()
        self.store = SqliteResources(path / "resources.db", self.clock)
        self.metadata = SqliteMetadata(path / "metadata.db")
        self.cache = MemoryCache(1_000_000, self.clock)
        self.blobs = LocalBlobs(path / "blobs", b"k" * 32, "http://localhost", self.clock)
        self.secrets = StoredSecrets(self.metadata, b"k" * 32)
        backends = Backends(
            self.vectors,  # type: ignore[arg-type]
            self.metadata,
            self.cache,
            self.blobs,
            secrets=self.secrets,
            connections=ConnectionNames(self.metadata),
        )
        self.clients: dict[str, Any] = {name: kind.client(backends) for name, kind in self.kinds.items()}
        self.index = ResourceIndex({name: kind.schema for name, kind in self.kinds.items()})
        self.engine = Engine(
            store=self.store,
            index=self.index,
            kinds=self.kinds,
            clients=self.clients,
            catalog=self.catalog,
            clock=self.clock,
        )
        self.resources = Resources(
            store=self.store,
            index=self.index,
            kinds=self.kinds,
            catalog=self.catalog,
            engine=self.engine,
            clock=self.clock,
        )
        self.directory = StoreDirectory(store=self.store, index=self.index, catalog=self.catalog)

    def queue(self, **options: Any) -> Queue:
        defaults = {"first_delay_s": 0.01, "max_delay_s": 0.05}
        return Queue(store=self.store, index=self.index, engine=self.engine, **{**defaults, **options})

    async def settle(self, rounds: int = 12) -> None:
        """Visit everything until nothing changes any more."""
        for _ in range(rounds):
            before = self.snapshot()
            for key in sorted(self.index.everything()):
                await self.engine.reconcile(key)
            if self.snapshot() == before:
                return
        raise AssertionError("the world does not settle")

    def snapshot(self) -> dict[str, Any]:
        """What matters of the world: declarations without versions, what is outside."""
        declared = {
            str(key): (item.spec, item.id, _status(item), item.deleting)
            for key in sorted(self.index.everything())
            if (item := self.index.get(key)) is not None
        }
        return {"declared": declared, "outside": dict(self.vectors.states), "documents": dict(self.vectors.documents)}

    async def close(self) -> None:
        await self.store.close()
        await self.metadata.close()
        await self.blobs.close()

    # -- shorthands --------------------------------------------------------------------------------------------

    async def namespace(self, name: str = "products", **spec: Any) -> Resource:
        return await self.resources.create(SCOPE, "Namespace", {"name": name, **spec})

    async def connection(self, id: str, name: str) -> None:
        await self.metadata.put(CONNECTIONS, SCOPE.organization, id, {"name": name})

    async def base(self) -> Scope:
        """A namespace with a bucket, a collection and a retriever; returns its scope."""
        made = await self.namespace()
        scope = Scope(SCOPE.organization, made.id, made.name)
        for kind, body in BASE:
            await self.resources.create(scope, kind, body)
        return scope


BASE: list[tuple[str, dict[str, Any]]] = [
    ("Bucket", {"name": "articles", "bucket_schema": {"properties": {"title": {"type": "text"}}}}),
    (
        "Collection",
        {
            "name": "article_texts",
            "source": {"type": "bucket", "bucket_ids": ["articles"]},
            "feature_extractor": {
                "feature_extractor_name": "text_extractor",
                "version": "v1",
                "input_mappings": {"text": "title"},
            },
        },
    ),
    (
        "Collection",
        {"name": "summaries", "source": {"type": "collection", "collection_ids": ["article_texts"]}},
    ),
    (
        "Retriever",
        {
            "name": "search",
            "collection_identifiers": ["article_texts"],
            "stages": [{"stage_id": "feature_search", "parameters": {"searches": [{"feature_uri": URI}]}}],
            "input_schema": {"query": {"type": "text"}},
        },
    ),
]


def _status(item: Resource) -> dict[str, Any]:
    conditions = [
        {key: value for key, value in condition.items() if key != "last_transition_time"}
        for condition in item.status.get("conditions") or ()
    ]
    return {**item.status, "conditions": conditions}


def condition(resource: Resource | None, type: str) -> dict[str, Any]:
    """The condition of that type; fails when there is none."""
    assert resource is not None
    found = [item for item in resource.status.get("conditions") or () if item["type"] == type]
    assert found, f"{resource.key} has no condition {type}"
    return dict(found[0])


@dataclass
class FixedClock:
    """A clock that stands still."""

    at: datetime = field(default_factory=lambda: datetime(2026, 1, 31, 10, tzinfo=UTC))

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return 0.0
