"""Apply of 1,000 resources on embedded stores, then again unchanged."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import httpx

from tests.benchmarks.manifest_text import manifest
from tests.benchmarks.measure import Row
from tests.servers.mixpeek import apply, serving


def run(quick: bool) -> list[Row]:
    """Measure over HTTP, until every resource is Ready."""
    text = manifest(200 if quick else 1000)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder)) as server,
        httpx.Client(base_url=server.url, headers=server.headers, timeout=600) as client,
    ):
        first = _once(client, text)
        again = sorted(_once(client, text) for _ in range(5))[2]
    return [
        Row(
            f"apply of {200 if quick else 1000:,} resources, until Ready",
            f"{first:.2f} s",
            f"{again * 1000:.0f} ms unchanged",
            f"{first / again:.0f} × faster unchanged",
            "≥ 20 ×",
        )
    ]


def _once(client: httpx.Client, text: str) -> float:
    began = time.perf_counter()
    apply(client, text)
    return time.perf_counter() - began
