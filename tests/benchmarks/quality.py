"""`make bench-quality DATA=folder`: how good our retrievers are, on a judged set, against independent parts.

The set is ingested through the REST API. Retrievers by meaning, by words, by both, and by both with a reranker are
measured by the evaluation endpoint and compared by the benchmark endpoint, whose sessions are clicks on relevant texts.
Beside them stand bm25s, and brute force over the same vectors, both measured by trec_eval's own code.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from mixpeek_operator.cli import output
from tests.benchmarks.judged import Judged, read
from tests.servers.mixpeek import apply, serving

NAMESPACE = "quality"
DENSE = "mixpeek://text_extractor@v1/text_embedding"
SPARSE = "mixpeek://text_extractor@v1/text_sparse_embedding"
MODEL = "all-MiniLM-L6-v2"
DEPTH = 100
SHOWN = (("10", "ndcg"), ("100", "recall"), ("100", "mrr"), ("100", "map"))
_PROMISED = (("10", "ndcg"), ("100", "recall"), ("100", "mrr"))
_CLICKS = 5

Ranking = Mapping[str, list[str]]
"""Texts found for each query, best first."""


@dataclass(frozen=True, slots=True)
class Check:
    """One promise and whether it holds."""

    what: str
    found: str
    holds: bool


def search(uri: str) -> dict[str, Any]:
    return {"feature_uri": uri, "query": {"input_mode": "text", "value": "{{INPUT.query}}"}, "top_k": DEPTH}


def stages(*uris: str, rerank: bool = False) -> list[dict[str, Any]]:
    parameters = {"searches": [search(uri) for uri in uris], "final_top_k": DEPTH}
    found = [{"stage_name": "search", "config": {"stage_id": "feature_search", "parameters": parameters}}]
    if rerank:
        order = {"query": "{{INPUT.query}}", "document_field": "text", "top_n": DEPTH}
        found.append({"stage_name": "rerank", "config": {"stage_id": "rerank", "parameters": order}})
    return found


RETRIEVERS = {
    "dense": stages(DENSE),
    "sparse": stages(SPARSE),
    "hybrid": stages(DENSE, SPARSE),
    "hybrid_rerank": stages(DENSE, SPARSE, rerank=True),
}
MANIFEST = """
version: "1.0"
metadata: {name: quality}
namespaces:
  - name: quality
    feature_extractors: [{name: text_extractor, version: v1}]
buckets:
  - name: texts
    namespace: quality
    schema: {properties: {text: {type: text, required: true}, number: {type: string, required: true}}}
collections:
  - name: texts
    namespace: quality
    source: {type: bucket, bucket_ids: [texts]}
    feature_extractor:
      feature_extractor_name: text_extractor
      version: v1
      input_mappings: {text: text}
      field_passthrough: [{source_path: number}, {source_path: text}]
"""


def ingest(client: httpx.Client, judged: Judged) -> dict[str, str]:
    """Ingest every text; returns the id of each document by its number."""
    objects = [{"text": text, "number": number} for number, text in judged.texts.items()]
    for start in range(0, len(objects), 500):
        body = {"objects": objects[start : start + 500]}
        client.post("/v1/buckets/texts/objects/batch", json=body).raise_for_status()
    batch = client.post("/v1/buckets/texts/batches", json={"filters": {"AND": []}}).raise_for_status().json()
    path = f"/v1/buckets/texts/batches/{batch['batch_id']}"
    client.post(f"{path}/submit", json={}).raise_for_status()
    ended(client, path, {"COMPLETED", "COMPLETED_WITH_ERRORS", "FAILED", "CANCELED"}, "COMPLETED")
    found: dict[str, str] = {}
    cursor = None
    while True:
        body = {"limit": 500, **({"cursor": cursor} if cursor else {})}
        page = client.post("/v1/collections/texts/documents/list", json=body).raise_for_status().json()
        found |= {item["number"]: item["document_id"] for item in page["results"]}
        cursor = page["pagination"]["next_cursor"]
        if cursor is None:
            return found


def ended(client: httpx.Client, path: str, states: set[str], good: str) -> dict[str, Any]:
    """Return what is at `path` once it has ended well. Raises RuntimeError when it ended otherwise."""
    while True:
        state: dict[str, Any] = client.get(path).raise_for_status().json()
        if state["status"] == good:
            return state
        if state["status"] in states:
            raise RuntimeError(f"{path}: {state}")
        time.sleep(0.2)


def evaluate(client: httpx.Client, judged: Judged, documents: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return metrics by k of every retriever, from the evaluation endpoint."""
    queries = [
        {
            "query_id": id,
            "query_input": {"query": text},
            "relevant_documents": sorted(documents[number] for number in judged.relevant[id] if number in documents),
        }
        for id, text in judged.queries.items()
    ]
    client.post(
        "/v1/retrievers/evaluations/datasets", json={"dataset_name": judged.name, "queries": queries}
    ).raise_for_status()
    config = {"k_values": [1, 5, 10, DEPTH], "metrics": ["ndcg", "recall", "mrr", "map", "precision"]}
    found: dict[str, dict[str, Any]] = {}
    for name in RETRIEVERS:
        path = f"/v1/retrievers/{name}/evaluations"
        body = {"dataset_name": judged.name, "evaluation_config": config}
        begun = client.post(path, json=body).raise_for_status().json()
        record = ended(client, f"{path}/{begun['evaluation_id']}", {"failed"}, "completed")
        if record["skipped_queries"]:
            raise RuntimeError(f"{name}: {[item for item in record['query_results'] if item['status'] == 'skipped']}")
        found[name] = record["metrics_by_k"]
    return found


def compare(client: httpx.Client, judged: Judged, documents: Mapping[str, str]) -> dict[str, Any]:
    """Return the benchmark of all retrievers against the dense one, on sessions of clicks on relevant texts."""
    rows = [
        {
            "feature_id": documents[number],
            "interaction_type": ["click"],
            "position": position,
            "session_id": f"{judged.name}-{id}",
            "query_snapshot": {"query": text},
        }
        for id, text in judged.queries.items()
        for position, number in enumerate(sorted(judged.relevant[id] & documents.keys(), key=int)[:_CLICKS])
    ]
    for start in range(0, len(rows), 1000):
        body = {"interactions": rows[start : start + 1000]}
        client.post("/v1/retrievers/interactions/batch", json=body).raise_for_status()
    body = {
        "benchmark_name": judged.name,
        "baseline_retriever_id": "dense",
        "candidate_retriever_ids": [name for name in RETRIEVERS if name != "dense"],
    }
    made = client.post("/v1/retrievers/benchmarks", json=body).raise_for_status().json()
    return ended(client, f"/v1/retrievers/benchmarks/{made['benchmark_id']}", {"failed"}, "completed")


def answers(client: httpx.Client, judged: Judged, numbers: Mapping[str, str], name: str) -> Ranking:
    """Return what a retriever finds for each query, by number."""
    found: dict[str, list[str]] = {}
    for id, text in judged.queries.items():
        body = {"inputs": {"query": text}, "limit": DEPTH, "skip_cache": True}
        answer = client.post(f"/v1/retrievers/{name}/execute", json=body).raise_for_status().json()
        found[id] = [numbers[item["document_id"]] for item in answer["documents"]]
    return found


def by_bm25s(judged: Judged) -> Ranking:
    """Return what an independent BM25 finds, with English stop words and stemming."""
    import bm25s
    import Stemmer

    stemmer, ids = Stemmer.Stemmer("english"), list(judged.texts)

    def tokens(texts: list[str]) -> Any:
        return bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)

    index = bm25s.BM25(k1=1.2, b=0.75)
    index.index(tokens(list(judged.texts.values())), show_progress=False)
    found, _ = index.retrieve(tokens(list(judged.queries.values())), k=DEPTH, show_progress=False)
    return {id: [ids[place] for place in row] for id, row in zip(judged.queries, found, strict=True)}


def by_force(judged: Judged) -> tuple[Ranking, Any]:
    """Return what an exact search over vectors of the library itself finds, and the similarities it found."""
    import numpy
    from sentence_transformers import SentenceTransformer

    from mixpeek_operator.extraction.models.registry import ModelRegistry

    model = SentenceTransformer(str(ModelRegistry(default=MODEL).locate(MODEL)), device="cpu")
    texts, queries = (
        model.encode(list(part.values()), normalize_embeddings=True, show_progress_bar=False)
        for part in (judged.texts, judged.queries)
    )
    scores = queries @ texts.T
    ids = list(judged.texts)
    found = {
        id: [ids[place] for place in numpy.argsort(-row, kind="stable")[:DEPTH]]
        for id, row in zip(judged.queries, scores, strict=True)
    }
    return found, scores


def measured(judged: Judged, ranking: Ranking) -> dict[str, dict[str, float]]:
    """Return the metrics of a ranking by k, from trec_eval's code."""
    import pytrec_eval

    judgments = {id: dict.fromkeys(judged.relevant[id] & judged.texts.keys(), 1) for id in judged.queries}
    run = {id: {number: float(-place) for place, number in enumerate(found)} for id, found in ranking.items()}
    names = {("10", "ndcg"): "ndcg_cut_10", ("100", "recall"): "recall_100", ("100", "mrr"): "recip_rank"}
    names |= {("100", "map"): "map_cut_100", ("100", "ndcg"): "ndcg_cut_100"}
    asked = {"ndcg_cut.10,100", "recall.100", "recip_rank", "map_cut.100"}
    rows = pytrec_eval.RelevanceEvaluator(judgments, asked).evaluate(run).values()
    found: dict[str, dict[str, float]] = {}
    for (k, name), theirs in names.items():
        found.setdefault(k, {})[name] = math.fsum(row[theirs] for row in rows) / len(rows)
    return found


def main() -> int:
    """Measure, print, and return 0 when every promise holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with NAME.ALL, NAME.QRY and NAME.REL")
    judged = read(parser.parse_args().data)
    print(f"{judged.name}: {len(judged.texts)} texts, {len(judged.queries)} judged queries", flush=True)
    with tempfile.TemporaryDirectory() as scratch, serving(Path(scratch)) as server:
        headers = {**server.headers, "X-Namespace": NAMESPACE}
        with httpx.Client(base_url=server.url, headers=headers, timeout=600) as client:
            apply(client, MANIFEST)
            print("ingesting ...", flush=True)
            documents = ingest(client, judged)
            if len(documents) != len(judged.texts):
                raise RuntimeError(f"{len(documents)} documents of {len(judged.texts)} texts")
            for name, declared in RETRIEVERS.items():
                schema = {"query": {"type": "text", "required": True}}
                body = {"retriever_name": name, "collection_identifiers": ["texts"], "input_schema": schema}
                client.post("/v1/retrievers", json={**body, "stages": declared}).raise_for_status()
            print("evaluating ...", flush=True)
            ours = evaluate(client, judged, documents)
            print("replaying ...", flush=True)
            benchmark = compare(client, judged, documents)
            numbers = {id: number for number, id in documents.items()}
            dense = answers(client, judged, numbers, "dense")
            own = {name: measured(judged, answers(client, judged, numbers, name)) for name in RETRIEVERS}
    print("computing the references ...", flush=True)
    exact, scores = by_force(judged)
    theirs = {"bm25s": measured(judged, by_bm25s(judged)), "brute force": measured(judged, exact)}
    _show(ours | theirs, benchmark)
    checks = _checks(judged, ours, own, theirs, dense, scores)
    output.table(["PROMISE", "FOUND", "HOLDS"], [(c.what, c.found, "yes" if c.holds else "NO") for c in checks])
    return 0 if all(check.holds for check in checks) else 1


def _show(metrics: Mapping[str, Any], benchmark: Mapping[str, Any]) -> None:
    columns = ["RETRIEVER", *(f"{'nDCG' if name == 'ndcg' else name}@{k}" for k, name in SHOWN)]
    output.table(columns, [(name, *(f"{by_k[k][m]:.4f}" for k, m in SHOWN)) for name, by_k in metrics.items()])
    rows = []
    names = {result["retriever_id"]: result for result in benchmark["results"]}
    for item in benchmark["comparison"]["comparisons"]:
        result = names[item["candidate_retriever_id"]]
        low, high = item["confidence_interval"]
        rows.append(
            (
                result["retriever_name"],
                f"{item['ndcg_delta']['10']:+.4f} ({low:+.4f} to {high:+.4f})",
                f"{item['p_value']:.3g}",
                f"{result['metrics']['sessions_improved']}/{result['metrics']['sessions_degraded']}",
                f"{result['latency']['p50_ms']:.1f} ms ({item['latency_delta_ms']:+.1f})",
            )
        )
    print(f"\nreplayed {benchmark['session_count']} sessions against dense:")
    output.table(["RETRIEVER", "nDCG@10 CHANGE (95 %)", "P", "BETTER/WORSE", "P50 (MEAN CHANGE)"], rows)
    print(f"{benchmark['comparison']['recommendation']}\n")


def _checks(
    judged: Judged,
    ours: Mapping[str, Any],
    own: Mapping[str, Any],
    theirs: Mapping[str, Any],
    dense: Ranking,
    scores: Any,
) -> list[Check]:
    gains = [
        ours["hybrid"][k][metric] - max(ours[part][k][metric] for part in ("dense", "sparse"))
        for k, metric in _PROMISED
    ]
    apart = [ours["sparse"][k][metric] - theirs["bm25s"][k][metric] for k, metric in _PROMISED]
    same = max(abs(ours[name][k][m] - own[name][k][m]) for name in ours for k, m in SHOWN)
    # Two texts whose similarities differ by less than rounding may stand in either order.
    ids = list(judged.texts)
    place = {number: index for index, number in enumerate(ids)}
    worst = 0.0
    for row, (id, found) in zip(scores, dense.items(), strict=True):
        best_first = sorted(row, reverse=True)[: len(found)]
        worst = max(worst, *(abs(float(row[place[n]]) - float(s)) for n, s in zip(found, best_first, strict=True)))
        assert len(found) == DEPTH, f"query {id} found {len(found)}"
    return [
        Check(
            "hybrid is at least as good as the best of its parts (nDCG@10, recall@100, MRR)",
            ", ".join(f"{gain:+.4f}" for gain in gains),
            min(gains) >= 0,
        ),
        Check(
            "sparse is as good as bm25s, within 0.01 (the same)",
            ", ".join(f"{difference:+.4f}" for difference in apart),
            min(apart) >= -0.01,
        ),
        Check("dense is brute force (similarity at every place)", f"{worst:.1e} apart", worst < 1e-4),
        Check("our metrics are those of trec_eval", f"{same:.1e} apart", same < 1e-9),
    ]


if __name__ == "__main__":
    sys.exit(main())
