"""Inputs, pages and fusion: the pure parts."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpeek_operator.adapters.memory_cache import MemoryCache
from mixpeek_operator.core.clock import SystemClock
from mixpeek_operator.core.errors import BadRequestError, SpecError
from mixpeek_operator.retrieval import fusion, pagination, paths
from mixpeek_operator.retrieval.inputs import InputSchema
from mixpeek_operator.retrieval.pagination import Order, Pager, PageRequest

SCHEMA = {
    "query": {"type": "text", "required": True},
    "max_price": {"type": "number", "required": False, "default": None},
    "count": {"type": "integer", "default": 3},
    "since": {"type": "date"},
    "kinds": {"type": "array", "items": {"type": "string"}},
    "sort": {"type": "string", "enum": ["asc", "desc"]},
}


@pytest.mark.parametrize(
    ("given_inputs", "expected"),
    [
        ({"query": "a"}, {"query": "a", "count": 3}),
        ({"query": "a", "count": None}, {"query": "a", "count": 3}),
        ({"query": "a", "max_price": "12"}, {"query": "a", "count": 3, "max_price": 12}),
        ({"query": "a", "count": 4.0, "extra": 1}, {"query": "a", "count": 4, "extra": 1}),
        ({"query": "", "since": "2026-01-31"}, {"query": "", "count": 3, "since": "2026-01-31"}),
    ],
)
@pytest.mark.parametrize("wrap", [False, True])
def test_inputs_are_coerced(given_inputs: dict[str, Any], expected: dict[str, Any], wrap: bool) -> None:
    schema = InputSchema({"properties": SCHEMA} if wrap else SCHEMA)
    assert schema.check(given_inputs) == expected


def test_every_problem_of_the_inputs_at_once() -> None:
    wrong = {"qeury": "a", "max_price": "cheap", "count": 1.5, "since": "soon", "kinds": [1], "sort": "up"}
    with pytest.raises(SpecError) as caught:
        InputSchema(SCHEMA).check(wrong)
    assert [problem.location[-1] for problem in caught.value.problems] == [
        "query",
        "max_price",
        "count",
        "since",
        "kinds",
        "sort",
    ]
    assert "was 'qeury' meant" in caught.value.message


@pytest.mark.parametrize("value", [3, True, ["a"], {"a": 1}])
def test_text_must_be_text(value: Any) -> None:
    with pytest.raises(SpecError, match="must be text"):
        InputSchema(SCHEMA).check({"query": value})


DOCUMENTS = [{"document_id": f"d{index:02d}", "score": (30 - index) / 30} for index in range(30)]


def pager(page: PageRequest, query: str = "q", cache: MemoryCache | None = None) -> Pager:
    return Pager(cache or MemoryCache(1_000_000, SystemClock()), "ns_a", page, lambda: query)


async def walk(method: str, size: int, cache: MemoryCache) -> list[str]:
    seen: list[str] = []
    body: dict[str, Any] = {"method": method, "limit": size}
    for number in range(1, 100):
        if method == "offset":
            body = {"method": method, "page_size": size, "page_number": number}
        current = pager(pagination.read({"pagination": body}), cache=cache)
        part, info = await current.resume() or await current.cut(DOCUMENTS, Order())
        seen += [document["document_id"] for document in part]
        assert info["method"] == method
        assert info["returned"] == len(part)
        assert info["total"] == 30
        if not info["has_next"]:
            return seen
        key = {"cursor": "cursor", "scroll": "scroll_id", "keyset": "next_cursor", "offset": "page_number"}[method]
        body = {**body, ("after" if method == "keyset" else key): info[key]}
    raise AssertionError("never ends")


@pytest.mark.parametrize("method", ["offset", "cursor", "scroll", "keyset"])
@pytest.mark.parametrize("size", [1, 7, 10, 30, 31])
async def test_pages_make_the_whole(method: str, size: int) -> None:
    cache = MemoryCache(1_000_000, SystemClock())
    assert await walk(method, size, cache) == [document["document_id"] for document in DOCUMENTS]


@pytest.mark.parametrize("method", ["cursor", "scroll", "keyset"])
async def test_token_of_another_query_is_refused(method: str) -> None:
    cache = MemoryCache(1_000_000, SystemClock())
    _, info = await pager(PageRequest(method, 5), cache=cache).cut(DOCUMENTS, Order())
    token = info["scroll_id" if method == "scroll" else "next_cursor"]
    page = PageRequest(method, 5, after=token) if method == "keyset" else PageRequest(method, 5, token=token)
    other = pager(page, "another", cache)
    with pytest.raises(BadRequestError, match="another query"):
        await other.resume() or await other.cut(DOCUMENTS, Order())


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "!!!",
        "",
        base64.urlsafe_b64encode(orjson.dumps({"o": -1, "q": "q", "m": "cursor"})).decode(),
        "é",
        "bnVsbA",
    ],
)
async def test_a_made_up_token_is_refused(token: str) -> None:
    if not token:
        return
    with pytest.raises(BadRequestError):
        await pager(PageRequest("cursor", 5, token=token)).cut(DOCUMENTS, Order())


async def test_cursor_is_stable_when_documents_come_and_go() -> None:
    _, info = await pager(PageRequest("cursor", 5)).cut(DOCUMENTS, Order())
    grown = [{"document_id": "new", "score": 2.0}, *DOCUMENTS]
    part, _ = await pager(PageRequest("cursor", 5, token=info["cursor"])).cut(grown, Order())
    assert part[0]["document_id"] == "d05"


async def test_keyset_marker_of_a_deleted_document_goes_on_behind_it() -> None:
    fewer = [document for document in DOCUMENTS if document["document_id"] != "d04"]
    marker = {"score": 26 / 30, "id": "d04"}
    part, _ = await pager(PageRequest("keyset", 2, after=marker)).cut(fewer, Order())
    assert part[0]["document_id"] == "d05"


async def test_scroll_expires() -> None:
    _, info = await pager(PageRequest("scroll", 5)).cut(DOCUMENTS, Order())
    with pytest.raises(BadRequestError, match="expired"):
        await pager(PageRequest("scroll", 5, token=info["scroll_id"])).resume()


@pytest.mark.parametrize(
    "request_body",
    [
        {"limit": 0},
        {"limit": "5"},
        {"limit": True},
        {"limit": 10**6},
        {"pagination": {"method": "magic"}},
        {"pagination": []},
        {"pagination": {"method": "offset", "page_number": 0}},
        {"pagination": {"method": "keyset", "after": 5}},
        {"pagination": {"method": "cursor", "cursor": 5}},
    ],
)
def test_wrong_pagination_is_refused(request_body: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        pagination.read(request_body)


RANKING = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.floats(-1, 1)), max_size=8, unique_by=lambda pair: pair[0]
).map(lambda pairs: sorted(pairs, key=lambda pair: -pair[1]))


@given(RANKING, st.sampled_from(["rrf", "weighted", "max"]))
def test_one_list_keeps_its_order(ranking: list[tuple[str, float]], strategy: str) -> None:
    fused = fusion.STRATEGIES[strategy]([ranking], [1.0])
    assert set(fused) == {id for id, _ in ranking}
    scores = [fused[id] for id, _ in ranking]
    assert scores == sorted(scores, reverse=True)


@given(st.lists(RANKING, min_size=2, max_size=4), st.sampled_from(sorted(fusion.STRATEGIES)))
def test_fusion_does_not_depend_on_the_order_of_searches(rankings: list[Any], strategy: str) -> None:
    weights = [1.0] * len(rankings)
    forward = fusion.STRATEGIES[strategy](rankings, weights)
    backward = fusion.STRATEGIES[strategy](rankings[::-1], weights)
    assert forward == pytest.approx(backward)


@given(RANKING, RANKING)
def test_dbsf_is_within_its_weights(left: Any, right: Any) -> None:
    fused = fusion.dbsf([left, right], [0.7, 0.3])
    assert all(0 <= score <= 1 + 1e-9 for score in fused.values())


def test_rrf_by_hand() -> None:
    fused = fusion.rrf([[("a", 9.0), ("b", 1.0)], [("b", 0.2)]], [1.0, 2.0])
    assert fused == pytest.approx({"a": 1 / 61, "b": 1 / 62 + 2 / 61})
    assert [id for id, _ in fusion.ordered(fused)] == ["b", "a"]


def test_paths() -> None:
    document = {"a": {"b": [1, {"c": 2}]}, "x.y": 3, "_internal": {"lineage": {"root_object_id": "obj"}}}
    assert paths.read(document, "a.b.1.c") == 2
    assert paths.read(document, "x.y") == 3
    assert paths.read(document, "root_object_id") == "obj"
    assert paths.read(document, "a.z") is paths.ABSENT
    assert paths.write(document, "a.n.m", 5)["a"] == {"b": [1, {"c": 2}], "n": {"m": 5}}
    assert document["a"] == {"b": [1, {"c": 2}]}
