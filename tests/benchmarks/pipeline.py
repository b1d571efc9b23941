"""Search, attribute filter, sort and limit over HTTP, the vector given: against the one query of Qdrant Edge."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qdrant_edge import EdgeShard, FieldCondition, Filter, MatchValue, Query, QueryRequest

from tests.benchmarks.corpus import Corpus, loaded, queries
from tests.benchmarks.http import Client
from tests.benchmarks.measure import Row, milliseconds, paired

VECTOR = "text_extractor_v1_embedding"
CANDIDATES = 50


def run(quick: bool) -> list[Row]:
    """Measure on a copy of the server's own shard, so that both search the same vectors with the same index."""
    asked = queries(64)
    bodies = [json.dumps({"inputs": query, "skip_cache": True}) for query in asked]
    with loaded(20_000) as corpus, copied(corpus) as shard:
        client = Client(corpus.server.port, corpus.headers)
        client.wait_for_model(f"/v1/retrievers/{corpus.by_text}/execute")
        path = f"/v1/retrievers/{corpus.pipeline}/execute"
        turn = 0

        def ours() -> list[str]:
            found = json.loads(client.post(path, bodies[turn % len(bodies)]))["documents"]
            return [document["text"] for document in found]

        def bare() -> list[str]:
            nonlocal turn
            found = nearest(shard, asked[turn % len(asked)])
            turn += 1
            return sorted(text for text, _ in found)[:10]

        for _ in asked:
            if (mine := ours()) != (wanted := bare()):
                raise RuntimeError(f"the pipeline finds {mine}, and Qdrant Edge {wanted}")

        def answer() -> None:
            client.post(path, bodies[turn % len(bodies)])

        def query() -> None:
            nonlocal turn
            nearest(shard, asked[turn % len(asked)])
            turn += 1

        mine_s, edge_s = paired(answer, query, repeat=200 if quick else 1000, warm_up=20, block=10)
    above = (mine_s.median - edge_s.median) * 1000
    return [
        Row(
            "search + attribute filter + sort + limit of 20,000 × 384, over HTTP",
            milliseconds(mine_s),
            f"{milliseconds(edge_s)} one query of Qdrant Edge",
            f"+{above:.2f} ms (p99 +{(mine_s.p99 - edge_s.p99) * 1000:.2f})",
            "≤ +3 ms",
        )
    ]


@contextmanager
def copied(corpus: Corpus) -> Iterator[EdgeShard]:
    """The vectors of a corpus, in a shard of their own."""
    with tempfile.TemporaryDirectory() as folder:
        [place] = [path.parent for path in (corpus.server.data / "vectors").rglob("edge_config.json")]
        shutil.copytree(place, Path(folder) / "shard")
        shard = EdgeShard.load(str(Path(folder) / "shard"))
        try:
            yield shard
        finally:
            shard.close()


def nearest(shard: EdgeShard, query: dict[str, object]) -> list[tuple[str, float]]:
    """Text and score of the nearest documents of the query's category."""
    wanted = Filter(must=[FieldCondition(key="category", match=MatchValue(query["category"]))])
    found = shard.query(
        QueryRequest(
            limit=CANDIDATES, query=Query.Nearest(query["vector"], using=VECTOR), filter=wanted, with_payload=True
        )
    )
    return [(str(point.payload["text"]), point.score) for point in found]
