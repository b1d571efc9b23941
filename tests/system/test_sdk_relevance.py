"""Interactions, evaluations, benchmarks and tuning of retrievers, through the public SDK on a real server."""

from __future__ import annotations

from typing import Any

import mixpeek
import pytest
from mixpeek.exceptions import ApiException, NotFoundException
from tests.system.conftest import Library, Place, eventually, unique

URI = "mixpeek://text_extractor@v1/text_embedding"
WORDS = "mixpeek://text_extractor@v1/text_sparse_embedding"
INPUTS = {"query": {"type": "text", "required": True}, "user_segment": {"type": "string"}}
QUERIES = {
    "hot soup all day": "Soup stays hot",
    "how to care for iron cookware": "A cast iron pan",
    "glow in the dark decoration for children": "The moon map",
    "astronomy for kids": "A telescope",
    "hiking shoes for wet weather": "Walking boots",
    "camping shelter": "A light tent",
}


def search(uri: str, **changes: Any) -> dict[str, Any]:
    return {"feature_uri": uri, "query": {"input_mode": "text", "value": "{{INPUT.query}}"}, "top_k": 6, **changes}


def retriever(library: Library, *searches: dict[str, Any], **parameters: Any) -> str:
    """Declare a retriever of one search stage and return its id."""
    stage = {"stage_id": "feature_search", "parameters": {"searches": list(searches), "final_top_k": 6, **parameters}}
    body = {
        "retriever_name": unique("judged"),
        "collection_identifiers": ["sentences"],
        "input_schema": INPUTS,
        "stages": [{"stage_name": "find", "stage_type": "filter", "config": stage}],
    }
    request = mixpeek.CreateRetrieverRequest.from_dict(body)
    assert request is not None
    return str(mixpeek.RetrieversApi(library.place.api).create_retriever(request).retriever_id)


def execute(library: Library, id: str, **request: Any) -> Any:
    answer = library.place.http.post(f"/v1/retrievers/{id}/execute", json={"skip_cache": True, **request})
    assert answer.status_code == 200, answer.text
    return answer.json()


def record(place: Place, **interaction: Any) -> mixpeek.InteractionResponse:
    request = mixpeek.SearchInteraction.from_dict({"position": 0, "interaction_type": ["click"], **interaction})
    assert request is not None
    return mixpeek.RetrieverInteractionsApi(place.api).create_interaction_retrievers(request)


@pytest.fixture(scope="module")
def documents(library: Library) -> dict[str, str]:
    """Id of each document by the beginning of its text."""
    found = library.place.http.post(f"/v1/collections/{library.collection_id}/documents/list", json={"limit": 50})
    rows = found.raise_for_status().json()["results"]
    return {start: row["document_id"] for start in QUERIES.values() for row in rows if row["text"].startswith(start)}


@pytest.fixture(scope="module")
def dense(library: Library) -> str:
    return retriever(library, search(URI))


@pytest.fixture(scope="module")
def sparse(library: Library) -> str:
    return retriever(library, search(WORDS))


def test_interactions(library: Library, dense: str) -> None:
    place, api = library.place, mixpeek.RetrieverInteractionsApi(library.place.api)
    ran = execute(library, dense, inputs={"query": "hot soup"}, session_id="sess_a", user_id="user_a")
    shown = ran["documents"][0]["document_id"]
    mine = {"feature_id": shown, "execution_id": ran["execution_id"]}
    made = record(place, **mine, interaction_type=["click", "long_view"], metadata={"duration_ms": 12000})
    assert made.interaction_id is not None
    assert made.interaction_id.startswith("int_")
    # What the execution knows need not be said.
    assert (made.retriever_id, made.session_id, made.user_id) == (dense, "sess_a", "user_a")
    assert made.query_snapshot == {"query": "hot soup"}
    assert made.warning is None
    again = record(place, **mine, interaction_type=["long_view", "click"])
    assert (again.deduplicated, again.interaction_id) == (True, None)
    read = api.get_interaction_retrievers(made.interaction_id)
    assert (read.timestamp, read.position, read.metadata) == (made.timestamp, 0, {"duration_ms": 12000})
    request = mixpeek.ListInteractionsRequest.from_dict({"session_id": "sess_a", "interaction_type": "long_view"})
    listed = api.list_interactions_retrievers(list_interactions_request=request, include_total=True)
    assert [item.interaction_id for item in listed.results] == [made.interaction_id]
    assert listed.items == listed.results
    assert listed.pagination.total == 1
    assert api.delete_interaction_retrievers(made.interaction_id)["deleted"] is True
    assert api.delete_interaction_retrievers(made.interaction_id)["deleted"] is False
    with pytest.raises(NotFoundException):
        api.get_interaction_retrievers(made.interaction_id)


def test_the_seeds_interaction(library: Library) -> None:
    body = {
        "feature_id": "doc_abc123",
        "interaction_type": ["click", "long_view"],
        "position": 2,
        "metadata": {"duration_ms": 12000},
        "user_id": "user_456",
        "session_id": "sess_xyz789",
    }
    answer = library.place.http.post("/v1/retrievers/interactions", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json().items() >= body.items()
    listed = library.place.http.get("/v1/retrievers/interactions", params={"user_id": "user_456"}).json()
    assert [item["interaction_id"] for item in listed["results"]] == [answer.json()["interaction_id"]]


def test_many_interactions_and_wrong_ones(library: Library, elsewhere: Place, dense: str) -> None:
    good = {"feature_id": "doc_1", "interaction_type": ["click"], "position": 0}
    rows = [good, {**good, "interaction_type": ["klick"]}, {**good, "retriever_id": "ret_nobody"}, good]
    answer = library.place.http.post("/v1/retrievers/interactions/batch", json={"interactions": rows}).json()
    read = mixpeek.BulkInteractionsResponse.from_dict(answer)
    assert read is not None
    assert (read.created, read.failed) == (2, 2)
    assert [item["status"] for item in answer["results"]] == ["created", "failed", "failed", "created"]
    assert "klick" not in str([item["interaction_id"] for item in answer["results"]])
    for wrong in ({**good, "position": -1}, {**good, "interaction_type": []}, {**good, "positon": 1}, {"position": 0}):
        assert library.place.http.post("/v1/retrievers/interactions", json=wrong).status_code == 422, wrong
    # A retriever of another namespace is nobody's.
    assert elsewhere.http.post("/v1/retrievers/interactions", json={**good, "retriever_id": dense}).status_code == 404
    unknown = record(library.place, feature_id="doc_1", execution_id="exec_nobody")
    assert "exec_nobody" in str(unknown.warning)


def test_an_evaluation(library: Library, documents: dict[str, str], dense: str) -> None:
    api = mixpeek.RetrieverEvaluationsApi(library.place.api)
    queries = [
        {"query_id": f"q{index}", "query_input": {"query": text}, "relevant_documents": [documents[start]]}
        for index, (text, start) in enumerate(QUERIES.items())
    ]
    broken = {"query_id": "broken", "query_input": {"text": "no such input"}, "relevant_documents": ["doc_x"]}
    name = unique("golden")
    request = mixpeek.CreateDatasetRequest.from_dict({"dataset_name": name, "queries": [*queries, broken]})
    assert request is not None
    dataset = api.create_dataset_retrievers_evaluations(request)
    assert dataset.query_count == 7
    with pytest.raises(ApiException) as taken:
        api.create_dataset_retrievers_evaluations(request)
    assert taken.value.status == 409
    assert api.get_dataset_retrievers_evaluations(name) == dataset
    assert dataset in (api.list_datasets_retrievers_evaluations().datasets)

    start = mixpeek.StartEvaluationRequest.from_dict(
        {"dataset_name": name, "evaluation_config": {"k_values": [1, 5], "metrics": ["ndcg", "recall", "mrr"]}}
    )
    assert start is not None
    begun = api.start_evaluation_retrievers(dense, start)

    def ended() -> mixpeek.EvaluationRecord | None:
        found = api.get_evaluation_retrievers(dense, begun.evaluation_id)
        return found if found.status.value in ("completed", "failed") else None

    record = eventually(ended)
    assert record.status.value == "completed", record
    assert (record.query_count, record.evaluated_queries, record.skipped_queries) == (6, 6, 1)
    assert record.metrics_by_k == {"1": record.metrics_by_k["1"], "5": record.overall_metrics}
    assert set(record.overall_metrics) == {"ndcg", "recall", "mrr"}
    assert record.overall_metrics["recall"] > 0.8
    outcomes = {item.query_id: item for item in record.query_results}
    assert outcomes["broken"].status == "skipped"
    assert "query" in str(outcomes["broken"].error)
    task = mixpeek.TasksApi(library.place.api).get_task(begun.task_id)
    assert task.status.value == "COMPLETED"
    listed = api.list_evaluations_retrievers(dense, dataset_name=name)
    assert [item.evaluation_id for item in listed.evaluations] == [begun.evaluation_id]
    # The queries of an evaluation are not what users asked.
    history = library.place.http.get(f"/v1/retrievers/{dense}/executions").json()
    assert not any(item.get("query_summary") in QUERIES for item in history["results"])


def test_a_benchmark(library: Library, documents: dict[str, str], dense: str, sparse: str) -> None:
    api = mixpeek.RetrieverBenchmarksApi(library.place.api)
    rows = [
        {
            "feature_id": documents[start],
            "interaction_type": ["click", "purchase"] if index % 2 else ["click"],
            "position": 1,
            "session_id": f"bench_{index}",
            "retriever_id": sparse,
            "query_snapshot": {"query": text},
        }
        for index, (text, start) in enumerate(QUERIES.items())
    ]
    rows.append({**rows[0], "session_id": "bench_broken", "query_snapshot": {"nothing": 1}})
    library.place.http.post("/v1/retrievers/interactions/batch", json={"interactions": rows}).raise_for_status()
    request = mixpeek.CreateBenchmarkRequest.from_dict(
        {
            "benchmark_name": "words against meaning",
            "baseline_retriever_id": sparse,
            "candidate_retriever_ids": [dense],
            "session_filter": {"retriever_ids": [sparse]},
            "session_count": 100,
        }
    )
    assert request is not None
    made = api.create_benchmark_retrievers(request)

    def ended() -> mixpeek.BenchmarkResponse | None:
        found = api.get_benchmark_retrievers(made.benchmark_id)
        return found if found.status.value in ("completed", "failed") else None

    found = eventually(ended)
    assert found.status.value == "completed", found
    assert found.session_count == 7
    baseline, candidate = found.results
    assert (baseline.retriever_id, candidate.retriever_id) == (sparse, dense)
    assert baseline.metrics.avg_position_delta == 0
    assert candidate.metrics.ndcg_at_k["10"] > baseline.metrics.ndcg_at_k["10"]
    assert candidate.metrics.items_promoted > 0
    assert (candidate.failed_sessions, sum(candidate.error_summary.values())) == (1, 1)
    assert candidate.latency.stage_latencies.keys() == {"find"}
    (comparison,) = found.comparison.comparisons
    assert comparison.ndcg_delta["10"] > 0
    assert 0 <= comparison.p_value <= 1
    low, high = comparison.confidence_interval
    assert low <= comparison.ndcg_delta["10"] <= high
    assert made.benchmark_id in [
        item.benchmark_id for item in api.list_benchmarks_retrievers(retriever_id=dense).benchmarks
    ]
    api.delete_benchmark_retrievers(made.benchmark_id)
    with pytest.raises(NotFoundException):
        api.get_benchmark_retrievers(made.benchmark_id)
    nobody = {"benchmark_name": "x", "baseline_retriever_id": dense, "candidate_retriever_ids": ["ret_nobody"]}
    assert library.place.http.post("/v1/retrievers/benchmarks", json=nobody).status_code == 404


def test_a_dataset_of_what_users_wanted(library: Library, documents: dict[str, str]) -> None:
    api, id = mixpeek.RetrieverEvaluationsApi(library.place.api), retriever(library, search(URI))
    for session in range(3):
        for text in ("hot soup all day", "camping shelter")[: 1 + session // 2]:
            record(
                library.place,
                feature_id=documents[QUERIES[text]],
                retriever_id=id,
                session_id=f"wanted_{session}",
                query_snapshot={"query": text},
            )
    request = mixpeek.GenerateFromInteractionsRequest.from_dict({"min_interactions": 3})
    made = api.generate_dataset_from_interactions_retrievers_id_evaluations(
        id, generate_from_interactions_request=request
    )
    (query,) = made.queries
    assert query.query_input == {"query": "hot soup all day"}
    assert query.relevant_documents == [documents["Soup stays hot"]]
    answer = library.place.http.post(
        f"/v1/retrievers/{id}/evaluations/generate-from-interactions", json={"min_interactions": 4}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "too_few_interactions")


def test_predictions_are_scored(library: Library) -> None:
    api = mixpeek.RetrieverEvaluationsApi(library.place.api)
    request = mixpeek.ScorePredictionsRequest.from_dict(
        {
            "items": [
                {"predicted": ["a", "b", "b"], "ground_truth": ["a"]},
                {"predicted": [], "ground_truth": ["a"]},
                {"predicted": [], "ground_truth": []},
            ]
        }
    )
    assert request is not None
    scored = api.score_predictions_evaluations(request)
    assert scored.per_item[0] == {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3)}
    assert [item["recall"] for item in scored.per_item] == [1.0, 0.0, 1.0]
    assert scored.aggregate["precision"] == 0.5
    assert library.place.http.post("/v1/evaluations/score", json={"predicted": ["a"]}).status_code == 422


def test_what_is_learned_of_kept_answers_and_shown_of_them(library: Library) -> None:
    id = retriever(library, search(URI), search(WORDS), fusion="learned", cache_behavior="aggressive")
    asked = {"inputs": {"query": "a gift"}, "skip_cache": False}
    first, kept = execute(library, id, **asked), execute(library, id, **asked)
    assert kept["cached_at"] is not None
    assert kept["execution_id"] != first["execution_id"]
    made = record(library.place, feature_id=kept["documents"][0]["document_id"], execution_id=kept["execution_id"])
    assert (made.retriever_id, made.query_snapshot) == (id, {"query": "a gift"})
    execute(library, id, inputs={"query": "another gift"})
    path = f"/v1/analytics/retrievers/{id}/signals"
    signals = library.place.http.get(path, params={"signal_type": "learned_weights"}).json()
    assert [item["signal_data"]["interactions"] for item in signals] == [1, 0]
    hits = library.place.http.get(path, params={"signal_type": "cache_hit"}).json()
    assert [(item["execution_id"], item["signal_data"]["scope"]) for item in hits] == [(kept["execution_id"], "answer")]


def test_signals_and_tuning(library: Library) -> None:
    api = mixpeek.AnalyticsRetrieversApi(library.place.api)
    id = retriever(library, search(URI), search(WORDS))
    for index in range(25):
        ran = execute(library, id, inputs={"query": "a gift"})
        last = len(ran["documents"]) - 1
        record(
            library.place,
            feature_id=ran["documents"][last]["document_id"],
            position=last,
            execution_id=ran["execution_id"],
            session_id=f"tune_{index}",
        )
    signals = api.get_retriever_signals_analytics(id, limit=10)
    assert len(signals) == 10
    assert {item.signal_type for item in signals} == {"cache_miss"}
    advice = api.analyze_for_tuning_analytics_retrievers(id, days=7)
    assert advice.current_performance["executions"] == 25
    assert advice.current_performance["click_through_rate"] == 1.0
    kinds = {item.recommendation_type for item in advice.recommendations}
    assert {"increase_k", "add_rerank"} <= kinds
