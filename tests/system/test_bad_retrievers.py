"""Stages, templates, inputs, vectors and page tokens that cannot work are refused: when declared if it can be known."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.system.conftest import Library
from tests.system.refusals import DEEP, TIMELY_S, ZZ, Body, clean, refused, state


def search(**changes: Any) -> Body:
    found = {
        "feature_uri": "mixpeek://text_extractor@v1/text_embedding",
        "query": {"input_mode": "text", "value": "{{INPUT.query}}"},
        "top_k": 5,
        **changes,
    }
    parameters = {"searches": [found], "final_top_k": 5}
    return {
        "stage_name": "s",
        "stage_type": "filter",
        "config": {"stage_id": "feature_search", "parameters": parameters},
    }


def stage(id: str, type: str, **parameters: Any) -> Body:
    return {"stage_name": "t", "stage_type": type, "config": {"stage_id": id, "parameters": parameters}}


def transform(template: str, **more: Any) -> Body:
    return stage("json_transform", "apply", template=template, **more)


def retriever(*stages: Body) -> Body:
    return {
        "retriever_name": "bad",
        "collection_identifiers": ["sentences"],
        "input_schema": {"query": {"type": "text", "required": True}},
        "stages": list(stages),
    }


KNOWN: dict[str, tuple[list[Body], tuple[str, ...]]] = {
    "unknown stage": ([stage("feature_serch", "filter")], ("stages[0]", "did you mean 'feature_search'")),
    "language model that nobody configured": (
        [search(), stage("llm_filter", "filter", criteria="loud ones")],
        ("stages[1].parameters", "MIXPEEK_LLM_API_KEY", "MIXPEEK_ANTHROPIC_API_KEY"),
    ),
    "unknown feature URI": (
        [search(feature_uri="mixpeek://text_extractor@v1/zz")],
        ("stages[0]", "v1/zz is not available"),
    ),
    "operator in a search": ([search(filters=ZZ)], ("stages[0].parameters.searches[0].filters", "'zz'")),
    "operator in pre_filters": ([search(pre_filters=ZZ)], ("stages[0].parameters", "pre_filters")),
    "operator in attribute_filter": (
        [search(), stage("attribute_filter", "filter", field="a", operator="zz", value=1)],
        ("stages[1].parameters", "'zz'"),
    ),
    "regular expression": (
        [search(), stage("attribute_filter", "filter", field="a", operator="regex", value="(a")],
        ("stages[1].parameters", "regular expression"),
    ),
    "open template": (
        [search(query={"input_mode": "text", "value": "{{INPUT.query"})],
        ("searches[0].query.value", "never closed"),
    ),
    "secret attributes": ([transform('{"a": {{ DOC.x.__class__() }} }')], ("stages[0].parameters",)),
    "recursive macro": (
        [transform("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}")],
        ("stages[0].parameters", "macro"),
    ),
    "include": ([transform("{% include '/etc/passwd' %}")], ("stages[0].parameters", "include")),
    "deep brackets": (
        [transform('{"a": {{ ' + "(" * DEEP + "1" + ")" * DEEP + " }} }")],
        ("stages[0].parameters", "deep"),
    ),
    "long sum": ([transform('{"a": {{ 1' + "+1" * DEEP + " }} }")], ("stages[0].parameters", "deep")),
    "deep blocks": ([transform("{% if 1 %}" * 2000 + "1" + "{% endif %}" * 2000)], ("stages[0].parameters", "deep")),
    "deep choice": (
        [transform('{"a": {{ ' + "1 ? " * 300 + "1" + " : 2" * 300 + " }} }")],
        ("stages[0].parameters", "deep"),
    ),
}


@pytest.mark.parametrize("case", KNOWN)
def test_stages_that_cannot_run_are_refused_when_declared(library: Library, case: str) -> None:
    stages, words = KNOWN[case]
    before = state(library)
    http = library.place.http
    for path, body in (
        ("/v1/retrievers", retriever(*stages)),
        ("/v1/retrievers/execute", {**retriever(*stages), "inputs": {"query": "soup"}}),
    ):
        refused(http.post(path, json=body), 422, *words)
    assert state(library) == before
    assert http.get("/v1/health").status_code == 200


EXPLODING = {
    "endless loop": '{"a": "{% for i in range(100000000) %}x{% endfor %}"}',
    "loops in loops": '{"a": "' + "{% for i in range(999) %}" * 5 + "x" + "{% endfor %}" * 5 + '"}',
    "long text": '{"a": "{{ "x" * 1000000000 }}"}',
    "long list": '{"a": {{ [0] * 1000000000 }} }',
    "power": '{"a": {{ 9 ** 9 ** 9 ** 9 }} }',
    "power of powers": '{"a": {{ (9 ** 999) ** 999 }} }',
    "padding": '{"a": "{{ "%999999999d" % 1 }}"}',
    "replacements": '{"a": "{{ "x"' + '|replace("x", "xxxxxxxxxxxxxxxxxxxx")' * 12 + ' }}"}',
    "doubling": '{% set a = "x" * 64 %}' + "{% set a = a ~ a %}" * 40 + '{"a": "{{ a }}"}',
    "no JSON": "not JSON {{ DOC.text }}",
    "division": '{"a": {{ 1 / 0 }} }',
}


@pytest.mark.parametrize("case", EXPLODING)
def test_templates_that_explode_end_soon(library: Library, case: str) -> None:
    http = library.place.http
    before = state(library)
    stages = [search(), transform(EXPLODING[case], fail_on_error=True)]
    began = time.monotonic()
    answer = http.post("/v1/retrievers/execute", json={**retriever(*stages), "inputs": {"query": "soup"}})
    refused(answer, 422, "t")
    assert time.monotonic() - began < TIMELY_S
    assert state(library) == before
    # Left out when it is not asked to fail: with a count and a warning, not silently.
    stages[1]["config"]["parameters"]["fail_on_error"] = False
    answer = http.post("/v1/retrievers/execute", json={**retriever(*stages), "inputs": {"query": "soup"}})
    assert answer.status_code in (200, 422), answer.text
    clean(answer.text)
    if answer.status_code == 200:
        assert answer.json()["documents"] == []
        assert "left out" in answer.text
    assert http.get("/v1/health").status_code == 200


@pytest.fixture(scope="module")
def finder(library: Library) -> Iterator[str]:
    made = library.place.http.post("/v1/retrievers", json={**retriever(search()), "retriever_name": "finder"})
    assert made.status_code == 200, made.text
    yield "/v1/retrievers/finder/execute"
    library.place.http.delete("/v1/retrievers/finder")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 422, ("inputs.query", "required")),
        ({"inputs": {"query": 7}}, 422, ("inputs.query",)),
        ({"inputs": []}, 422, ("inputs",)),
        ({"inputs": {"query": "a"}, "filters": ZZ}, 422, ("AND.0", "'zz'")),
        ({"inputs": {"query": "a"}, "limit": -1}, 422, ("limit",)),
        ({"inputs": {"query": "a"}, "limit": 10**18}, 422, ("limit",)),
        ({"inputs": {"query": "a"}, "pagination": {"method": "zz"}}, 422, ("pagination.method", "'zz'")),
        ({"inputs": {"query": "a"}, "pagination": {"method": "offset", "page_size": -1}}, 422, ("limit",)),
        ({"inputs": {"query": "a"}, "pagination": {"method": "keyset", "after": 1}}, 422, ("pagination.after",)),
        ({"inputs": {"query": "a"}, "pagination": []}, 422, ("pagination",)),
    ],
)
def test_bad_executions(library: Library, finder: str, body: Body, status: int, words: tuple[str, ...]) -> None:
    refused(library.place.http.post(finder, json=body), status, *words)


@pytest.mark.parametrize(
    ("value", "status", "words"),
    [
        ([0.1, 0.2], 422, ("text_embedding", "2 numbers", "384")),
        ([1e308] * 384, 422, ("text_embedding", "finite")),
        (["x"] * 384, 422, ("vector",)),
        ([], 422, ("text_embedding", "empty")),
    ],
)
def test_query_vectors_that_fit_nothing(
    library: Library, value: list[Any], status: int, words: tuple[str, ...]
) -> None:
    stages = [search(query={"input_mode": "vector", "value": value})]
    body = {**retriever(*stages), "inputs": {"query": "soup"}}
    refused(library.place.http.post("/v1/retrievers/execute", json=body), status, *words)


TOKENS = {"cursor": "cursor", "scroll": "scroll_id", "keyset": "after"}


@pytest.mark.parametrize("method", TOKENS)
def test_page_tokens_of_another_query(library: Library, finder: str, method: str) -> None:
    http = library.place.http

    def ask(query: str, **page: Any) -> httpx.Response:
        return http.post(
            finder, json={"inputs": {"query": query}, "pagination": {"method": method, "limit": 1, **page}}
        )

    token = ask("soup").json()["pagination"][TOKENS[method]]
    assert token
    assert ask("soup", **{TOKENS[method]: token}).status_code == 200
    refused(ask("a tent", **{TOKENS[method]: token}), 400, "another query")
    refused(ask("soup", **{TOKENS[method]: "zz"}), (400, 422))
    if method != "keyset":
        forged = base64.urlsafe_b64encode(b'{"o": -1, "m": 1, "q": {}}').decode()
        refused(ask("soup", **{TOKENS[method]: forged}), 400, "token")
        refused(ask("soup", **{TOKENS[method]: "名"}), 400, "token")


def test_a_retriever_made_again_is_not_the_old_one(library: Library) -> None:
    http = library.place.http
    body = retriever(stage("attribute_filter", "filter", field="category", operator="eq", value="toys"))
    for value in ("toys", "kitchen"):
        body["stages"][0]["config"]["parameters"]["value"] = value
        assert http.post("/v1/retrievers", json=body).status_code == 200
        answer = http.post("/v1/retrievers/bad/execute", json={"inputs": {"query": "a"}})
        assert {item["category"] for item in answer.json()["documents"]} == {value}
        assert http.delete("/v1/retrievers/bad").status_code == 200
