"""Executing a retriever over HTTP: a filtered top-10 of 20,000 × 384 vectors, against Qdrant Edge itself."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from pathlib import Path

from qdrant_edge import EdgeShard, FieldCondition, Filter, MatchValue, Query, QueryRequest

from tests.benchmarks.corpus import CATEGORIES, loaded
from tests.benchmarks.http import Client
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

        bodies = [
            json.dumps({"inputs": {"vector": vector, "category": category}, "skip_cache": True})
            for vector, category in queries
        ]
        client = Client(corpus.server.port, corpus.headers)
        path = f"/v1/retrievers/{corpus.by_vector}/execute"
        client.wait_for_model(f"/v1/retrievers/{corpus.by_text}/execute")

        def ours() -> None:
            found = client.post(path, bodies[turn % len(bodies)])
            if found.count(b'"score"') < 10:
                raise RuntimeError(f"expected 10 documents, got {found[:200]!r}")

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
