"""The examples that the catalogue shows of stages that call language models run, with a model that says something."""

from __future__ import annotations

from typing import Any

import mixpeek
import pytest
from tests.servers.language import Asked, Models, Reply, data
from tests.unit.retrieval.stages.running import REGISTRY
from tests.unit.retrieval.stages.test_examples import SEARCH

from mixpeek_operator.api.catalog import stage_discovery

CATEGORIES = {
    "llm_filter": "filter",
    "llm_enrich": "enrich",
    "summarize": "reduce",
    "query_expand": "filter",
    "agent_search": "filter",
    "agentic_enrich": "enrich",
}


def anything(asked: Asked) -> Reply:
    """An answer that fits the schema, if there is one; a search first, where that is possible."""
    if "feature_search" in asked.tools and len(asked.messages) == 1:
        return Reply(calls=[("feature_search", {"query": "lamp"})])
    return data(_value(asked.tools["answer"])) if "answer" in asked.tools else Reply("It is so [1].")


def _value(schema: dict[str, Any]) -> Any:
    match schema.get("type"):
        case "object":
            return {name: _value(inner) for name, inner in schema.get("properties", {}).items()}
        case "array":
            return [_value(schema["items"])]
        case "boolean":
            return True
    return "something"


@pytest.mark.parametrize(
    ("stage_id", "filled"),
    [
        ("llm_filter", mixpeek.StageParamsLlmFilter()),
        ("llm_enrich", mixpeek.StageParamsLlmEnrich()),
        ("summarize", mixpeek.StageParamsSummarize()),
    ],
)
async def test_what_a_client_library_fills_in_is_accepted(
    speaking: Any, models: Models, stage_id: str, filled: Any
) -> None:
    models.script = [anything]
    stage = {"stage_id": stage_id, "parameters": filled.to_dict()}
    answer = await speaking.run([SEARCH, stage], {"inputs": {"query": "a lamp"}})
    assert answer["documents"]
    assert "thing" in models.asked[0].prompt


@pytest.mark.parametrize("stage_id", CATEGORIES)
async def test_the_example_runs(speaking: Any, models: Models, stage_id: str) -> None:
    models.script = [anything]
    example = stage_discovery(REGISTRY.stages()[stage_id])["example_config"]
    assert example["stage_type"] == CATEGORIES[stage_id]
    request = {"inputs": {"query": "a lamp"}}
    for pipeline in ([SEARCH, example], [example]):
        if pipeline == [example] and stage_id not in ("query_expand", "agent_search"):
            pipeline = [{"stage_id": "limit", "parameters": {"limit": 20}}, example]
        answer = await speaking.run(pipeline, request)
        assert answer["status"] == "completed"
        assert answer["documents"]
        assert not answer.get("warnings")
    assert models.asked
    assert {asked.model for asked in models.asked} == {"gpt-4o-mini"}
