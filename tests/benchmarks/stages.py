"""20 stages that only touch 100 documents, in process, against plain Python loops that do the same.

What an execution costs without them is taken off: it is measured with a retriever of the first stage alone. Both begin
with documents in memory, since reading them from the store would cost more than all stages.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx

from mixpeek_operator.retrieval.execute import Execution
from tests.benchmarks.corpus import NAMESPACE, fill, texts
from tests.benchmarks.inside import inside
from tests.benchmarks.measure import Row, Timing, timed
from tests.servers.mixpeek import apply, serving

COUNT = 100
_FILTER = {"field": "category", "operator": "in", "value": ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9"]}
_STAGES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("filter", "attribute_filter", _FILTER),
    ("sort", "sort_attribute", {"field": "text", "direction": "asc"}),
    ("sort", "score_normalize", {"score_field": "size", "output_field": "score"}),
    ("sort", "sort_relevance", {}),
    ("reduce", "limit", {"limit": COUNT}),
)
_ROUNDS = 4
_MANIFEST = """
version: "1.0"
metadata: {name: stages}
namespaces: [{name: bench}]
buckets:
  - name: texts
    namespace: bench
    schema: {properties: {text: {type: text}, category: {type: string}, size: {type: number}}}
collections:
  - name: texts
    namespace: bench
    source: {type: bucket, bucket_ids: [texts]}
retrievers:
"""


def run(quick: bool) -> list[Row]:
    """Measure on documents that the first stage takes from the collection."""
    first = [("reduce", "limit", {"limit": COUNT})]
    manifest = _MANIFEST + _retriever("one", first) + _retriever("many", [*first, *_STAGES * _ROUNDS])
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        with serving(data) as server:
            headers = {**server.headers, "X-Namespace": NAMESPACE}
            with httpx.Client(base_url=server.url, headers=headers, timeout=600) as client:
                apply(client, manifest)
                fill(client, [{**body, "size": number} for number, body in enumerate(texts(COUNT))])
        with inside(data, NAMESPACE) as execute, ExitStack() as stack:
            request = {"inputs": {}, "skip_cache": True, "limit": COUNT}
            documents = execute("one", request)["documents"]
            stack.enter_context(patch.object(Execution, "_all_documents", _given(documents)))
            found = execute("many", request)["documents"]
            if len(found) != COUNT or found != _plain(documents):
                raise RuntimeError("the stages and the loops do not make the same documents")
            repeat = 50 if quick else 400
            without: list[float] = []
            many: list[float] = []
            plain: list[float] = []
            # In turn, so that all three see the same weather on the machine.
            for _ in range(repeat):
                without += timed(lambda: execute("one", request), repeat=1, warm_up=0).samples
                many += timed(lambda: execute("many", request), repeat=1, warm_up=0).samples
                plain += timed(lambda: _plain(documents), repeat=1, warm_up=0).samples
    stages = Timing(tuple(many)).median - Timing(tuple(without)).median
    loops = Timing(tuple(plain)).median
    return [
        Row(
            f"{len(_STAGES) * _ROUNDS} stages that only touch {COUNT} documents, in process",
            f"{stages * 1000:.2f} ms",
            f"{loops * 1000:.2f} ms plain loops",
            f"{stages / loops:.2f} ×",
            "≤ 2 ×",
        )
    ]


def _given(documents: list[dict[str, Any]]) -> Any:
    async def given(self: Execution, *_: Any) -> list[dict[str, Any]]:
        return documents

    return given


def _retriever(name: str, stages: list[tuple[str, str, dict[str, Any]]]) -> str:
    lines = [f"  - name: {name}", "    namespace: bench", "    collection_identifiers: [texts]", "    stages:"]
    for number, (kind, stage_id, parameters) in enumerate(stages):
        body = f"{{stage_id: {stage_id}, parameters: {parameters!r}}}".replace("'", '"')
        lines.append(f"      - {{stage_name: s{number}, stage_type: {kind}, config: {body}}}")
    return "\n".join(lines) + "\n"


def _plain(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the stages do, as one would write it by hand."""
    for _ in range(_ROUNDS):
        documents = [document for document in documents if document["category"] in _FILTER["value"]]
        documents = sorted(documents, key=lambda document: document["text"])
        sizes = [document["size"] for document in documents]
        low, span = min(sizes), (max(sizes) - min(sizes)) or 1
        documents = [{**document, "score": (document["size"] - low) / span} for document in documents]
        documents = sorted(documents, key=lambda document: document["score"], reverse=True)
        documents = documents[:COUNT]
    return documents
