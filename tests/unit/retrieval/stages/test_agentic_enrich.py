"""`agentic_enrich`: scripted models look things up in the real store, document by document."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.servers.language import Asked, Models, Reply, data
from tests.unit.retrieval.stages.running import refused

from mixpeek_operator.core.directory import TaxonomyInfo, TaxonomyLevel
from mixpeek_operator.core.errors import RefusedError, SpecError

TWO = {"stage_id": "limit", "parameters": {"limit": 2}}
SCHEMA = {"type": "object", "properties": {"topic": {"type": "string"}}, "required": ["topic"]}
ANSWER = data({"topic": "lamps"})


def stage(**parameters: Any) -> dict[str, Any]:
    own = {"system_prompt": "Classify {{DOC.title}}.", "output_schema": SCHEMA, "output_field": "topic"}
    return {"stage_id": "agentic_enrich", "parameters": {**own, **parameters}}


def facts(answer: dict[str, Any]) -> dict[str, Any]:
    return dict(answer["stage_statistics"]["stages"]["agentic_enrich"]["metadata"])


def by_turn(*replies: Reply) -> Any:
    """A model whose answer depends on how many results of tools it has seen."""

    def answer(asked: Asked) -> Reply:
        return replies[min(sum(role == "tool" for role, _ in asked.messages), len(replies) - 1)]

    return answer


@pytest.mark.parametrize("provider", ["openai", "anthropic", "google"])
async def test_it_looks_things_up_and_answers(speaking: Any, models: Models, provider: str) -> None:
    level = TaxonomyLevel("col_suppliers", "suppliers", None, None, (), None)
    speaking.taxonomies["kinds"] = TaxonomyInfo("tax_1", "kinds", False, (level,), None, "/")
    models.script = [
        by_turn(
            Reply(calls=[("get_taxonomy_categories", {})]),
            Reply(calls=[("query_examples", {"query": "lamp {{x}}", "limit": 3})]),
            ANSWER,
        )
    ]
    parameters = {"provider": provider, "taxonomy_id": "kinds", "example_collection_ids": ["products"]}
    answer = await speaking.run([TWO, stage(**parameters)])
    assert [item["topic"] for item in answer["documents"]] == [{"topic": "lamps"}] * 2
    told = facts(answer)
    assert (told["documents_enriched"], told["documents_skipped"], told["conditional"]) == (2, 0, False)
    assert [trace["turns"] for trace in told["reasoning_traces"]] == [3, 3]
    assert told["total_tokens_input"] == 600
    first = models.asked[0]
    assert first.tools.keys() == {"get_taxonomy_categories", "query_examples", "analyze_content", "answer"}
    assert {asked.system.split("\n")[0] for asked in models.asked} == {
        f"Classify {item['title']}." for item in answer["documents"]
    }
    last = max(models.asked, key=lambda asked: len(asked.messages))
    categories, examples = (json.loads(text) for role, text in last.messages if role == "tool")
    assert categories[0]["level"] == "suppliers"
    assert "Supplier 1" in str(categories[0]["categories"])
    assert len(examples) == 3
    assert "_internal" not in str(categories) + str(examples)


async def test_another_model_analyzes(speaking: Any, models: Models) -> None:
    await speaking.secrets.create("int_test", "other", "sk-other")

    def reply(asked: Asked) -> Reply:
        if asked.provider == "google":
            return Reply("It shows a lamp.")
        return by_turn(Reply(calls=[("analyze_content", {"instruction": "What is it?"})]), ANSWER)(asked)

    models.script = [reply]
    analyst = {"provider": "google", "model_name": "gemini-2.5-pro", "api_key": "{{secrets.other}}"}
    await speaking.run([TWO, stage(provider="anthropic", analysis_provider=analyst, max_concurrency=1)])
    asked = models.asked[1]
    assert (asked.provider, asked.model, asked.key) == ("google", "gemini-2.5-pro", "sk-other")
    assert asked.prompt.startswith("What is it?")
    assert models.asked[2].messages[-1] == ("tool", "It shows a lamp.")


async def test_the_last_turn_has_no_tools(speaking: Any, models: Models) -> None:
    def reply(asked: Asked) -> Reply:
        if not asked.tools:
            # Only the analyst is asked without any.
            return Reply("a lamp")
        if "analyze_content" in asked.tools:
            return Reply(calls=[("analyze_content", {"instruction": "?"})])
        return ANSWER

    models.script = [reply]
    answer = await speaking.run([TWO, stage(max_turns=2)])
    assert [item["topic"] for item in answer["documents"]] == [{"topic": "lamps"}] * 2
    assert [trace["turns"] for trace in facts(answer)["reasoning_traces"]] == [2, 2]


async def test_no_answer_that_fits_is_null_and_said(speaking: Any, models: Models) -> None:
    models.script = [data({"topic": 7})]
    answer = await speaking.run([TWO, stage()])
    assert [item["topic"] for item in answer["documents"]] == [None, None]
    assert "no answer for doc_" in answer["warnings"][0]


async def test_a_refused_key_fails_the_stage(speaking: Any, models: Models) -> None:
    models.script = [Reply(status=401)]
    with pytest.raises(RefusedError, match="refused the key"):
        await speaking.run([TWO, stage()])


async def test_a_tool_that_fails_is_told(speaking: Any, models: Models) -> None:
    models.script = [by_turn(Reply(calls=[("get_taxonomy_categories", {})]), ANSWER)]
    answer = await speaking.run([TWO, stage(taxonomy_id="nowhere")])
    assert [item["topic"] for item in answer["documents"]] == [{"topic": "lamps"}] * 2
    assert facts(answer)["reasoning_traces"][0]["calls"][0]["error"]


async def test_only_documents_that_satisfy_when(speaking: Any, models: Models) -> None:
    models.script = [ANSWER]
    when = {"field": "category", "operator": "eq", "value": "audio"}
    twenty = {"stage_id": "limit", "parameters": {"limit": 20}}
    answer = await speaking.run([twenty, stage(when=when)], {"limit": 20})
    assert all(("topic" in item) == (item["category"] == "audio") for item in answer["documents"])
    told = facts(answer)
    assert told["documents_enriched"] + told["documents_skipped"] == 20
    assert told["conditional"] is True


async def test_examples_have_to_be_somewhere(speaking: Any, models: Models) -> None:
    with pytest.raises(SpecError, match="no collection 'nowhere'"):
        await speaking.run([TWO, stage(example_collection_ids=["nowhere"])])
    assert not models.asked


def test_what_is_refused_when_it_is_declared() -> None:
    own = {"system_prompt": "s", "output_schema": SCHEMA}
    refused("agentic_enrich", {"system_prompt": "s"}, "'output_schema' is required")
    refused("agentic_enrich", {**own, "output_schema": {"topic": 1}}, "JSON schema")
    refused("agentic_enrich", {**own, "enabled_tools": ["query_examples"]}, "needs example_collection_ids")
    refused("agentic_enrich", {**own, "enabled_tools": ["shell"]}, "get_taxonomy_categories")
    refused("agentic_enrich", {**own, "analysis_provider": {"api_key": "sk-plain"}}, "api_key names a secret")
    refused("agentic_enrich", {**own, "max_concurrency": 6}, "less than or equal to 5")
