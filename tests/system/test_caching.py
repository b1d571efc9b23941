"""Caches, streams and figures of retrievers, as clients see them over HTTP."""

from __future__ import annotations

import json
from typing import Any

import httpx
import mixpeek
import pytest
from tests.system.conftest import Library, unique

URI = "mixpeek://text_extractor@v1/text_embedding"


def declared(library: Library, **more: Any) -> str:
    """Make a retriever and return its id."""
    search = {
        "stage_name": "text_search",
        "config": {
            "stage_id": "feature_search",
            "parameters": {
                "searches": [{"feature_uri": URI, "query": {"input_mode": "text", "value": "{{INPUT.query}}"}}],
                "final_top_k": 5,
            },
        },
    }
    body = {
        "retriever_name": unique("cached"),
        "collection_identifiers": [library.collection_id],
        "input_schema": {"query": {"type": "text", "required": True}},
        "stages": [search, {"stage_name": "top", "stage_id": "limit", "parameters": {"limit": 3}}],
        **more,
    }
    made = library.place.http.post("/v1/retrievers", json=body)
    assert made.status_code == 200, made.text
    return str(made.json()["retriever_id"])


def ask(library: Library, id: str, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    request = {"inputs": {"query": "hot soup"}, **body}
    return library.place.http.post(f"/v1/retrievers/{id}/execute", json=request, headers=headers or {})


def test_headers_tell_caches_what_they_may_do(library: Library) -> None:
    id = declared(library, cache_config={"enabled": True, "ttl_seconds": 300})
    first, second = ask(library, id), ask(library, id)
    assert [first.headers["x-cache"], second.headers["x-cache"]] == ["MISS", "HIT"]
    assert first.headers["cache-control"] == second.headers["cache-control"] == "private, max-age=300"
    assert first.json()["documents"] == second.json()["documents"] != []
    assert first.json()["cached_at"] is None and isinstance(second.json()["cached_at"], float)
    etag = first.headers["etag"]
    assert second.headers["etag"] == etag
    for given in (etag, etag.removeprefix("W/"), f'"other", {etag}'):
        known = ask(library, id, {"If-None-Match": given})
        assert (known.status_code, known.content, known.headers["x-cache"]) == (304, b"", "HIT")
        assert known.headers["etag"] == etag
    assert ask(library, id, {"If-None-Match": '"other"'}).status_code == 200
    fresh = ask(library, id, {"If-None-Match": etag}, skip_cache=True)
    assert (fresh.status_code, fresh.headers["x-cache"]) == (200, "MISS")


def test_what_is_not_kept_says_so(library: Library) -> None:
    id = declared(library, cache_config={"enabled": False})
    for _ in range(2):
        answer = ask(library, id)
        assert (answer.headers["x-cache"], answer.headers["cache-control"]) == ("MISS", "no-store")
        assert "etag" not in answer.headers


def test_a_write_a_patch_and_a_clearing_make_it_miss(library: Library) -> None:
    id = declared(library)
    http = library.place.http

    def missed() -> bool:
        found = ask(library, id).headers["x-cache"] == "MISS"
        assert ask(library, id).headers["x-cache"] == "HIT"
        return found

    assert missed()
    documents = http.post(f"/v1/collections/{library.collection_id}/documents/list", json={}).json()["results"]
    changed = f"/v1/collections/{library.collection_id}/documents/{documents[0]['document_id']}"
    http.patch(changed, json={"note": "changed"}).raise_for_status()
    assert missed()
    patched = http.patch(f"/v1/retrievers/{id}", json={"cache_config": {"ttl_seconds": 60}, "description": "shorter"})
    assert patched.json()["cache_config"] == {"ttl_seconds": 60}
    assert missed()
    cleared = http.delete(f"/v1/retrievers/{id}/cache")
    assert cleared.json()["success"] and cleared.json()["deleted_count"] >= 1
    assert missed()
    assert http.delete("/v1/retrievers/ret_nobody0000/cache").status_code == 404


def test_stages_and_schema_are_refused_and_a_clone_is_the_way(library: Library) -> None:
    id = declared(library)
    http = library.place.http
    for change in (
        {"stages": [{"stage_id": "limit", "parameters": {"limit": 1}}]},
        {"input_schema": {"other": {"type": "text"}}},
    ):
        assert http.patch(f"/v1/retrievers/{id}", json=change).status_code in (400, 409, 422)
    name = unique("renamed")
    assert http.patch(f"/v1/retrievers/{id}", json={"retriever_name": name}).json()["retriever_name"] == name
    copy = {"retriever_name": unique("copy"), "stages": [{"stage_id": "limit", "parameters": {"limit": 1}}]}
    made = http.post(f"/v1/retrievers/{id}/clone", json=copy).json()
    assert made["source_retriever_id"] == id and len(made["retriever"]["stages"]) == 1
    found = http.post("/v1/retrievers/list", json={"search": name}).json()["results"]
    assert [item["retriever_id"] for item in found] == [id]


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    frames = answer.text.split("\n\n")
    assert frames.pop() == ""
    assert all(frame.startswith("data: ") for frame in frames)
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


@pytest.mark.parametrize("adhoc", [False, True])
def test_progress_is_streamed(library: Library, adhoc: bool) -> None:
    id = declared(library)
    http = library.place.http
    if adhoc:
        stored = http.get(f"/v1/retrievers/{id}").json()
        body = {key: stored[key] for key in ("collection_identifiers", "input_schema", "stages")}
        request = {**body, "inputs": {"query": "hot soup"}, "stream": True}
        answer = http.post("/v1/retrievers/execute", json=request)
        assert answer.headers["x-execution-mode"] == "adhoc"
    else:
        answer = http.post(f"/v1/retrievers/{id}/execute?stream=true", json={"inputs": {"query": "hot soup"}})
    events = events_of(answer)
    told = [(event["event_type"], event.get("stage_name")) for event in events]
    assert told == [
        ("stage_start", "text_search"),
        ("stage_complete", "text_search"),
        ("stage_start", "top"),
        ("stage_complete", "top"),
        ("execution_complete", None),
    ]
    last = events[-1]
    assert {event["execution_id"] for event in events} == {last["execution_id"]}
    assert [event["total_stages"] for event in events[:-1]] == [2] * 4
    assert [event["stage_index"] for event in events[:-1]] == [0, 0, 1, 1]
    assert events[3]["documents"] == last["documents"] != []
    assert events[3]["statistics"]["output_count"] == 3
    assert events[3]["budget_used"]["credits_used"] == last["budget"]["credits_used"]
    assert last["pagination"]["returned"] == 3


def test_a_stream_that_fails_says_why(library: Library) -> None:
    http = library.place.http
    limit = {"stage_id": "limit", "parameters": {"limit": "{{INPUT.most}}"}}
    body = {
        "collection_identifiers": [library.collection_id],
        "input_schema": {"most": {"type": "number"}},
        "stages": [limit],
        "inputs": {"most": -1},
        "stream": True,
    }
    events = events_of(http.post("/v1/retrievers/execute", json=body))
    assert events[-1]["event_type"] == "execution_error"
    assert "limit" in events[-1]["error"]["message"]
    # What is wrong with the request itself needs no stream.
    assert http.post("/v1/retrievers/execute", json={**body, "stages": []}).status_code == 422
    assert http.post("/v1/retrievers/ret_nobody0000/execute", json={"stream": True}).status_code == 404


def test_figures_of_a_retriever(library: Library) -> None:
    id = declared(library)
    answers = [ask(library, id), ask(library, id), ask(library, id), ask(library, id, skip_cache=True)]
    analytics = mixpeek.AnalyticsRetrieversApi(library.place.api)
    cache = analytics.get_cache_performance_analytics_retrievers(id)
    assert (cache.total_cache_hits, cache.total_cache_misses, cache.cache_hit_rate) == (2, 1, pytest.approx(2 / 3))
    assert cache.avg_cache_hit_latency_ms > 0 and cache.avg_cache_miss_latency_ms > 0
    assert sum(hour["cache_hits"] for hour in cache.hourly_breakdown) == 2
    performance = analytics.get_retriever_performance_analytics(id)
    assert performance.summary is not None and performance.summary["execution_count"] == 4
    assert sum(item["execution_count"] for item in performance.metrics) == 4
    stages = analytics.get_stage_breakdown_analytics_retrievers(id)
    assert [(item.stage_name, item.execution_count) for item in stages.stages] == [("text_search", 2), ("top", 2)]
    slowest = analytics.get_slowest_queries_analytics_retrievers_id_slow(id, limit=2)
    assert len(slowest) == 2 and slowest[0]["latency_ms"] >= slowest[1]["latency_ms"]
    assert {item["execution_id"] for item in slowest} <= {answer.json()["execution_id"] for answer in answers}
    assert slowest[0]["query"] == "hot soup"
    http = library.place.http
    assert http.get("/v1/analytics/retrievers/ret_nobody0000/performance").status_code == 404
    path = f"/v1/analytics/retrievers/{id}/performance"
    wrong = http.get(path, params={"start_date": "2026-02-01T00:00:00Z", "end_date": "2026-01-01T00:00:00Z"})
    assert wrong.status_code == 400
