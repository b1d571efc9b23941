"""What stages name of an organization, wherever in a declaration they name it."""

from __future__ import annotations

from typing import Any

import pytest

from mixpeek_operator.core.normal import path_text
from mixpeek_operator.retrieval.registry import StageRegistry

_SCHEMA = {"type": "object", "properties": {"topic": {"type": "string"}}}
_ENRICH = {"stage_id": "agentic_enrich", "parameters": {"system_prompt": "Say what it is.", "output_schema": _SCHEMA}}
_WEB = {"stage_id": "external_web_search", "parameters": {"query": "lamps", "secret_ref": "exa"}}
_ROWS = {"stage_id": "sql_lookup", "parameters": {"connection_id": "stock", "query": "SELECT 1 AS one"}}


def _with(stage: dict[str, Any], **parameters: Any) -> dict[str, Any]:
    return {**stage, "parameters": {**stage["parameters"], **parameters}}


def _joined(*stages: dict[str, Any]) -> dict[str, Any]:
    return {"stage_id": "document_enrich", "parameters": {"retriever_config": {"stages": list(stages)}}}


@pytest.mark.parametrize(
    ("stages", "wanted"),
    [
        ([_WEB, _ROWS], [("exa", "[0].parameters.secret_ref"), ("stock", "[1].parameters.connection_id")]),
        (
            [{"stage_id": "agent_search", "parameters": {"stages": ["llm_filter"], "api_key": "{{secrets.own}}"}}],
            [("own", "[0].parameters.api_key")],
        ),
        (
            [_with(_ENRICH, secret_ref="own", analysis_provider={"provider": "openai", "api_key": "{{secrets.own2}}"})],
            [("own", "[0].parameters.secret_ref"), ("own2", "[0].parameters.analysis_provider.api_key")],
        ),
        (
            [_with(_ENRICH, api_key="${{ secrets.own.2 }}", analysis_provider={"secret_ref": "own"})],
            [("own.2", "[0].parameters.api_key"), ("own", "[0].parameters.analysis_provider.secret_ref")],
        ),
        ([_with(_ENRICH, secret_ref="own")], [("own", "[0].parameters.secret_ref")]),
        (
            [
                _with(
                    _ENRICH,
                    taxonomy_id="t",
                    enabled_tools=["get_taxonomy_categories"],
                    analysis_provider={"secret_ref": "unused"},
                )
            ],
            [],
        ),
        (
            [{"stage_id": "rerank", "parameters": {"query": "lamps", "model": "cohere/rerank-v3.5"}}],
            [("cohere_api_key", "[0].parameters.model")],
        ),
        ([{"stage_id": "rerank", "parameters": {"query": "lamps"}}], []),
        (
            [{"stage_id": "limit"}, _joined(_joined({"config": _ROWS, "stage_name": "rows"}), _WEB)],
            [
                (
                    "stock",
                    "[1].parameters.retriever_config.stages[0].parameters.retriever_config.stages[0].parameters."
                    "connection_id",
                ),
                ("exa", "[1].parameters.retriever_config.stages[1].parameters.secret_ref"),
            ],
        ),
    ],
    ids=["stages", "agent", "analyst", "placeholder", "one model", "tool not enabled", "hosted", "local", "nested"],
)
def test_every_need_is_found_once_with_its_place(stages: list[dict[str, Any]], wanted: list[tuple[str, str]]) -> None:
    registry = StageRegistry()
    problems = registry.check_stages(stages, {})
    assert problems == []
    assert [(need.name, path_text(need.location)) for need in registry.needs(stages)] == [
        (name, f"stages{place}") for name, place in wanted
    ]


def test_what_is_wrong_in_a_nested_retriever_hides_no_need_beside_it() -> None:
    needs = StageRegistry().needs([_joined({"stage_id": "no_such_stage"}, _WEB, "text")])  # type: ignore[arg-type]
    assert [(need.kind, need.name) for need in needs] == [("secret", "exa")]
