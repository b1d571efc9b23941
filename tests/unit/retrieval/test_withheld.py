"""Fields that no cache may hold: answers and outputs of stages are kept without them and found with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.retrieval.conftest import World
from tests.unit.retrieval.test_caching import INPUTS, ask, body, search, stage

from mixpeek_operator.core import ids
from mixpeek_operator.core.directory import NamespaceInfo
from mixpeek_operator.core.errors import BadRequestError, UnavailableError
from mixpeek_operator.ports.vectors import Point
from mixpeek_operator.retrieval.withheld import Withheld

SECRET = "kim@example.com"
CACHE = {"ttl_seconds": 300, "exclude_fields": ["email", "metadata.phone"]}


class Watched:
    """The cache, and all that was ever written into it."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.written = b""

    async def set(self, key: str, value: bytes, *, ttl_s: float) -> None:
        self.written += key.encode() + value
        await self._inner.set(key, value, ttl_s=ttl_s)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@pytest.fixture
async def people(world: World) -> AsyncIterator[World]:
    world.add_collection("people")
    await world.put(
        "people",
        [
            {"document_id": f"p{n}", "title": f"red shoe {n}", "category": "home", "email": f"{n}{SECRET}",
             "metadata": {"phone": f"+1 555 {n}", "rank": n}}
            for n in range(4)
        ],
    )  # fmt: skip
    world.use_cache(Watched(world.cache))
    yield world


def declare(world: World, *stages: dict[str, Any], **cache: Any) -> None:
    world.declare([search(final_top_k=3), *stages], collections=("people",), inputs=INPUTS, cache={**CACHE, **cache})


async def test_an_answer_is_kept_without_them_and_found_with_them(people: World) -> None:
    declare(people)
    first, second = await ask(people), await ask(people)
    assert second.cached_at is not None
    assert body(first)["documents"] == body(second)["documents"] != []
    assert all(SECRET in item["email"] and "555" in item["metadata"]["phone"] for item in body(second)["documents"])
    assert people.cache.written and SECRET.encode() not in people.cache.written and b"555" not in people.cache.written
    assert (first.etag, second.etag) == (None, None), "a client's cache holds it no more than ours"


async def test_the_output_of_a_stage_is_kept_without_them(people: World) -> None:
    declare(people, stage("mmr", top_k=2), cache_stage_names=["feature_search", "mmr"])
    first = await people.retrieval.execute(people.scope, "r", {"inputs": {"query": "red shoe"}})
    await people.retrieval.close()
    second = await people.retrieval.execute(people.scope, "r", {"inputs": {"query": "red shoe"}})
    assert [entry["cache_hit"] for entry in second["stage_statistics"]["stages"].values()] == [True, True]
    assert second["documents"] == first["documents"]
    assert people.cache.written and SECRET.encode() not in people.cache.written


@pytest.mark.parametrize(
    "told",
    [
        stage("json_transform", template='{"who": "{{DOC.email}}"}'),
        stage("json_transform", template='{"all": {{DOC | tojson}}}'),
        stage("group_by", field="email"),
        stage("aggregate", aggregations=[{"function": "max", "field": "email", "alias": "last"}]),
        stage("code_execution", code="def transform(doc): return doc"),
    ],
    ids=lambda item: item["stage_id"],
)
async def test_what_may_tell_them_under_another_name_is_not_kept(people: World, told: dict[str, Any]) -> None:
    declare(people, told, cache_stage_names=["feature_search", told["stage_name"]])
    plan = await people.retrieval.explain(people.scope, "r", {})
    assert plan["cache"]["state"] == "off" and "exclude_fields" in plan["cache"]["reason"]
    rules = (await people.retrieval._pipelines.declared(people.info, "r")).steps
    assert [step.rule.ttl_s for step in rules] == [300, 0]


async def test_stages_that_only_choose_and_order_may_name_them(people: World) -> None:
    chosen = stage("attribute_filter", field="email", operator="eq", value=f"1{SECRET}")
    declare(people, chosen, stage("sort_attribute", field="email"))
    assert [(await ask(people)).cached_at is not None for _ in range(2)] == [False, True]
    assert [item["document_id"] for item in body(await ask(people))["documents"]] == ["p1"]
    assert SECRET.encode() not in people.cache.written


async def test_an_answer_that_holds_them_deeper_is_not_kept(people: World) -> None:
    declare(people, stage("group_by", field="category"))
    assert [(await ask(people)).cached_at for _ in range(2)] == [None, None]
    assert SECRET.encode() not in people.cache.written


async def test_a_document_that_went_meanwhile_is_a_miss(people: World) -> None:
    declare(people)
    await ask(people)
    point = (await people.vectors.scroll(people.info.vector_collection, filter=None, limit=1000)).points
    gone = [item.id for item in point if item.payload.get("document_id") == "p1"]
    await people.vectors.delete_points(people.info.vector_collection, gone)  # and the writer has not said so yet
    answer = await ask(people)
    assert answer.cached_at is None and "p1" not in {item["document_id"] for item in body(answer)["documents"]}


async def test_a_store_that_fails_at_the_last_costs_the_keeping_only(
    people: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*args: Any, **options: Any) -> Any:
        raise UnavailableError("the store is away")

    declare(people)
    monkeypatch.setattr(people.vectors, "get", away)
    answers = [await ask(people), await ask(people)]
    assert [answer.cached_at for answer in answers] == [None, None] and body(answers[0])["documents"]
    monkeypatch.undo()
    assert [(await ask(people)).cached_at is not None for _ in range(2)] == [False, True]


async def test_a_scroll_would_keep_its_result(people: World) -> None:
    declare(people)
    with pytest.raises(BadRequestError, match="exclude_fields"):
        await ask(people, pagination={"method": "scroll", "limit": 1})


JSON = st.recursive(st.none() | st.integers(0, 9) | st.text(max_size=3), lambda inner: st.dictionaries(
    st.sampled_from(["a", "b", "secret"]), inner, max_size=3) | st.lists(inner, max_size=3), max_leaves=8)  # fmt: skip
BODY = st.dictionaries(st.sampled_from(["a", "b", "secret", "other"]), JSON, max_size=4)


class Stored:
    """A store of known documents."""

    def __init__(self, documents: list[dict[str, Any]], namespace_id: str) -> None:
        self._points = {ids.point_id(namespace_id, item["document_id"]): item for item in documents}

    async def get(self, collection: str, point_ids: Sequence[str]) -> list[Point]:
        return [Point(id, {}, self._points[id]) for id in point_ids if id in self._points]


@given(
    st.lists(BODY, max_size=3),
    st.lists(st.sampled_from(["secret", "a", "a.secret", "a.b", "a.b.secret", "other"]), max_size=3),
)
def test_what_comes_back_is_what_was_there_and_what_is_kept_has_none_of_it(
    bodies: list[dict[str, Any]], fields: list[str]
) -> None:
    documents = [{**item, "document_id": f"d{n}"} for n, item in enumerate(bodies)]
    info = NamespaceInfo("ns_1", "shop", "int_1", "ns_1")
    withheld = Withheld(fields, Stored(documents, info.id), info)  # type: ignore[arg-type]

    async def run() -> None:
        taken = await withheld.taken_out(documents)
        if taken is None:
            return
        bare, gaps = orjson.loads(orjson.dumps(taken))
        assert await withheld.put_back(bare, gaps) == documents
        assert not any(withheld._occurs(item) for item in bare)

    asyncio.run(run())
