"""A hit of the response cache over HTTP, against a FastAPI endpoint that returns the same bytes."""

from __future__ import annotations

import json

from tests.benchmarks.bare import PATH, answering
from tests.benchmarks.corpus import loaded, queries
from tests.benchmarks.http import Client
from tests.benchmarks.measure import Row, milliseconds, paired


def run(quick: bool) -> list[Row]:
    """Ask both the same, in turn; the first answer is computed and kept, all others are hits."""
    [query] = queries(1)
    body = json.dumps({"inputs": query})
    with loaded(20_000) as corpus:
        client = Client(corpus.server.port, corpus.headers)
        client.wait_for_model(f"/v1/retrievers/{corpus.by_text}/execute")
        path = f"/v1/retrievers/{corpus.cached}/execute"
        client.post(path, body)
        hit = client.post(path, body)
        if json.loads(hit)["cached_at"] is None:
            raise RuntimeError("the second of two equal queries is no hit of the response cache")
        with answering(hit) as port:
            bare = Client(port, corpus.headers)
            if bare.post(PATH, body) != hit:
                raise RuntimeError("the bare endpoint returns other bytes")
            repeat = 500 if quick else 3000
            mine, fast = paired(
                lambda: client.post(path, body), lambda: bare.post(PATH, body), repeat=repeat, warm_up=50, block=50
            )
    return [
        Row(
            f"a hit of the response cache over HTTP, {len(hit)} bytes",
            milliseconds(mine),
            f"{milliseconds(fast)} FastAPI, the same bytes",
            f"{mine.median / fast.median:.2f} × (p99 {mine.p99 / fast.p99:.2f} ×)",
            "≤ 1.5 ×",
        )
    ]
