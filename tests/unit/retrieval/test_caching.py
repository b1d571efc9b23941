"""What is kept, for how long, found by what, and forgotten when."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from tests.unit.retrieval.conftest import World

from mixpeek_operator.adapters.redis_cache import RedisCache
from mixpeek_operator.core.errors import NotFoundError, SpecError, UnavailableError
from mixpeek_operator.core.listing import ListQuery
from mixpeek_operator.retrieval.query import Asked
from mixpeek_operator.retrieval.registry import StageRegistry
from mixpeek_operator.retrieval.wire import Answer

URI = "mixpeek://text_extractor@v1/text_embedding"


def stage(id: str, name: str = "", **parameters: Any) -> dict[str, Any]:
    return {"stage_id": id, "stage_name": name or id, "parameters": parameters}


def search(**parameters: Any) -> dict[str, Any]:
    query = {"input_mode": "text", "value": "{{INPUT.query}}"}
    return stage("feature_search", searches=[{"feature_uri": URI, "query": query}], **parameters)


INPUTS = {"query": {"type": "text"}, "most": {"type": "number"}}
SAMPLE = stage("sample", count=1)


async def ask(world: World, name: str = "r", **request: Any) -> Answer:
    given = {"inputs": {"query": "red shoe"}, **request}
    answer = await world.retrieval.answer(world.scope, name, given)
    assert orjson.loads(answer.body)["execution_id"] == answer.execution_id
    return answer


def body(answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(answer.body)
    return found


async def test_a_body_that_comes_again_is_another_query_of_another_retriever(world: World) -> None:
    world.declare([search(), stage("limit", limit=1)], inputs=INPUTS)
    world.declare([search(), stage("limit", limit=2)], name="two", inputs=INPUTS)
    again = Asked({"inputs": {"query": "red shoe"}})

    async def count(name: str) -> tuple[int, bool]:
        answer = await world.retrieval.answer(world.scope, name, again)
        return len(body(answer)["documents"]), answer.cached_at is not None

    assert [await count(name) for name in ("r", "two", "r", "two")] == [(1, False), (2, False), (1, True), (2, True)]
    world.declare([search(), stage("limit", limit=3)], inputs=INPUTS)
    assert await count("r") == (3, False)


async def test_executions_of_one_body_share_no_input(world: World) -> None:
    world.declare([search()], inputs=INPUTS, cache={"enabled": False})
    inputs = {"query": "red shoe", "vector": [0.5, 1], "deep": {"list": [{"a": 1}]}, "mixed": ["x", [1]]}
    again = Asked({"inputs": inputs})
    await world.retrieval.answer(world.scope, "r", again)
    query = again.query
    assert query is not None
    own = query.own().inputs
    assert own == query.inputs == inputs
    own["vector"].append(2)
    own["deep"]["list"][0]["a"] = 2
    own["mixed"][1].append(2)
    assert query.inputs == {"query": "red shoe", "vector": [0.5, 1], "deep": {"list": [{"a": 1}]}, "mixed": ["x", [1]]}


async def test_an_equal_request_is_answered_with_what_is_kept(world: World) -> None:
    world.declare([search()], inputs=INPUTS)
    first, second = await ask(world), await ask(world)
    assert (first.cached_at, body(first)["cached_at"]) == (None, None)
    assert second.cached_at is not None and body(second)["cached_at"] == second.cached_at
    assert first.etag == second.etag and first.ttl_s == second.ttl_s == 3600
    assert first.execution_id != second.execution_id
    same = ("documents", "pagination", "stage_statistics", "budget", "status")
    assert [body(first)[name] for name in same] == [body(second)[name] for name in same]
    history = await world.retrieval.executions(world.scope, "r", ListQuery())
    assert {item["execution_id"]: item["answer_cache"] for item in history.items} == {
        first.execution_id: "miss",
        second.execution_id: "hit",
    }


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": {"query": "blue shoe"}},
        {"filters": {"field": "category", "operator": "eq", "value": "audio"}},
        {"limit": 1},
        {"pagination": {"method": "offset", "page_size": 1, "page_number": 2}},
        {"return_vectors": True},
        {"return_urls": True},
        {"skip_cache": True},
    ],
)
async def test_what_changes_the_answer_misses(world: World, change: dict[str, Any]) -> None:
    world.declare([search()], inputs=INPUTS)
    first = await ask(world)
    assert (await ask(world, **change)).cached_at is None
    assert (await ask(world)).cached_at is not None
    if "skip_cache" in change:
        assert (await ask(world)).etag != first.etag, "the fresh answer is the one that is kept then"
    else:
        assert (await ask(world, **change)).cached_at is not None


@pytest.mark.parametrize(
    ("stages", "cache", "ttl_s"),
    [
        ([search()], {}, 3600),
        ([search()], {"enabled": True, "ttl_seconds": 300}, 300),
        ([search()], {"enabled": False}, 0),
        ([search()], {"ttl_seconds": 0}, 0),
        ([search(cache_behavior="disabled")], {"ttl_seconds": 300}, 0),
        ([search(cache_behavior="auto", cache_ttl_seconds=600)], {}, 3600),
        ([search(), SAMPLE], {}, 0),
        ([search(), SAMPLE], {"ttl_seconds": 300}, 300),
        ([search(), stage("sample", count=1, cache_behavior="aggressive")], {}, 3600),
        ([search(), stage("sample", count=1, cache_behavior="aggressive", cache_ttl_seconds=60)], {}, 60),
        ([search(), stage("sample", count=1, seed=3)], {}, 3600),
        ([search(), stage("group_by", field="category")], {}, 3600),
        ([search(), stage("group_by", field="category", sort_docs_by="_random")], {}, 0),
        ([search(), stage("group_by", field="category", sort_docs_by="_random", seed=3)], {}, 3600),
        ([search(), stage("limit", limit="{{CONTEXT.budget_remaining > 5 ? 2 : 1}}")], {}, 0),
        ([search(), stage("limit", limit="{{STAGE.feature_search.count}}")], {}, 3600),
        ([search(), stage("limit", limit="{{STAGE.feature_search.duration_ms > 5 ? 2 : 1}}")], {}, 0),
    ],
)
async def test_what_is_kept_and_how_long(world: World, stages: list[Any], cache: dict[str, Any], ttl_s: float) -> None:
    world.declare(stages, inputs=INPUTS, cache=cache, budget={"max_credits": 100})
    answers = [await ask(world), await ask(world)]
    assert [answer.ttl_s for answer in answers] == [ttl_s, ttl_s]
    assert (answers[1].cached_at is not None) == (ttl_s > 0)
    assert (answers[0].etag is None) == (ttl_s == 0)


async def test_every_event_of_the_table_makes_it_miss(world: World) -> None:
    world.declare([search()], inputs=INPUTS)

    async def missed() -> bool:
        found = (await ask(world)).cached_at is None
        assert (await ask(world)).cached_at is not None
        return found

    assert await missed()
    await world.put("products", [{"document_id": "new", "title": "red shoe"}])  # ingestion completes
    assert await missed()
    world.declare([search()], inputs=INPUTS)  # the declaration changes
    assert await missed()
    cleared = await world.retrieval.clear_cache(world.scope, "r")
    assert cleared["success"] and cleared["deleted_count"] > 0
    assert await missed()
    # Deletions of the resources themselves: kinds/*/client.py forget by these prefixes.
    await world.cache.delete_prefix(f"{world.info.id}:retriever:ret_r:")
    assert await missed()
    await world.cache.delete_prefix(world.info.id)
    assert await missed()
    with pytest.raises(NotFoundError):
        await world.retrieval.clear_cache(world.scope, "nobody")


async def test_a_hundred_equal_queries_compute_once(world: World) -> None:
    world.declare([search()], inputs=INPUTS)
    answers = await asyncio.gather(*(ask(world) for _ in range(100)))
    assert sum(answer.cached_at is None for answer in answers) == 1
    assert len(world.inference.calls) == 1
    assert len({answer.execution_id for answer in answers}) == 100
    assert len({orjson.dumps(body(answer)["documents"]) for answer in answers}) == 1


async def test_who_leaves_does_not_take_the_others_along(world: World) -> None:
    world.declare([search()], inputs=INPUTS)
    tasks = [asyncio.create_task(ask(world)) for _ in range(5)]
    for _ in range(3):
        await asyncio.sleep(0)
    tasks[0].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert all(isinstance(answer, Answer) and body(answer)["documents"] for answer in answers[1:])


async def test_a_failure_is_everybodys_and_is_not_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.declare([search()], inputs=INPUTS)

    async def broken(*_: Any, **__: Any) -> Any:
        raise UnavailableError("the model is away")

    with monkeypatch.context() as patched:
        patched.setattr(world.inference, "embed", broken)
        failed = await asyncio.gather(*(ask(world) for _ in range(5)), return_exceptions=True)
        assert all(isinstance(error, UnavailableError) for error in failed)
    assert (await ask(world)).cached_at is None


async def test_a_degraded_answer_is_not_kept(world: World) -> None:
    stages = [search(), stage("limit", limit="{{INPUT.most}}")]
    stages[1]["on_error"] = "skip"
    world.declare(stages, inputs=INPUTS)
    for _ in range(2):
        answer = await ask(world, inputs={"query": "a", "most": -1})
        assert (answer.cached_at, answer.etag, body(answer)["status"]) == (None, None, "degraded")


async def test_a_stage_is_found_by_what_it_depends_on_alone(world: World) -> None:
    stages = [search(), stage("limit", limit="{{INPUT.most}}")]
    world.declare(stages, inputs=INPUTS)

    async def hits(**request: Any) -> list[bool]:
        await asyncio.sleep(0)  # outputs are kept behind the answer
        found = body(await ask(world, **request))["stage_statistics"]["stages"]
        return [found[name]["cache_hit"] for name in ("feature_search", "limit")]

    assert await hits(inputs={"query": "red", "most": 2}) == [False, False]
    whole = body(await ask(world, inputs={"query": "red", "most": 2}))
    assert await hits(inputs={"query": "red", "most": 1}) == [True, False], "the search does not use `most`"
    assert await hits(inputs={"query": "red", "most": 2}, limit=1) == [True, False]
    assert await hits(inputs={"query": "blue", "most": 2}) == [False, False]
    assert await hits(inputs={"query": "red", "most": 1}, skip_cache=True) == [False, False]
    by_category = {"field": "category", "operator": "eq", "value": "audio"}
    assert await hits(inputs={"query": "red", "most": 2}, filters=by_category) == [False, False]
    fresh = await world.retrieval.execute(world.scope, "r", {"inputs": {"query": "red", "most": 2}, "skip_cache": True})
    assert fresh["documents"] == whole["documents"]
    await world.put("products", [{"document_id": "new", "title": "red"}])
    assert await hits(inputs={"query": "red", "most": 1}) == [False, False]


@pytest.mark.parametrize(
    ("parameters", "cache", "kept"),
    [
        ({}, {}, False),
        ({"cache_behavior": "auto"}, {}, True),
        ({"cache_ttl_seconds": 60}, {}, True),
        ({"cache_ttl_seconds": 0}, {}, False),
        ({"cache_behavior": "disabled"}, {"cache_stage_names": ["limit"]}, False),
        ({}, {"cache_stage_names": ["limit"]}, True),
        ({"cache_behavior": "aggressive"}, {"enabled": False}, False),
    ],
)
async def test_which_stages_are_kept(
    world: World, parameters: dict[str, Any], cache: dict[str, Any], kept: bool
) -> None:
    world.declare([search(), stage("limit", limit=2, **parameters)], inputs=INPUTS, cache=cache)
    for expected in (False, kept):
        found = await world.retrieval.execute(world.scope, "r", {"inputs": {"query": "red"}})
        assert found["stage_statistics"]["stages"]["limit"]["cache_hit"] == expected
        await asyncio.sleep(0)
    at = found["stage_statistics"]["stages"]["limit"]["cached_at"]
    assert isinstance(at, float) == kept


async def test_behind_chance_a_stage_is_found_by_the_documents_themselves(world: World) -> None:
    stages = [search(), stage("sample", count=2), stage("limit", limit=2, cache_behavior="auto")]
    world.declare(stages, inputs=INPUTS)
    for _ in range(12):
        found = await world.retrieval.execute(world.scope, "r", {"inputs": {"query": "red"}})
        await asyncio.sleep(0)
        fresh = [item["document_id"] for item in found["documents"]]
        assert len(fresh) == 2 == len(set(fresh))


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A Redis that takes every connection and never says anything."""
    await reader.read()
    writer.close()


@pytest.mark.parametrize("slow", [False, True], ids=["away", "silent"])
async def test_a_cache_that_is_away_or_slow_fails_no_query(world: World, slow: bool) -> None:
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    if not slow:
        server.close()
        await server.wait_closed()
    cache = RedisCache(f"redis://127.0.0.1:{port}/0", timeout_s=0.05)
    world.use_cache(cache)
    world.declare([search()], inputs=INPUTS)
    try:
        for _ in range(3):
            answer = await ask(world)
            assert body(answer)["documents"] and answer.cached_at is None
        many = await asyncio.gather(*(ask(world) for _ in range(20)))
        assert all(body(answer)["documents"] for answer in many)
        cleared = await world.retrieval.clear_cache(world.scope, "r")
        assert (cleared["success"], cleared["deleted_count"]) == (True, None)
    finally:
        await world.retrieval.close()
        await cache.close()
        if slow:
            server.close()


class Forgetful:
    """A cache whose deletions come to nothing, as of a Redis that is away at that moment."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def delete_prefix(self, prefix: str) -> int:
        raise UnavailableError("away")


async def test_what_was_to_be_forgotten_is_not_found_even_if_it_was_not_deleted(world: World) -> None:
    world.use_cache(Forgetful(world.cache))
    world.declare([search()], inputs=INPUTS)
    assert [(await ask(world)).cached_at is None for _ in range(2)] == [True, False]
    await world.retrieval.clear_cache(world.scope, "r")
    assert (await ask(world)).cached_at is None


async def test_wrong_requests_are_refused_whatever_is_kept(world: World) -> None:
    world.declare([search()], inputs=INPUTS)
    await ask(world)
    with pytest.raises(SpecError):
        await ask(world, inputs={"query": 3, "most": "x"})
    assert StageRegistry().check_stages([stage("limit", limit=1, cache_behavior="sometimes")], {})


def test_every_stage_takes_the_parameters_of_caching() -> None:
    names: Sequence[str] = ("cache_behavior", "cache_ttl_seconds")
    for item in StageRegistry().catalog():
        assert all(name in item["parameter_schema"]["properties"] for name in names), item["stage_id"]
