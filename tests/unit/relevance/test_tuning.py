"""Each recommendation is made for its reason, and not without it."""

from __future__ import annotations

from typing import Any

import pytest

from mixpeek_operator.core.directory import RetrieverInfo
from mixpeek_operator.relevance.tuning import Observed, performance, recommendations
from mixpeek_operator.retrieval.registry import StageRegistry

URI = "mixpeek://text_extractor@v1/text_embedding"
SEARCH = {"feature_uri": URI, "query": "{{INPUT.query}}"}


def observed(
    positions: list[int], *, shown: int = 10, stages: Any = None, cache: bool = True, **execution: Any
) -> Observed:
    stages = stages or [{"stage_id": "feature_search", "parameters": {"searches": [SEARCH]}}]
    retriever = RetrieverInfo("ret_1", "r", "ns_1", None, (), tuple(stages), {}, {"enabled": cache}, {}, "1")
    executions = [
        {
            "execution_id": f"e{index}",
            "status": "completed",
            "duration_ms": float(index),
            "total_returned": shown,
            "inputs": {"query": f"q{index % 50}"},
            "stage_statistics": {"stages": {}},
            **execution,
        }
        for index in range(100)
    ]
    clicks = [
        {"execution_id": f"e{index}", "position": position, "interaction_type": ["click"]}
        for index, position in enumerate(positions)
    ]
    return Observed(retriever, StageRegistry().declare(stages)[0], executions, clicks)


def kinds(seen: Observed) -> set[str]:
    return {item["recommendation_type"] for item in recommendations(seen)}


def test_nothing_is_said_of_what_is_good_or_little_known() -> None:
    assert kinds(observed([0, 1, 2, 0, 4, 1] * 10)) == set()
    assert kinds(observed([9, 9, 9])) == set()
    assert kinds(observed([])) == set()


def test_clicks_at_the_end_ask_for_more_results() -> None:
    seen = observed([9, 8, 0, 0, 1] * 10)
    (advice,) = recommendations(seen)
    assert (advice["recommendation_type"], advice["current_value"], advice["recommended_value"]) == (
        "increase_k",
        10,
        20,
    )
    assert "40%" in advice["reasoning"]
    assert 0 < advice["confidence"] < 1


def test_clicks_at_the_top_ask_for_fewer_results() -> None:
    assert kinds(observed([0, 1, 2] * 20, shown=100)) == {"decrease_k"}


def test_clicks_far_down_ask_for_a_reranker_unless_there_is_one() -> None:
    assert "add_rerank" in kinds(observed([5, 6, 4] * 20))
    stages = [{"stage_id": "feature_search", "parameters": {"searches": [SEARCH]}}, {"stage_id": "rerank"}]
    assert "add_rerank" not in kinds(observed([5, 6, 4] * 20, stages=stages))


def test_repeated_queries_ask_for_the_cache() -> None:
    assert kinds(observed([], cache=False)) == {"enable_cache"}
    assert kinds(observed([], cache=True)) == set()


def test_fixed_weights_ask_for_learned_ones() -> None:
    def stages(fusion: str) -> Any:
        parameters = {"searches": [SEARCH, {**SEARCH, "lexical": True}], "fusion": fusion}
        return [{"stage_id": "feature_search", "parameters": parameters}]

    assert kinds(observed([0] * 100, stages=stages("rrf"))) == {"use_learned_fusion"}
    assert kinds(observed([0] * 100, stages=stages("learned"))) == set()
    assert kinds(observed([0] * 99, stages=stages("rrf"))) == set()


def test_performance() -> None:
    figures = performance(observed([0, 1, 3]), 7)
    assert (figures["executions"], figures["interactions"], figures["avg_results"]) == (100, 7, 10.0)
    assert figures["click_through_rate"] == pytest.approx(0.03)
    assert figures["mean_reciprocal_rank"] == pytest.approx((1 + 1 / 2 + 1 / 4) / 3)
    assert figures["p95_latency_ms"] == pytest.approx(94.05)
