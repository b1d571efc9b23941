"""A namespace with two collections on the real embedded stores, and hand-made vectors."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mixpeek_operator.access.secrets import StoredSecrets
from mixpeek_operator.adapters.local_blobs import LocalBlobs
from mixpeek_operator.adapters.memory_cache import MemoryCache
from mixpeek_operator.adapters.outbound import GuardedClient
from mixpeek_operator.adapters.process_sandbox import ProcessSandbox
from mixpeek_operator.adapters.qdrant_edge import QdrantEdgeVectors
from mixpeek_operator.adapters.sqlite_metadata import SqliteMetadata
from mixpeek_operator.core import ids
from mixpeek_operator.core.catalog import VectorIndex
from mixpeek_operator.core.clock import SystemClock
from mixpeek_operator.core.directory import CollectionInfo, Feature, NamespaceInfo, RetrieverInfo, TaxonomyInfo
from mixpeek_operator.core.errors import NotFoundError
from mixpeek_operator.core.links import Links
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.extraction.embedders import TABLE as SIGNATURES
from mixpeek_operator.ingestion.signatures import Signatures
from mixpeek_operator.ports.inference import Scores
from mixpeek_operator.ports.vectors import Point, SparseVector, Vector, VectorParams
from mixpeek_operator.retrieval.registry import StageRegistry
from mixpeek_operator.retrieval.service import Retrieval

DENSE = "text_extractor_v1_embedding"
SPARSE = "text_extractor_v1_sparse_embedding"
URI = "mixpeek://text_extractor@v1/text_embedding"
SPARSE_URI = "mixpeek://text_extractor@v1/text_sparse_embedding"
SIZE = 8


def feature(output: str, name: str, type: str, model: str) -> Feature:
    index = VectorIndex(
        name, output, "a vector of a test", type, SIZE if type == "dense" else None, inference_model=model
    )
    return Feature(f"mixpeek://text_extractor@v1/{output}", "text_extractor", "v1", index)


class Letters:
    """Embeds a text by its letters: equal texts, equal vectors."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[str, ...], str]] = []
        self.weights = "1"

    async def embed(self, model: str, inputs: Sequence[str], *, purpose: str, namespace_id: str) -> list[Vector]:
        self.calls.append((model, tuple(inputs), purpose))
        return [words(text) if model == "bm25" else letters(text) for text in inputs]

    async def score(self, model: str, query: str, texts: Sequence[str], *, namespace_id: str) -> Scores:
        asked = letters(query)
        values = [sum(a * b for a, b in zip(asked, letters(text), strict=True)) for text in texts]
        return Scores(values, f"{model}@{self.weights}", "bi_encoder")

    async def identity(self, model: str, *, namespace_id: str) -> str:
        return f"{model}@{self.weights}"

    async def health(self) -> None: ...

    async def close(self) -> None: ...


def letters(text: str) -> list[float]:
    counts = [0.01] * SIZE
    for char in text.lower():
        counts[ord(char) % SIZE] += 1.0
    length = math.sqrt(sum(value * value for value in counts))
    return [value / length for value in counts]


def words(text: str) -> SparseVector:
    found = sorted({sum(map(ord, word)) % 1000 for word in text.lower().split()})
    return SparseVector(found, [1.0] * len(found))


class World:
    """The stores, the service, and the declarations that the directory answers with."""

    def __init__(self, path: Path) -> None:
        self.vectors = QdrantEdgeVectors(path / "vectors")
        self.metadata = SqliteMetadata(path / "metadata.db", remembered=(SIGNATURES,))
        self.inference = Letters()
        self.clock = SystemClock()
        self.info = NamespaceInfo("ns_test000001", "shop", "int_test", "ns_test000001")
        self.scope = Scope("int_test", self.info.id, "shop")
        self.declared: dict[str, CollectionInfo] = {}
        self.retrievers: dict[str, RetrieverInfo] = {}
        self.taxonomies: dict[str, TaxonomyInfo] = {}
        self.blobs = LocalBlobs(path / "blobs", b"x" * 32, "http://127.0.0.1:1", self.clock)
        self.outbound = GuardedClient(allow_cidrs="127.0.0.0/8", clock=self.clock)
        self.secrets = StoredSecrets(self.metadata, b"k" * 32, clock=self.clock)
        self.signatures = Signatures(self.metadata, self.vectors, self.clock)
        self.cache: Any = MemoryCache(10_000_000, self.clock)
        self.use_registry(None)

    def use_cache(self, cache: Any) -> None:
        """Put the service together with another cache."""
        self.cache = cache
        self.use_registry(None)

    def use_registry(self, registry: StageRegistry | None) -> None:
        """Put the service together with other stages."""
        links = Links(self.blobs, expires_s=60)
        self.retrieval = Retrieval(
            self, self.vectors, self.inference, self.metadata, self.cache, self.clock, links,
            outbound=self.outbound, secrets=self.secrets, sandbox=ProcessSandbox(),
            signatures=self.signatures, registry=registry,
        )  # fmt: skip

    async def start(self) -> World:
        await self.vectors.create_collection(
            self.info.vector_collection,
            {DENSE: VectorParams("dense", SIZE), SPARSE: VectorParams("sparse", modifier="idf")},
            labels={},
        )
        for field, type in (("collection_id", "keyword"), ("category", "keyword"), ("price", "float")):
            await self.vectors.create_payload_index(self.info.vector_collection, field, type)
        return self

    def add_collection(self, name: str) -> CollectionInfo:
        features = (
            feature("text_embedding", DENSE, "dense", "letters"),
            feature("text_sparse_embedding", SPARSE, "sparse", "bm25"),
        )
        info = CollectionInfo(
            f"col_{name}", name, self.info.id, self.info.vector_collection, "bucket", (), "text_extractor", "v1",
            {}, {}, (), False, True, 0, features, "sig",
        )  # fmt: skip
        self.declared[name] = info
        return info

    async def put(self, collection: str, documents: Sequence[Mapping[str, Any]]) -> None:
        info = self.declared[collection]
        points = []
        for document in documents:
            body = dict(document)
            vector = body.pop("vector", None) or letters(str(body.get("title", "")))
            vectors: dict[str, Vector] = {DENSE: vector, SPARSE: words(str(body.get("title", "")))}
            payload = {
                **body,
                "collection_id": info.id,
                "_internal": {
                    "namespace_id": self.info.id,
                    "lineage": {"root_object_id": f"obj_{body['document_id']}"},
                },
            }
            points.append(Point(ids.point_id(self.info.id, body["document_id"]), vectors, payload))
        await self.vectors.upsert(self.info.vector_collection, points)
        await self.signatures.touch(info)

    def declare(self, stages: list[dict[str, Any]], *, name: str = "r", **options: Any) -> str:
        known = self.retrievers.get(name)
        self.retrievers[name] = RetrieverInfo(
            f"ret_{name}", name, self.info.id, None,
            tuple(options.get("collections", ("products",))), tuple(stages), options.get("inputs", {}),
            options.get("cache", {}), options.get("budget", {}), f"{known.version}+" if known else "1",
        )  # fmt: skip
        return name

    async def run(self, stages: list[dict[str, Any]], request: Mapping[str, Any] | None = None, **options: Any) -> Any:
        name = self.declare(stages, **options)
        return await self.retrieval.execute(self.scope, name, request or {})

    # the Directory port

    async def namespace(self, organization: str, identifier: str) -> NamespaceInfo:
        if organization != self.info.organization or identifier not in (self.info.id, self.info.name):
            raise NotFoundError(f"no namespace {identifier!r}")
        return self.info

    async def namespaces(self, organization: str) -> list[NamespaceInfo]:
        return [self.info]

    async def bucket(self, namespace_id: str, identifier: str) -> Any:
        raise NotFoundError(f"no bucket {identifier!r}")

    async def collection(self, namespace_id: str, identifier: str) -> CollectionInfo:
        for info in self.declared.values():
            if identifier in (info.id, info.name):
                return info
        raise NotFoundError(f"no collection {identifier!r}")

    async def collections(self, namespace_id: str) -> list[CollectionInfo]:
        return list(self.declared.values())

    async def retriever(self, namespace_id: str, identifier: str) -> RetrieverInfo:
        for info in self.retrievers.values():
            if identifier in (info.id, info.name):
                return info
        raise NotFoundError(f"no retriever {identifier!r}")

    async def taxonomy(self, namespace_id: str, identifier: str) -> TaxonomyInfo:
        for info in self.taxonomies.values():
            if identifier in (info.id, info.name):
                return info
        raise NotFoundError(f"no taxonomy {identifier!r}")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = await World(tmp_path).start()
    world.add_collection("products")
    world.add_collection("suppliers")
    chance = random.Random(7)
    products = [
        {
            "document_id": f"doc_{index:03d}",
            "title": f"thing {index} {chance.choice(['lamp', 'chair', 'radio', 'bottle'])}",
            "category": chance.choice(["audio", "home", "garden"]),
            "price": chance.randint(1, 200),
            "supplier": f"s{index % 4}",
            "tags": [f"t{index % 3}", f"t{index % 5}"],
            "metadata": {"rank": index, "note": 'says "hi"\n'},
            "vector": [chance.gauss(0, 1) for _ in range(SIZE)],
        }
        for index in range(120)
    ]
    await world.put("products", products)
    await world.put(
        "suppliers",
        [
            {"document_id": f"sup_{index}", "supplier_id": f"s{index}", "name": f"Supplier {index}", "score": 1}
            for index in range(3)
        ],
    )
    world.products = products  # type: ignore[attr-defined]
    yield world
    await world.retrieval.close()
    await world.outbound.close()
    await world.vectors.close()
    await world.metadata.close()
