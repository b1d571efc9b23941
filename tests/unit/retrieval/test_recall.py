"""`feature_search` returns what exact search returns: recall@10 of 20,000 vectors, filtered and not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
from tests.unit.retrieval.conftest import DENSE, URI, World

from mixpeek_operator.core import ids
from mixpeek_operator.ports.vectors import Point, VectorParams

COUNT, SIZE, QUERIES = 20_000, 96, 100
CATEGORIES = 10


class Many(World):
    """20,000 documents around a few hundred centres, as embeddings of texts lie."""

    async def start(self) -> World:
        dice = numpy.random.default_rng(17)
        centres = dice.normal(size=(300, SIZE))
        self.rows = _unit(centres[dice.integers(0, 300, COUNT)] + 0.7 * dice.normal(size=(COUNT, SIZE)))
        self.queries = _unit(centres[dice.integers(0, 300, QUERIES)] + 0.7 * dice.normal(size=(QUERIES, SIZE)))
        await self.vectors.create_collection(
            self.info.vector_collection, {DENSE: VectorParams("dense", SIZE)}, labels={}
        )
        for field in ("collection_id", "category"):
            await self.vectors.create_payload_index(self.info.vector_collection, field, "keyword")
        collection = self.add_collection("products")
        dense = replace(collection.features[0], index=replace(collection.features[0].index, dimensions=SIZE))
        self.declared["products"] = replace(collection, features=(dense,))
        for start in range(0, COUNT, 1000):
            points = []
            for index in range(start, start + 1000):
                payload = {
                    "document_id": f"doc_{index}",
                    "collection_id": collection.id,
                    "category": f"c{index % CATEGORIES}",
                    "_internal": {"namespace_id": self.info.id},
                }
                point_id = ids.point_id(self.info.id, f"doc_{index}")
                points.append(Point(point_id, {DENSE: self.rows[index].tolist()}, payload))
            await self.vectors.upsert(self.info.vector_collection, points)
        return self


def _unit(rows: Any) -> Any:
    return (rows / numpy.linalg.norm(rows, axis=1, keepdims=True)).astype(numpy.float32)


async def recall(many: Any, *, filtered: bool) -> float:
    """Return the share of the exact 10 nearest neighbours among those found."""
    search: dict[str, Any] = {"feature_uri": URI, "query": "{{INPUT.vector}}", "top_k": 10}
    if filtered:
        search["filters"] = {"field": "category", "operator": "eq", "value": "{{INPUT.category}}"}
    stage = {"stage_id": "feature_search", "parameters": {"searches": [search], "final_top_k": 10}}
    name = many.declare([stage])
    found = 0
    for number, query in enumerate(many.queries):
        category = number % CATEGORIES
        inputs = {"vector": query.tolist(), "category": f"c{category}"}
        answer = await many.retrieval.execute(many.scope, name, {"inputs": inputs, "skip_cache": True})
        scores = many.rows @ query
        if filtered:
            scores[numpy.arange(COUNT) % CATEGORIES != category] = -2.0
        exact = {f"doc_{index}" for index in numpy.argsort(-scores)[:10]}
        found += len(exact & {document["document_id"] for document in answer["documents"]})
    return found / (10 * QUERIES)


@pytest.mark.slow
async def test_recall(tmp_path: Path) -> None:
    many = await Many(tmp_path).start()
    try:
        assert await recall(many, filtered=False) >= 0.99
        assert await recall(many, filtered=True) >= 0.99
    finally:
        await many.retrieval.close()
        await many.vectors.close()
        await many.metadata.close()
