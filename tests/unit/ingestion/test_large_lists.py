"""Lists over many objects and documents: the right page, in memory that does not grow with what is stored."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from mixpeek_operator.adapters.qdrant_edge import QdrantEdgeVectors
from mixpeek_operator.core.filters import parse
from mixpeek_operator.core.ids import point_id
from mixpeek_operator.core.listing import ListPage, ListQuery
from mixpeek_operator.ports.metadata import Write
from mixpeek_operator.ports.vectors import Point, VectorParams

MANY = 10_000
BYTES = 2_000
"""Of filling in each object and document: 20 MB of each in all."""
BOUND = 15_000_000

Call = Callable[[ListQuery], Awaitable[ListPage]]


@pytest.fixture
async def big(tmp_path: Path, make_world: Any) -> AsyncIterator[Any]:
    world = make_world(tmp_path, vectors=QdrantEdgeVectors(tmp_path / "vectors"))
    bucket = world.bucket()
    chunks = world.directory.add("chunks", bucket.id)
    chance = random.Random(3)
    world.ranks = [chance.randrange(10**6) for _ in range(MANY)]
    await world.vectors.create_collection(chunks.vector_collection, {"v": VectorParams("dense", 2)}, labels={})
    await world.vectors.create_payload_index(chunks.vector_collection, "collection_id", "keyword")
    for start in range(0, MANY, 2000):
        bodies = [
            {"number": n, "rank": world.ranks[n], "note": f"n{n}" if n % 50 == 0 else "", "text": "x" * BYTES}
            for n in range(start, start + 2000)
        ]
        objects = [
            {**body, "object_id": f"obj_{body['number']:05d}", "bucket_id": bucket.id, "blobs": [], "_size": 10}
            for body in bodies
        ]
        await world.metadata.transact(
            [Write("objects", bucket.namespace_id, str(item["object_id"]), item) for item in objects]
        )
        points = []
        for body in bodies:
            id = f"doc_{body['number']:05d}"
            payload = {**body, "document_id": id, "collection_id": chunks.id, "_internal": {"lineage": {}}}
            points.append(Point(point_id(chunks.namespace_id, id), {}, payload))
        await world.vectors.upsert(chunks.vector_collection, points)
    yield world
    await world.close()
    await world.vectors.close()


async def _peak(call: Call, query: ListQuery) -> tuple[ListPage, int]:
    tracemalloc.start()
    try:
        page = await call(query)
        return page, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def test_pages_far_into_many_records_take_little_memory(big: Any) -> None:
    async def objects(query: ListQuery) -> ListPage:
        page: ListPage = await big.objects.list(big.scope, "texts", query)
        return page

    async def documents(query: ListQuery) -> ListPage:
        page: ListPage = await big.documents.list(big.scope, "chunks", query)
        return page

    ranked = sorted(range(MANY), key=lambda n: -big.ranks[n])
    noted = [n for n in ranked if n % 50 == 0]
    far = MANY - 40
    descending = (("rank", "desc"),)
    for call in (objects, documents):
        page, peak = await _peak(call, ListQuery(limit=20, offset=far, sort=descending))
        assert [item["rank"] for item in page.items] == [big.ranks[n] for n in ranked[far : far + 20]]
        assert peak < BOUND, f"{peak} bytes for a sorted page"
        page, peak = await _peak(call, ListQuery(limit=20, search="N1", sort=descending, include_total=True))
        wanted = [n for n in noted if f"n{n}".startswith("n1")]
        assert page.total == len(wanted)
        assert [item["rank"] for item in page.items] == [big.ranks[n] for n in wanted[:20]]
        assert peak < BOUND, f"{peak} bytes for a search"
    assert await big.objects.stats("ns_aaaaaaaaaa", "bkt_texts") == {
        "object_count": MANY,
        "total_size_bytes": 10 * MANY,
    }
    groups = await _peak(
        lambda query: big.documents.list(big.scope, "chunks", query, group_by="number"),
        ListQuery(limit=5, filters=parse({"field": "number", "operator": "gte", "value": 0})),
    )
    assert groups[0].total == MANY and groups[1] < BOUND
