"""Retrievers: declared in every form, executed, explained, remembered; through the public SDK."""

from __future__ import annotations

import re
from typing import Any

import mixpeek
import pytest
from mixpeek.exceptions import ApiException
from tests.system.conftest import Library, unique

URI = "mixpeek://text_extractor@v1/text_embedding"
SEARCH = {"searches": [{"feature_uri": URI, "query": {"input_mode": "text", "value": "{{INPUT.query}}"}, "top_k": 6}]}
INPUTS = {"query": {"type": "text", "required": True}, "category": {"type": "string"}}
FORMS: dict[str, list[dict[str, Any]]] = {
    "sdk": [
        {
            "stage_name": "find",
            "stage_type": "filter",
            "config": {"stage_id": "feature_search", "parameters": SEARCH},
        }
    ],
    "flat": [{"stage_type": "filter", "stage_id": "feature_search", "parameters": SEARCH}],
    "named": [{"stage_name": "feature_search", "config": {"parameters": SEARCH}}],
}


def body(library: Library, form: str = "sdk", **changes: Any) -> dict[str, Any]:
    return {
        "retriever_name": unique("finder"),
        "collection_identifiers": ["sentences"],
        "input_schema": INPUTS,
        "stages": FORMS[form],
        **changes,
    }


def create(library: Library, **changes: Any) -> mixpeek.RetrieverConfig:
    request = mixpeek.CreateRetrieverRequest.from_dict(body(library, **changes))
    assert request is not None
    return mixpeek.RetrieversApi(library.place.api).create_retriever(request)


def execute(library: Library, retriever: str, **request: Any) -> mixpeek.ExecuteRetrieverResponse:
    wanted = mixpeek.ExecuteRetrieverRequest.from_dict({"inputs": {"query": "hot soup"}, **request})
    assert wanted is not None
    return mixpeek.RetrieversApi(library.place.api).execute_retriever(retriever, wanted)


@pytest.fixture(scope="module")
def finder(library: Library) -> mixpeek.RetrieverConfig:
    return create(library, description="finds texts", tags=["a"], metadata={"owner": "me"})


@pytest.mark.parametrize("form", sorted(FORMS))
def test_stages_in_every_form(library: Library, form: str) -> None:
    answer = library.place.http.post("/v1/retrievers", json=body(library, form))
    assert answer.status_code == 200, answer.text
    raw = answer.json()
    assert re.fullmatch(r"ret_[a-zA-Z0-9_]+", raw["retriever_id"])
    assert mixpeek.RetrieverConfig.from_dict(raw) is not None
    (stage,) = raw["stages"]
    assert stage["config"]["stage_id"] == "feature_search"
    assert stage["parameters"] == stage["config"]["parameters"]
    assert stage["stage_type"] == "filter"
    assert stage["stage_name"]
    found = execute(library, raw["retriever_id"])
    assert found.documents is not None
    assert found.documents[0]["text"].startswith("Soup")


def test_a_retriever_answers_flat(library: Library, finder: mixpeek.RetrieverConfig) -> None:
    assert finder.collection_identifiers == [library.collection_id]
    assert (finder.description, finder.tags, finder.metadata) == ("finds texts", ["a"], {"owner": "me"})
    assert finder.input_schema is not None
    assert finder.input_schema["query"].required is True
    assert finder.feature_dependencies is not None
    assert finder.feature_dependencies[0].extractor == "text_extractor"
    read = mixpeek.RetrieversApi(library.place.api).get_retriever(finder.retriever_name)
    assert read.retriever_id == finder.retriever_id
    assert read.version == 1


def test_seeds_spellings(library: Library) -> None:
    made = library.place.http.post(
        "/v1/retrievers",
        json={
            "retriever_name": unique("seed"),
            "collection_ids": [library.collection_id],
            "input_schema": {"properties": {"query": {"type": "text", "required": True}}},
            "stages": [
                {
                    "stage_name": "feature_search",
                    "config": {"parameters": {"feature_uri": URI, "input": {"text": "{{inputs.query}}"}, "limit": 3}},
                }
            ],
        },
    )
    assert made.status_code == 200, made.text
    assert made.json()["collection_identifiers"] == [library.collection_id]
    read = mixpeek.RetrieverConfig.from_dict(made.json())
    assert read is not None
    assert read.input_schema is not None
    assert read.input_schema["query"].required is True
    found = execute(library, made.json()["retriever_id"])
    assert len(found.documents or []) == 3


def test_executing(library: Library, finder: mixpeek.RetrieverConfig) -> None:
    found = execute(library, str(finder.retriever_id))
    assert found.execution_id.startswith("exec_")
    assert (found.status, found.cached_at) == ("completed", None)
    documents = found.documents
    assert documents is not None
    scores = [document["score"] for document in documents]
    assert scores == sorted(scores, reverse=True)
    assert 0.3 < scores[0] <= 1
    assert all(document["document_id"] and document["collection_id"] == library.collection_id for document in documents)
    assert {"text", "category", "price"} <= set(documents[0])
    assert not [name for name in documents[0] if "embedding" in name]
    raw = library.place.http.post(
        f"/v1/retrievers/{finder.retriever_id}/execute", json={"inputs": {"query": "hot soup"}, "unknown": 1}
    ).json()
    stage = raw["stage_statistics"]["stages"]["find"]
    assert stage["output_count"] == 6
    assert {"input_count", "duration_ms", "efficiency", "cache_hit", "cached_at"} <= set(stage)
    assert {"credits_used", "credits_limit", "time_elapsed_ms"} <= set(raw["budget"])
    assert raw["retriever_id"] == finder.retriever_id


def test_filters_limit_and_vectors(library: Library, finder: mixpeek.RetrieverConfig) -> None:
    toys = {"AND": [{"field": "category", "operator": "eq", "value": "toys"}]}
    found = execute(library, str(finder.retriever_id), filters=toys)
    assert {document["category"] for document in found.documents or []} == {"toys"}
    assert len(execute(library, str(finder.retriever_id), limit=2).documents or []) == 2
    path = f"/v1/retrievers/{finder.retriever_id}/execute"
    request = {"inputs": {"query": "x"}, "limit": 1}
    for query, sent in (("?return_vectors=true", {}), ("", {"return_vectors": True})):
        raw = library.place.http.post(path + query, json={**request, **sent}).json()
        document = raw["documents"][0]
        vectors = document.get("vectors") or document
        assert len(vectors["text_extractor_v1_embedding"]) == 384
    assert library.place.http.post(path, json={**request, "return_urls": True}).status_code == 200


@pytest.mark.parametrize(
    ("method", "first"),
    [
        ("offset", {"page_size": 2, "page_number": 1}),
        ("cursor", {"limit": 2}),
        ("scroll", {"limit": 2}),
        ("keyset", {"limit": 2}),
    ],
)
def test_pages_by_every_method(
    library: Library, finder: mixpeek.RetrieverConfig, method: str, first: dict[str, Any]
) -> None:
    path = f"/v1/retrievers/{finder.retriever_id}/execute"
    seen: list[str] = []
    paging: dict[str, Any] = {"method": method, **first}
    for number in range(1, 5):
        answer = library.place.http.post(path, json={"inputs": {"query": "soup"}, "pagination": paging})
        assert answer.status_code == 200, answer.text
        raw = answer.json()
        assert mixpeek.ExecuteRetrieverResponse.from_dict(raw) is not None
        page = raw["pagination"]
        assert page["method"] == method
        assert page["returned"] == len(raw["documents"])
        seen += [document["document_id"] for document in raw["documents"]]
        if not page["has_next"]:
            break
        if method == "offset":
            paging = {"method": method, "page_size": 2, "page_number": number + 1}
        elif method == "cursor":
            paging = {**paging, "cursor": page["next_cursor"]}
        elif method == "scroll":
            paging = {**paging, "scroll_id": page["scroll_id"]}
        else:
            paging = {**paging, "after": page["next_after"] if "next_after" in page else page["after"]}
    assert len(seen) == len(set(seen)) == 6


def test_seeds_offset_pages(library: Library, finder: mixpeek.RetrieverConfig) -> None:
    path = f"/v1/retrievers/{finder.retriever_id}/execute"
    paging = {"method": "offset", "limit": 4, "offset": 4}
    raw = library.place.http.post(path, json={"inputs": {"query": "soup"}, "pagination": paging}).json()
    assert len(raw["documents"]) == 2
    assert raw["pagination"]["total"] == 6


@pytest.mark.parametrize("inputs", [{}, {"query": 5}, {"query": ["a"]}])
def test_wrong_inputs_are_refused(library: Library, finder: mixpeek.RetrieverConfig, inputs: dict[str, Any]) -> None:
    answer = library.place.http.post(f"/v1/retrievers/{finder.retriever_id}/execute", json={"inputs": inputs})
    assert answer.status_code in (400, 422)
    assert "query" in answer.json()["error"]["message"]


def test_listing_patching_cloning_and_deleting(library: Library) -> None:
    retrievers = mixpeek.RetrieversApi(library.place.api)
    prefix = unique("copied")
    made = create(library, retriever_name=f"{prefix}_a")
    patch = mixpeek.PatchRetrieverRequest.from_dict({"description": "changed", "tags": ["b"]})
    assert patch is not None
    changed = retrievers.patch_retriever(str(made.retriever_id), patch).retriever
    assert (changed.description, changed.tags, changed.version) == ("changed", ["b"], 2)
    clone = mixpeek.CloneRetrieverRequest.from_dict({"retriever_name": f"{prefix}_b"})
    assert clone is not None
    copy = retrievers.clone_retriever(str(made.retriever_id), clone)
    assert copy.source_retriever_id == made.retriever_id
    assert copy.retriever.collection_identifiers == [library.collection_id]
    request = mixpeek.ListRetrieversRequest.from_dict({"search": prefix, "sort": {"field": "retriever_name"}})
    page = retrievers.list_retrievers(include_total=True, list_retrievers_request=request)
    assert [item.retriever_name for item in page.results or []] == [f"{prefix}_a", f"{prefix}_b"]
    assert page.total == 2
    assert len(retrievers.list_retrievers_get(limit=2).results or []) == 2
    other = [{**FORMS["sdk"][0], "stage_name": "other"}]
    frozen = library.place.http.patch(f"/v1/retrievers/{made.retriever_id}", json={"stages": other})
    assert frozen.status_code == 409
    for name in (f"{prefix}_a", f"{prefix}_b"):
        retrievers.delete_retriever(name)
    with pytest.raises(ApiException) as gone:
        retrievers.get_retriever(str(made.retriever_id))
    assert gone.value.status == 404


@pytest.mark.parametrize(
    ("change", "status", "word"),
    [
        ({"collection_identifiers": ["no_such"]}, 404, "no_such"),
        ({"stages": [{"stage_name": "x", "config": {"stage_id": "no_such"}}]}, 422, "no_such"),
        ({"stages": [{"stage_name": "limit", "config": {"parameters": {"limit": "many"}}}]}, 422, "limit"),
        (
            {
                "stages": [
                    {
                        "stage_name": "feature_search",
                        "config": {"parameters": {"searches": [{"feature_uri": "mixpeek://a@v1/b", "query": "x"}]}},
                    }
                ]
            },
            422,
            "mixpeek://a@v1/b",
        ),
        ({"stages": []}, 422, "stages"),
    ],
)
def test_wrong_retrievers_are_refused(library: Library, change: dict[str, Any], status: int, word: str) -> None:
    answer = library.place.http.post("/v1/retrievers", json=body(library, **change))
    assert answer.status_code == status, answer.text
    assert word in answer.text


def test_explaining(library: Library, finder: mixpeek.RetrieverConfig) -> None:
    retrievers = mixpeek.RetrieversApi(library.place.api)
    plan = retrievers.explain_retriever_execution_id_execute(
        str(finder.retriever_id), mixpeek.ExplainRetrieverRequest(inputs={"query": "soup"})
    )
    assert (plan.retriever_id, plan.retriever_name) == (finder.retriever_id, finder.retriever_name)
    assert plan.total_estimated_stages == 1
    assert plan.execution_plan is not None
    assert plan.execution_plan[0].stage_name == "find"
    seed = library.place.http.post(f"/v1/retrievers/{finder.retriever_id}/explain", json={"inputs": {"query": "x"}})
    assert seed.status_code == 200
    assert seed.json()["total_estimated_stages"] == 1


def test_executions_are_remembered(library: Library) -> None:
    retrievers = mixpeek.RetrieversApi(library.place.api)
    made = create(library)
    ids = [execute(library, str(made.retriever_id), inputs={"query": text}).execution_id for text in ("a", "b", "c")]
    page = retrievers.list_executions_retrievers(str(made.retriever_id), limit=2)
    assert page.results is not None
    assert len(page.results) == 2
    assert page.pagination.has_next is True
    raw = library.place.http.get(f"/v1/retrievers/{made.retriever_id}/executions").json()
    assert {item["execution_id"] for item in raw["results"]} == set(ids)
    item = raw["results"][0]
    assert {"status", "created_at", "duration_ms", "credits_used", "total_processed", "total_returned"} <= set(item)
    one = retrievers.get_execution_retrievers(str(made.retriever_id), ids[0])
    assert (one.execution_id, one.status) == (ids[0], "completed")
    with pytest.raises(ApiException) as unknown:
        retrievers.get_execution_retrievers(str(made.retriever_id), "exec_none")
    assert unknown.value.status == 404
    other = create(library)
    with pytest.raises(ApiException) as foreign:
        retrievers.get_execution_retrievers(str(other.retriever_id), ids[0])
    assert foreign.value.status == 404


def test_executing_without_storing_a_retriever(library: Library) -> None:
    adhoc = mixpeek.AdhocRetrieversApi(library.place.api)
    request = mixpeek.AdhocExecuteRequest.from_dict(
        {
            "collection_identifiers": ["sentences"],
            "input_schema": INPUTS,
            "stages": FORMS["sdk"],
            "inputs": {"query": "hot soup"},
        }
    )
    assert request is not None
    found: Any = adhoc.execute_adhoc_retriever(request)
    assert found["documents"][0]["text"].startswith("Soup")
    listed = adhoc.list_adhoc_executions_retrievers(limit=50)
    assert found["execution_id"] in {item.execution_id for item in listed.results or []}
    detail = adhoc.get_adhoc_execution_retrievers(found["execution_id"])
    assert detail.status == "completed"


def test_many_queries_at_once(library: Library, finder: mixpeek.RetrieverConfig) -> None:
    retrievers = mixpeek.RetrieversApi(library.place.api)
    request = mixpeek.ExecuteBatchRequest.from_dict(
        {"queries": [{"inputs": {"query": "hot soup"}}, {"inputs": {}}, {"inputs": {"query": "a tent"}}]}
    )
    assert request is not None
    answer: Any = retrievers.execute_batch_retrievers(str(finder.retriever_id), request)
    assert len(answer["results"]) == 3
    assert answer["results"][0]["documents"][0]["text"].startswith("Soup")
    assert answer["results"][1]["status"] == "failed"
    assert answer["results"][2]["documents"][0]["text"].startswith("A light tent")


def test_noise_of_the_sdks_parameter_models(library: Library) -> None:
    parameters = {"field": "price", "direction": "desc", "tie_breaker": "null"}
    stages = [{"stage_name": "by price", "config": {"stage_id": "sort_attribute", "parameters": parameters}}]
    answer = library.place.http.post("/v1/retrievers", json=body(library, stages=[*FORMS["sdk"], *stages]))
    assert answer.status_code == 200, answer.text
    found = execute(library, answer.json()["retriever_id"])
    prices = [document["price"] for document in found.documents or []]
    assert prices == sorted(prices, reverse=True)


def test_the_type_of_every_stage_is_one_that_the_sdk_reads(library: Library) -> None:
    cheap = {"field": "price", "operator": "lt", "value": 200}
    stages: list[dict[str, Any]] = [
        *FORMS["sdk"],
        {"stage_name": "attribute_filter", "config": {"parameters": cheap}},
        {"stage_name": "sort_relevance", "config": {"parameters": {}}},
        {"stage_name": "sort_attribute", "config": {"parameters": {"field": "price", "direction": "asc"}}},
        {"stage_name": "limit", "stage_type": "group", "config": {"parameters": {"limit": 2}}},
        {"stage_name": "json_transform", "config": {"parameters": {"template": '{"title": "{{ DOC.text }}"}'}}},
    ]
    answer = library.place.http.post("/v1/retrievers", json=body(library, stages=stages))
    assert answer.status_code == 200, answer.text
    read = mixpeek.RetrieverConfig.from_dict(answer.json())
    assert read is not None
    kinds = [stage.stage_type.value if stage.stage_type else None for stage in read.stages]
    assert kinds == ["filter", "filter", "sort", "sort", "reduce", "apply"]
    found = execute(library, str(read.retriever_id))
    assert [document["title"] for document in found.documents or []] == [
        "The moon map glows above the bed at night",
        "Soup stays hot for a day in a steel flask",
    ]
