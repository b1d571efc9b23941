"""A world for ingestion: SQLite and local files as they are, vectors and extractor in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mixpeek_operator.adapters.local_blobs import LocalBlobs
from mixpeek_operator.adapters.sqlite_metadata import SqliteMetadata
from mixpeek_operator.core.catalog import VectorIndex
from mixpeek_operator.core.clock import SystemClock
from mixpeek_operator.core.directory import BucketInfo, CollectionInfo, Feature, NamespaceInfo
from mixpeek_operator.core.errors import MixpeekError, NotFoundError
from mixpeek_operator.core.filters import matches
from mixpeek_operator.core.links import Links
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.ingestion.batches import Batches
from mixpeek_operator.ingestion.blobs import BlobIntake
from mixpeek_operator.ingestion.derived import DerivedDocuments
from mixpeek_operator.ingestion.documents import Documents
from mixpeek_operator.ingestion.fetch import Fetched
from mixpeek_operator.ingestion.objects import Objects
from mixpeek_operator.ingestion.signatures import Signatures
from mixpeek_operator.ingestion.tasks import Tasks
from mixpeek_operator.ingestion.uploads import Uploads
from mixpeek_operator.ingestion.worker import Worker
from mixpeek_operator.ports.compute import RowFailure, Segment, SourceRow
from mixpeek_operator.ports.vectors import CollectionState, Page, Point

NAMESPACE = "ns_aaaaaaaaaa"
SCOPE = Scope("int_org", NAMESPACE, "main")
INDEX = VectorIndex("text_extractor_v1_embedding", "text_embedding", "Dense text embedding", "dense", 2)


class MemoryVectors:
    """The calls of VectorStore that ingestion makes, over a dict; `fail` may raise or wait before a write."""

    def __init__(self) -> None:
        self.points: dict[str, Point] = {}
        self.fail: Callable[[str], Any] | None = None

    async def _before(self, call: str) -> None:
        await asyncio.sleep(0)
        if self.fail is not None:
            self.fail(call)

    async def describe(self, collection: str, *, max_age_s: float = 0.0) -> CollectionState | None:
        return CollectionState(collection, {}, {}, len(self.points))

    async def upsert(self, collection: str, points: Sequence[Point]) -> None:
        await self._before("upsert")
        self.points |= {point.id: point for point in points}
        await self._before("upserted")

    async def set_payload(self, collection: str, ids: Sequence[str], payload: Mapping[str, Any]) -> None:
        for id in ids:
            point = self.points[id]
            self.points[id] = replace(point, payload={**point.payload, **payload})

    async def delete_points(self, collection: str, ids: Sequence[str]) -> None:
        await self._before("delete")
        for id in ids:
            self.points.pop(id, None)

    async def get(self, collection: str, ids: Sequence[str], *, with_vectors: bool = False) -> list[Point]:
        await self._before("get")
        found = [self.points[id] for id in ids if id in self.points]
        return found if with_vectors else [replace(point, vectors={}) for point in found]

    async def scroll(
        self,
        collection: str,
        *,
        filter: Any = None,
        limit: int = 100,
        after: str | None = None,
        order_by: tuple[str, str] | None = None,
        with_vectors: bool = False,
    ) -> Page:
        found = [self.points[id] for id in sorted(self.points) if after is None or id > after]
        found = [point for point in found if matches(filter, point.payload)]
        more = len(found) > limit
        found = found[:limit]
        return Page(found, found[-1].id if more else None)

    async def count(self, collection: str, filter: Any = None) -> int:
        return sum(matches(filter, point.payload) for point in self.points.values())

    def can_push_down(self, filter: Any) -> bool:
        return "regex" not in repr(filter).lower()


class WordRunner:
    """One segment per line of `text`; a line `bad` fails the row, `boom` raises."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self.error: Exception | None = None
        self.before: Callable[[], Any] | None = None
        self.embedders: dict[str, str] = {}

    async def run(
        self,
        *,
        extractor: str,
        version: str,
        parameters: Mapping[str, Any],
        namespace_id: str,
        rows: AsyncIterator[Sequence[SourceRow]],
        run_id: str | None = None,
    ) -> AsyncIterator[Sequence[Segment | RowFailure]]:
        async for block in rows:
            if self.error is not None:
                raise self.error
            if self.before is not None:
                await self.before()
            results: list[Segment | RowFailure] = []
            for row in block:
                self.rows.append(row.id)
                if extractor == "passthrough_extractor":
                    results.append(Segment(row.id, 0, dict(row.inputs)))
                    continue
                text = row.inputs.get("text")
                if not isinstance(text, str) or "bad" in text:
                    results.append(RowFailure(row.id, "ValidationError", f"cannot read {text!r}"))
                    continue
                for index, line in enumerate(text.splitlines()):
                    vectors = {INDEX.name: [float(len(line)), 1.0]}
                    results.append(Segment(row.id, index, {"text": line}, vectors, self.embedders))
            yield results


@dataclass
class Declared:
    """The directory: what was declared."""

    buckets: dict[str, BucketInfo] = field(default_factory=dict)
    kept: dict[str, CollectionInfo] = field(default_factory=dict)

    async def namespace(self, organization: str, identifier: str) -> NamespaceInfo:
        return NamespaceInfo(NAMESPACE, "main", organization, NAMESPACE)

    async def namespaces(self, organization: str) -> list[NamespaceInfo]:
        return [await self.namespace(organization, NAMESPACE)]

    async def bucket(self, namespace_id: str, identifier: str) -> BucketInfo:
        for item in self.buckets.values():
            if item.namespace_id == namespace_id and identifier in (item.id, item.name):
                return item
        raise NotFoundError(f"no bucket {identifier}")

    async def collection(self, namespace_id: str, identifier: str) -> CollectionInfo:
        for item in self.kept.values():
            if item.namespace_id == namespace_id and identifier in (item.id, item.name):
                return item
        raise NotFoundError(f"no collection {identifier}")

    async def collections(self, namespace_id: str) -> list[CollectionInfo]:
        return list(self.kept.values())

    def add(self, name: str, *sources: str, **changes: Any) -> CollectionInfo:
        made = collection_info(name, *sources, **changes)
        self.kept[made.id] = made
        return made


def collection_info(name: str, *sources: str, **changes: Any) -> CollectionInfo:
    feature = Feature("mixpeek://text_extractor@v1/text_embedding", "text_extractor", "v1", INDEX)
    made = CollectionInfo(
        id=f"col_{name}",
        name=name,
        namespace_id=NAMESPACE,
        vector_collection=NAMESPACE,
        source_type="bucket" if sources and sources[0].startswith("bkt_") else "collection",
        source_ids=tuple(sources),
        extractor="text_extractor",
        version="v1",
        parameters={},
        input_mappings={"text": "content"},
        field_passthrough=(("title", "title"),),
        include_all_source_fields=False,
        enabled=True,
        tier=0,
        features=(feature,),
        config_signature="sig",
    )
    return replace(made, **changes)


class Clock:
    """The machine's time, shifted by tests."""

    def __init__(self) -> None:
        self.shift = timedelta()
        self._real = SystemClock()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.shift

    def monotonic(self) -> float:
        return self._real.monotonic()


class Fetcher:
    def __init__(self) -> None:
        self.pages: dict[str, Fetched | MixpeekError] = {}

    async def fetch(self, url: str) -> Fetched:
        page = self.pages[url]
        if isinstance(page, MixpeekError):
            raise page
        return page


class World:
    """Every service of ingestion, wired as main wires them."""

    def __init__(self, path: Path, *, vectors: Any = None) -> None:
        self.scope = SCOPE
        self.clock = Clock()
        self.metadata = SqliteMetadata(path / "metadata.db")
        self.blobs = LocalBlobs(path / "blobs", b"x" * 32, "http://127.0.0.1:1", self.clock)
        self.vectors: Any = vectors or MemoryVectors()
        self.directory = Declared()
        self.runner = WordRunner()
        self.fetcher = Fetcher()
        self.signatures = Signatures(self.metadata, self.vectors, self.clock)
        self.derived = DerivedDocuments(self.vectors, self.directory, self.signatures)
        self.tasks = Tasks(self.metadata, self.clock)
        intake = BlobIntake(self.blobs, self.metadata, self.fetcher)
        links = Links(self.blobs, expires_s=3600)
        self.objects = Objects(self.metadata, self.blobs, self.directory, self.clock, intake, self.derived, links)
        self.uploads = Uploads(self.metadata, self.blobs, self.directory, self.objects, self.tasks, self.clock)
        self.batches = Batches(self.metadata, self.vectors, self.directory, self.objects, self.clock)
        self.documents = Documents(self.vectors, self.directory, self.signatures, self.clock, links)

    def bucket(self, name: str = "texts", *, unique_key: Any = None, **properties: Any) -> BucketInfo:
        declared = properties or {
            "content": {"type": "text", "required": True},
            "title": {"type": "string"},
            "price": {"type": "number"},
        }
        made = BucketInfo(f"bkt_{name}", name, NAMESPACE, declared, unique_key)
        self.directory.buckets[made.id] = made
        return made

    def worker(self, **options: Any) -> Worker:
        options = {"lease_s": 30.0, "poll_s": 0.01, "backoff_s": 0.0, **options}
        return Worker(
            self.metadata,
            self.vectors,
            self.blobs,
            self.directory,
            self.runner,
            self.signatures,
            self.clock,
            **options,
        )

    async def fill(self, bucket: str, texts: Sequence[str]) -> list[str]:
        bodies = [{"content": text, "title": f"t{number}"} for number, text in enumerate(texts)]
        made = await self.objects.create_many(self.scope, bucket, bodies)
        assert made["failed"] == []
        return [item["object_id"] for item in made["succeeded"]]

    async def submit(self, bucket: str, ids: Sequence[str], **options: Any) -> str:
        batch = await self.batches.create(self.scope, bucket, {"object_ids": list(ids), **options})
        await self.batches.submit(self.scope, bucket, batch["batch_id"])
        return str(batch["batch_id"])

    async def process(self, bucket: str, ids: Sequence[str], **options: Any) -> dict[str, Any]:
        batch_id = await self.submit(bucket, ids, **options)
        await self.worker().run_until_idle()
        return await self.batches.get(self.scope, bucket, batch_id)

    def stored(self, collection: str) -> dict[tuple[str, int], dict[str, Any]]:
        """Payloads of a collection by (source id, segment)."""
        found = {}
        for point in self.vectors.points.values():
            if point.payload["collection_id"] == collection:
                above = point.payload["_internal"]["lineage"]
                source = above["source_object_id"] or above["source_document_id"]
                key = (source, point.payload["_internal"]["segment"])
                assert key not in found, "a document twice"
                found[key] = dict(point.payload)
        return found

    async def close(self) -> None:
        await self.metadata.close()
        await self.blobs.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.close()


@pytest.fixture(scope="session")
def make_world() -> Callable[..., World]:
    return World


@pytest.fixture(scope="session")
def make_collection() -> Callable[..., CollectionInfo]:
    return collection_info
