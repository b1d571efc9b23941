"""A server holding vectors whose neighbours are known, loaded through the REST API and a batch."""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.servers.mixpeek import Server, apply, serving

NAMESPACE = "bench"
CATEGORIES = 10
_WORDS = Path(__file__).parents[2] / "examples" / "quickstart" / "data" / "products.jsonl"


@dataclass(frozen=True, slots=True)
class Corpus:
    """A loaded server and the names of its retrievers."""

    server: Server
    url: str
    headers: dict[str, str]
    collection: str
    by_vector: str = "by_vector"
    by_text: str = "by_text"
    pipeline: str = "pipeline"
    cached: str = "cached"


PIPELINE = """
      - stage_name: search
        stage_type: filter
        config:
          stage_id: feature_search
          parameters:
            searches:
              - feature_uri: mixpeek://text_extractor@v1/text_embedding
                query: {input_mode: vector, value: "{{INPUT.vector}}"}
                top_k: 50
            final_top_k: 50
      - stage_name: filter
        stage_type: filter
        config:
          stage_id: attribute_filter
          parameters: {field: category, operator: eq, value: "{{INPUT.category}}"}
      - stage_name: sort
        stage_type: sort
        config: {stage_id: sort_attribute, parameters: {field: text, direction: asc}}
      - stage_name: limit
        stage_type: reduce
        config: {stage_id: limit, parameters: {limit: 10}}
"""
MANIFEST = """
version: "1.0"
metadata: {name: bench}
namespaces:
  - name: bench
    feature_extractors: [{name: text_extractor, version: v1}]
    payload_indexes: [{field_name: category, type: keyword}]
buckets:
  - name: texts
    namespace: bench
    schema: {properties: {text: {type: text, required: true}, category: {type: string}}}
collections:
  - name: texts
    namespace: bench
    source: {type: bucket, bucket_ids: [texts]}
    feature_extractor:
      feature_extractor_name: text_extractor
      version: v1
      input_mappings: {text: text}
      field_passthrough: [{source_path: category}]
      parameters: {sparse_embedding: false}
retrievers:
  - name: by_vector
    namespace: bench
    collection_identifiers: [texts]
    input_schema: {vector: {type: array, required: true}, category: {type: string, required: true}}
    cache_config: {enabled: false}
    stages:
      - stage_name: search
        stage_type: filter
        config:
          stage_id: feature_search
          parameters:
            searches:
              - feature_uri: mixpeek://text_extractor@v1/text_embedding
                query: {input_mode: vector, value: "{{INPUT.vector}}"}
                top_k: 10
                filters: {field: category, operator: eq, value: "{{INPUT.category}}"}
            final_top_k: 10
  - name: by_text
    namespace: bench
    collection_identifiers: [texts]
    input_schema: {query: {type: text, required: true}, category: {type: string}}
    cache_config: {enabled: false}
    stages:
      - stage_name: search
        stage_type: filter
        config:
          stage_id: feature_search
          parameters:
            searches:
              - feature_uri: mixpeek://text_extractor@v1/text_embedding
                query: {input_mode: text, value: "{{INPUT.query}}"}
                top_k: 10
                filters: {field: category, operator: eq, value: "{{INPUT.category}}"}
            final_top_k: 10
"""
for _name, _cache in (("pipeline", "{enabled: false}"), ("cached", "{enabled: true, ttl_seconds: 3600}")):
    MANIFEST += f"""\
  - name: {_name}
    namespace: bench
    collection_identifiers: [texts]
    input_schema: {{vector: {{type: array, required: true}}, category: {{type: string, required: true}}}}
    cache_config: {_cache}
    stages:{PIPELINE}"""


def texts(count: int, seed: int = 7, words: int = 20) -> list[dict[str, Any]]:
    """Return objects of short distinct texts of `words` words each."""
    vocabulary = sorted({word.strip('.,;:"{}[]') for word in _WORDS.read_text().split() if word.isascii()})
    dice = random.Random(seed)
    return [
        {"text": " ".join(dice.choices(vocabulary, k=words)), "category": f"c{index % CATEGORIES}"}
        for index in range(count)
    ]


@contextlib.contextmanager
def loaded(count: int) -> Iterator[Corpus]:
    """Serve `count` embedded documents; they are kept in `.mixpeek/` and found again by the next run."""
    kept = Path(".mixpeek") / f"bench-{count}"
    done = kept / "complete"
    if count and not done.exists():
        shutil.rmtree(kept, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch, serving(kept if count else Path(scratch)) as server:
        headers = {**server.headers, "X-Namespace": NAMESPACE}
        with httpx.Client(base_url=server.url, headers=headers, timeout=600) as client:
            apply(client, MANIFEST)
            if count and not done.exists():
                fill(client, texts(count, words=6))
                done.touch()
        yield Corpus(server, server.url, headers, "texts")


def fill(client: httpx.Client, objects: Sequence[dict[str, Any]]) -> float:
    """Ingest objects through a batch; returns the seconds from submit to the end."""
    for start in range(0, len(objects), 1000):
        body = {"objects": objects[start : start + 1000]}
        client.post("/v1/buckets/texts/objects/batch", json=body).raise_for_status()
    batch = client.post("/v1/buckets/texts/batches", json={"filters": {"AND": []}}).raise_for_status().json()
    path = f"/v1/buckets/texts/batches/{batch['batch_id']}"
    began = time.perf_counter()
    client.post(f"{path}/submit", json={}).raise_for_status()
    while True:
        state = client.get(path).raise_for_status().json()
        if state["status"] == "COMPLETED":
            return time.perf_counter() - began
        if state["status"] in ("FAILED", "CANCELED", "COMPLETED_WITH_ERRORS"):
            raise RuntimeError(f"batch {state['status']}: {state.get('failure_reason')} {state.get('failed_objects')}")
        time.sleep(0.05)


def queries(count: int, seed: int = 11) -> list[dict[str, Any]]:
    """Inputs of the retrievers that take a vector."""
    dice = random.Random(seed)
    return [
        {"vector": [dice.gauss(0, 1) for _ in range(384)], "category": f"c{dice.randrange(CATEGORIES)}"}
        for _ in range(count)
    ]
