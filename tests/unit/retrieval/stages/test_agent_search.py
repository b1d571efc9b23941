"""`agent_search`: scripted models call the real stages on the real store."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from tests.servers.language import Asked, Models, Reply, data
from tests.unit.retrieval.stages.running import refused

from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.retrieval.stages import agent_search

QUERY = {"inputs": {"query": "loud things under 50"}, "limit": 100}


def stage(**parameters: Any) -> dict[str, Any]:
    return {"stage_id": "agent_search", "parameters": parameters}


def call(name: str, **arguments: Any) -> Reply:
    return Reply(calls=[(name, arguments)])


DONE = Reply("These answer it.")


def facts(answer: dict[str, Any]) -> dict[str, Any]:
    return dict(answer["stage_statistics"]["stages"]["agent_search"]["metadata"])


@pytest.mark.parametrize("provider", ["openai", "anthropic", "google"])
async def test_search_then_narrow(speaking: Any, models: Models, provider: str) -> None:
    models.script = [
        call("feature_search", query="radio", top_k=30),
        call("attribute_filter", field="price", operator="lt", value=50),
        DONE,
    ]
    answer = await speaking.run([stage(provider=provider)], QUERY)
    search = {
        "searches": [{"feature_uri": "mixpeek://text_extractor@v1/text_embedding", "query": "radio", "top_k": 30}],
        "final_top_k": 30,
    }
    plain = await speaking.run([{"stage_id": "feature_search", "parameters": search}], QUERY)
    expected = [item["document_id"] for item in plain["documents"] if item["price"] < 50]
    assert [item["document_id"] for item in answer["documents"]] == expected
    told = facts(answer)
    assert (told["strategy"], told["iterations_used"], told["timeout_hit"]) == ("iterative_refinement", 3, False)
    assert [made["tool"] for made in told["stages_invoked"]] == ["feature_search", "attribute_filter"]
    assert told["conclusion"] == "These answer it."
    assert told["model_used"].startswith(f"{provider}:")
    assert answer["budget"]["credits_used"] == pytest.approx(1 + told["total_llm_cost"], abs=1e-5)
    first, second, third = models.asked
    assert "loud things under 50" in first.prompt
    assert first.tools.keys() == {"feature_search", "attribute_filter"}
    observed = json.loads(second.messages[-1][1])
    assert observed["count"] == 30
    assert len(observed["first"]) == 10
    assert json.loads(third.messages[-1][1])["count"] == len(expected)
    assert "_internal" not in str(observed)


async def test_multi_hop_keeps_what_it_found(speaking: Any, models: Models) -> None:
    models.script = [
        call("feature_search", query="lamp", top_k=3),
        call("feature_search", query="bottle", top_k=3, keep_results=True),
        DONE,
    ]
    answer = await speaking.run([stage(strategy="multi_hop")], QUERY)
    ids = [item["document_id"] for item in answer["documents"]]
    assert 3 < len(ids) == len(set(ids)) <= 6
    assert models.asked[0].tools.keys() == {"feature_search", "attribute_filter", "llm_filter"}
    assert "lead to each other" in models.asked[0].system


async def test_tree_navigation_goes_down_level_by_level(speaking: Any, models: Models) -> None:
    tree = [
        {"document_id": "root", "title": "animals", "path": ""},
        {"document_id": "cats", "title": "cats", "path": "root"},
        {"document_id": "lion", "title": "lion", "path": "cats"},
        {"document_id": "dogs", "title": "dogs", "path": "root"},
    ]
    await speaking.put("suppliers", tree)
    models.script = [
        call("attribute_filter", field="path", operator="eq", value="root", of="all"),
        call("attribute_filter", field="path", operator="eq", value="cats", of="all"),
        DONE,
    ]
    answer = await speaking.run([stage(strategy="tree_navigation")], QUERY, collections=("suppliers",))
    assert [item["document_id"] for item in answer["documents"]] == ["lion"]
    assert json.loads(models.asked[1].messages[-1][1])["count"] == 2


async def test_custom_with_other_models_as_tools(speaking: Any, models: Models) -> None:
    def judge(asked: Asked) -> Reply:
        if "answer" in asked.tools:
            return data({name: {"keep": name == "document_1"} for name in asked.tools["answer"]["properties"]})
        return next(turns)

    turns = iter([call("feature_search", query="lamp", top_k=4), call("llm_filter", criteria="the best one"), DONE])
    models.script = [judge]
    await speaking.secrets.create("int_test", "mine", "sk-mine")
    parameters = {
        "strategy": "custom",
        "stages": ["feature_search", "llm_filter", "sort_attribute"],
        "system_prompt": "Find for {{INPUT.query}}.",
        "provider": "anthropic",
        "api_key": "{{secrets.mine}}",
    }
    answer = await speaking.run([stage(**parameters)], QUERY)
    assert len(answer["documents"]) == 1
    assert models.asked[0].system.startswith("Find for loud things under 50.")
    assert {(asked.provider, asked.key) for asked in models.asked} == {("anthropic", "sk-mine")}


async def test_a_tool_that_fails_is_told_and_the_search_goes_on(speaking: Any, models: Models) -> None:
    models.script = [
        call("feature_search", query="lamp {{INPUT.query}}"),
        call("attribute_filter", field="price", operator="in", value={"a": 1}),
        call("feature_search", query="lamp", top_k=2),
        DONE,
    ]
    answer = await speaking.run([stage()], QUERY)
    assert len(answer["documents"]) == 2
    first = facts(answer)["stages_invoked"][0]
    assert "braces" in first["error"]
    assert models.asked[1].messages[-1][1].startswith("error: ")


async def test_turns_end_with_what_there_is(speaking: Any, models: Models) -> None:
    models.script = [call("feature_search", query="lamp", top_k=2)]
    answer = await speaking.run([stage(max_iterations=2)], QUERY)
    assert len(answer["documents"]) == 2
    assert len(models.asked) == 2
    assert "these are the results so far" in answer["warnings"][0]


async def test_time_ends_it_with_what_there_is(speaking: Any, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, limits, over = asyncio.get_running_loop(), list[asyncio.Timeout](), threading.Event()

    def limit(seconds: float) -> asyncio.Timeout:
        limits.append(asyncio.timeout(600))
        return limits[-1]

    def slow(asked: Asked) -> Reply:
        loop.call_soon_threadsafe(limits[0].reschedule, loop.time())
        over.wait(60)
        return DONE

    monkeypatch.setattr(agent_search, "asyncio", SimpleNamespace(timeout=limit))
    models.script = [call("feature_search", query="lamp", top_k=2), slow]
    try:
        answer = await speaking.run([stage(timeout_seconds=5)], QUERY)
    finally:
        over.set()
    assert len(answer["documents"]) == 2
    assert facts(answer)["timeout_hit"] is True
    assert "the time is over" in answer["warnings"][0]


async def test_the_budget_ends_it(speaking: Any, models: Models) -> None:
    dear = call("feature_search", query="lamp", top_k=2)
    dear.tokens = (10_000_000, 0)
    models.script = [dear]
    answer = await speaking.run([stage()], QUERY, budget={"max_credits": 50})
    assert len(models.asked) == 1
    assert len(answer["documents"]) == 2


async def test_filters_of_the_request_hold_for_every_tool(speaking: Any, models: Models) -> None:
    audio = {"field": "category", "operator": "eq", "value": "audio"}
    models.script = [
        call("feature_search", query="lamp", top_k=50),
        call("attribute_filter", field="price", operator="gt", value=0, of="all"),
        DONE,
    ]
    answer = await speaking.run([stage()], {**QUERY, "filters": audio})
    assert len(answer["documents"]) == sum(item["category"] == "audio" for item in speaking.products)
    assert {item["category"] for item in answer["documents"]} == {"audio"}


async def test_behind_another_stage_it_searches_what_that_found(speaking: Any, models: Models) -> None:
    cheap = {"stage_id": "attribute_filter", "parameters": {"field": "price", "operator": "lt", "value": 60}}
    sort = {"stage_id": "sort_attribute", "parameters": {"sort_field": "price"}}
    models.script = [
        call("feature_search", query="lamp", top_k=100),
        call("attribute_filter", field="price", operator="gte", value=0, of="all"),
        DONE,
    ]
    answer = await speaking.run([cheap, sort, stage()], QUERY)
    assert len(answer["documents"]) == sum(item["price"] < 60 for item in speaking.products)


async def test_without_a_feature_there_is_nothing_to_search(speaking: Any, models: Models) -> None:
    speaking.declared["plain"] = replace(speaking.declared["suppliers"], id="col_plain", name="plain", features=())
    with pytest.raises(SpecError, match="no feature to search by"):
        await speaking.run([stage()], QUERY, collections=("plain",))
    assert not models.asked


def test_what_is_refused_when_it_is_declared() -> None:
    refused("agent_search", {"stages": ["feature_serch"]}, "no tools: feature_serch")
    for leaves_the_machine in ("api_call", "web_scrape", "code_execution", "document_enrich", "agent_search"):
        refused("agent_search", {"stages": [leaves_the_machine]}, "no tools")
    refused("agent_search", {"strategy": "custom"}, "needs stages and system_prompt")
    refused("agent_search", {"max_iterations": 21}, "less than or equal to 20")
