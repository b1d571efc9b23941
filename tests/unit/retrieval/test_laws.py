"""Laws of retrieval over made-up documents and filters, on the real vector store."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixpeek_operator.core.filters import matches, parse

URI = "mixpeek://text_extractor@v1/text_embedding"
LAWS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

NUMBERS = st.integers(-3, 3) | st.sampled_from([0.5, -1.5, 2.0, 2**53, 1e-9])
WORDS = st.sampled_from(["", "a", "A", "ab", "b", "Ba", "é", "a b", "2026-01-02", "true", "1"])
SCALARS = NUMBERS | WORDS | st.booleans() | st.none()
VALUES = SCALARS | st.lists(SCALARS, max_size=3)
FIELDS = ["x", "y", "category", "price", "o.p", "items.k"]
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "x": VALUES,
        "y": VALUES,
        "category": WORDS,
        "price": NUMBERS,
        "o": st.fixed_dictionaries({}, optional={"p": VALUES}) | SCALARS,
        "items": st.lists(st.fixed_dictionaries({}, optional={"k": SCALARS}), max_size=2),
    },
)
CONDITIONS = st.one_of(
    st.builds(
        lambda field, operator, value: {"field": field, "operator": operator, "value": value},
        st.sampled_from(FIELDS),
        st.sampled_from(["eq", "ne"]),
        SCALARS,
    ),
    st.builds(
        lambda field, operator, value: {"field": field, "operator": operator, "value": value},
        st.sampled_from(FIELDS),
        st.sampled_from(["gt", "gte", "lt", "lte"]),
        NUMBERS,
    ),
    st.builds(
        lambda field, operator, value: {"field": field, "operator": operator, "value": value},
        st.sampled_from(FIELDS),
        st.sampled_from(["in", "nin"]),
        st.lists(NUMBERS | WORDS, max_size=3),
    ),
    st.builds(
        lambda field, operator, value, fold: {
            "field": field, "operator": operator, "value": value, "case_insensitive": fold,
        },
        st.sampled_from(FIELDS),
        st.sampled_from(["contains", "starts_with", "ends_with", "regex"]),
        st.sampled_from(["a", "A", "b", "é"]),
        st.booleans(),
    ),
    st.builds(
        lambda field, value: {"field": field, "operator": "exists", "value": value},
        st.sampled_from(FIELDS),
        st.booleans(),
    ),
)  # fmt: skip
FILTERS = st.recursive(
    CONDITIONS,
    lambda inner: st.builds(
        lambda join, parts: {join: parts},
        st.sampled_from(["AND", "OR", "NOT"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=5,
)
SEARCH = {
    "stage_name": "search",
    "stage_id": "feature_search",
    "parameters": {
        "searches": [{"feature_uri": URI, "query": {"input_mode": "text", "value": "abc"}, "top_k": 100}],
        "final_top_k": 100,
    },
}


async def _store(world: Any, bodies: list[dict[str, Any]]) -> str:
    """A fresh collection with these documents; several of them with the same vector, so with the same score."""
    name = f"law{len(world.declared)}"
    world.add_collection(name)
    titled = [{**body, "document_id": f"{name}_{n}", "title": "abcd"[n % 4]} for n, body in enumerate(bodies)]
    await world.put(name, titled)
    return name


def _conditions(filter: dict[str, Any]) -> dict[str, Any]:
    return {"AND": [filter]} if "field" in filter else filter


def _ids(answer: dict[str, Any]) -> list[str]:
    return [document["document_id"] for document in answer["documents"]]


@given(bodies=st.lists(BODIES, max_size=12), filter=FILTERS)
@LAWS
async def test_a_filter_means_the_same_wherever_it_is_evaluated(
    world: Any, bodies: list[dict[str, Any]], filter: dict[str, Any]
) -> None:
    name = await _store(world, bodies)
    everything = await world.run([SEARCH], name=name, collections=[name])
    tree = parse(filter)
    expected = [item["document_id"] for item in everything["documents"] if matches(tree, item)]
    behind = {
        "stage_name": "keep",
        "stage_id": "attribute_filter",
        "parameters": {"conditions": _conditions(filter)},
    }
    pushed = await world.run([SEARCH, behind], name=name, collections=[name])
    assert _ids(pushed) == expected
    assert pushed["stage_statistics"]["stages"]["keep"]["metadata"] == {"pushed_down": True}
    assert _ids(await world.run([behind, SEARCH], name=name, collections=[name])) == expected
    # Between them a stage that nothing can move across: the filter looks at the documents themselves.
    sort = {"stage_name": "sort", "stage_id": "sort_relevance", "parameters": {}}
    assert _ids(await world.run([SEARCH, sort, behind], name=name, collections=[name])) == expected
    alone = await world.run([behind], name=name, collections=[name])
    assert sorted(_ids(alone)) == sorted(expected)


def _next(method: str, info: dict[str, Any]) -> dict[str, Any] | None:
    """The continuation of a page as a client sends it, None on the last page."""
    if not info["has_next"]:
        return None
    if method == "offset":
        return {"page_number": info["page_number"] + 1}
    names = {"cursor": ("cursor", "next_cursor"), "scroll": ("scroll_id", "scroll_id"), "keyset": ("after", "after")}
    key, source = names[method]
    return {key: info[source]}


@pytest.mark.parametrize("method", ["offset", "cursor", "scroll", "keyset"])
@given(
    bodies=st.lists(BODIES, max_size=14),
    size=st.integers(1, 6),
    sort=st.sampled_from([None, ("x", "asc"), ("x", "desc"), ("price", "desc"), ("o.p", "asc")]),
)
@settings(LAWS, max_examples=25)
async def test_pages_enumerate_the_answer_once(
    world: Any, method: str, bodies: list[dict[str, Any]], size: int, sort: tuple[str, str] | None
) -> None:
    name = await _store(world, bodies)
    stages: list[dict[str, Any]] = [SEARCH]
    if sort is not None:
        parameters = {"field": sort[0], "direction": sort[1]}
        stages.append({"stage_name": "sort", "stage_id": "sort_attribute", "parameters": parameters})
    whole = _ids(await world.run(stages, name=name, collections=[name]))
    assert len(whole) == len(bodies) == len(set(whole))
    key = "page_size" if method == "offset" else "limit"
    found: list[str] = []
    more: dict[str, Any] | None = {}
    while more is not None:
        request = {"pagination": {"method": method, key: size, **more}}
        answer = await world.retrieval.execute(world.scope, name, request)
        found += _ids(answer)
        assert answer["pagination"]["total"] == len(whole)
        assert len(found) <= len(whole), "a page repeats what was shown"
        more = _next(method, answer["pagination"])
    assert found == whole
