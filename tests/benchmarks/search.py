"""Executing a retriever over HTTP: a filtered top-10 of 20,000 × 384 vectors, against Qdrant Edge itself."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import httpx
from qdrant_edge import EdgeShard, FieldCondition, Filter, MatchValue, Query, QueryRequest

from tests.benchmarks.corpus import CATEGORIES, loaded
from tests.benchmarks.measure import Row, milliseconds, paired

VECTOR = "text_extractor_v1_embedding"


def run(quick: bool) -> list[Row]:
    """Measure on a copy of the server's own shard, so that both search the same vectors with the same index."""
    dice = random.Random(11)
    with loaded(20_000) as corpus, tempfile.TemporaryDirectory() as folder:
        shards = [path.parent for path in (corpus.server.data / "vectors").rglob("edge_config.json")]
        shutil.copytree(shards[0], Path(folder) / "shard")
        shard = EdgeShard.load(str(Path(folder) / "shard"))
        queries = [([dice.gauss(0, 1) for _ in range(384)], f"c{dice.randrange(CATEGORIES)}") for _ in range(64)]
        turn = 0

        def ours() -> None:
            vector, category = queries[turn % len(queries)]
            body = {"inputs": {"vector": vector, "category": category}, "skip_cache": True}
            found = client.post(f"/v1/retrievers/{corpus.by_vector}/execute", json=body).raise_for_status().json()
            if len(found["documents"]) != 10:
                raise RuntimeError(f"expected 10 documents, got {len(found['documents'])}")

        def bare() -> None:
            nonlocal turn
            vector, category = queries[turn % len(queries)]
            turn += 1
            wanted = Filter(must=[FieldCondition(key="category", match=MatchValue(category))])
            found = shard.query(
                QueryRequest(limit=10, query=Query.Nearest(vector, using=VECTOR), filter=wanted, with_payload=True)
            )
            if len(found) != 10:
                raise RuntimeError(f"expected 10 points, got {len(found)}")

        with httpx.Client(base_url=corpus.url, headers=corpus.headers) as client:
            mine, edge = paired(ours, bare, repeat=200 if quick else 1000, warm_up=20)
        shard.close()
    above = (mine.median - edge.median) * 1000
    return [
        Row(
            "execute, filtered top-10 of 20,000 × 384, over HTTP",
            milliseconds(mine),
            f"{milliseconds(edge)} Qdrant Edge",
            f"+{above:.2f} ms (p99 +{(mine.p99 - edge.p99) * 1000:.2f})",
            "≤ +3 ms",
        )
    ]
