"""32 clients for a minute: requests per second, the slowest of a hundred, and errors, of which there may be none."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.benchmarks.bare import PATH, answering
from tests.benchmarks.corpus import loaded, queries
from tests.benchmarks.http import Client
from tests.benchmarks.measure import Row, Timing

CLIENTS = 32


@dataclass(frozen=True, slots=True)
class Load:
    """What a server did under load."""

    timing: Timing
    errors: int
    seconds: float

    def __str__(self) -> str:
        rate = len(self.timing.samples) / self.seconds
        return f"{rate:.0f}/s, p99 {self.timing.p99 * 1000:.0f} ms, {self.errors} errors"


def run(quick: bool) -> list[Row]:
    """Load our server with computed queries and with cached ones, then the bare endpoint with the same bytes."""
    seconds = 10.0 if quick else 60.0
    asked = queries(256)
    fresh = [json.dumps({"inputs": query, "skip_cache": True}) for query in asked]
    known = [json.dumps({"inputs": query}) for query in asked]
    rows = []
    with loaded(20_000) as corpus:
        port, headers = corpus.server.port, corpus.headers
        computed_path = f"/v1/retrievers/{corpus.pipeline}/execute"
        cached_path = f"/v1/retrievers/{corpus.cached}/execute"
        client = Client(port, headers)
        client.wait_for_model(f"/v1/retrievers/{corpus.by_text}/execute")
        answers = [client.post(cached_path, body) for body in known]
        computed = asyncio.run(_load(port, computed_path, headers, fresh, seconds))
        cached = asyncio.run(_load(port, cached_path, headers, known, seconds))
    with answering(answers[0]) as port:
        bare = asyncio.run(_load(port, PATH, headers, known, seconds))
    for what, load in (("the pipeline, computed each time", computed), ("hits of the response cache", cached)):
        rows.append(
            Row(
                f"{CLIENTS} clients for {seconds:g} s: {what}",
                str(load),
                f"{bare} (FastAPI, the same bytes)",
                f"{_rate(load) / _rate(bare):.2f} of its rate",
                "no errors",
            )
        )
    return rows


def _rate(load: Load) -> float:
    return len(load.timing.samples) / load.seconds


async def _load(port: int, path: str, headers: dict[str, str], bodies: Sequence[str], seconds: float) -> Load:
    """Each client has one connection and asks again as soon as it is answered."""
    lines = "\r\n".join(
        ["Host: 127.0.0.1", "Content-Type: application/json", *(f"{k}: {v}" for k, v in headers.items())]
    )
    requests = [
        f"POST {path} HTTP/1.1\r\n{lines}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode() for body in bodies
    ]
    samples: list[float] = []
    errors = 0
    began = time.perf_counter()

    async def client(number: int) -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        turn = number * len(requests) // CLIENTS
        while time.perf_counter() - began < seconds:
            asked = time.perf_counter()
            writer.write(requests[turn % len(requests)])
            turn += 1
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
            except (asyncio.IncompleteReadError, ConnectionError):
                errors += 1
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                continue
            samples.append(time.perf_counter() - asked)
            errors += not head.startswith(b"http/1.1 200")
        writer.close()

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return Load(Timing(tuple(samples)), errors, time.perf_counter() - began)
