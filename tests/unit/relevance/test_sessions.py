"""Sessions made of interactions, and what a replay of them says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpeek_operator.relevance import alignment
from mixpeek_operator.relevance.replay import Answer
from mixpeek_operator.relevance.sessions import Session, SessionFilter, sample, sessions_of

IDS = [f"d{index}" for index in range(8)]


def clicked(document: str, *types: str, **changes: Any) -> dict[str, Any]:
    return {
        "feature_id": document,
        "interaction_type": list(types or ["click"]),
        "query_snapshot": {"query": "lamp"},
        "session_id": "s1",
        "timestamp": "2026-11-20T10:00:00Z",
        **changes,
    }


def session(**grades: float) -> Session:
    return Session({"query": "lamp"}, "r", "", None, len(grades), dict(grades), set(grades), set(), {"click"})


def answer(*ranking: str, ms: float = 1.0) -> Answer:
    return Answer(list(ranking), ms, {"find": ms})


def test_a_session_is_one_search() -> None:
    rows = [
        clicked("a"),
        clicked("b", "click", "purchase"),
        clicked("a", "long_view"),
        clicked("a", query_snapshot={"query": "chair"}),
        clicked("a", session_id="s2"),
        clicked("a", execution_id="e1"),
        clicked("a", query_snapshot=None),
    ]
    found = sessions_of(rows, SessionFilter())
    assert len(found) == 4
    assert found[0].grades == {"a": 3.0, "b": 6.0}
    assert (found[0].count, found[0].clicked, found[0].purchased) == (3, {"a", "b"}, {"b"})


def test_what_was_disliked_is_not_wanted() -> None:
    rows = [clicked("a"), clicked("a", "negative_feedback"), clicked("b", session_id="s2"), clicked("c", "skip")]
    found = sessions_of(rows, SessionFilter())
    assert [item.judged() for item in found] == [{"b": 1.0}]


def test_filters_choose_sessions() -> None:
    rows = [clicked("a"), clicked("b"), clicked("c", "bookmark", session_id="s2")]
    assert [item.count for item in sessions_of(rows, SessionFilter(min_interactions=2))] == [2]
    chosen = SessionFilter.model_validate({"interaction_types": ["bookmark"]})
    assert [item.judged() for item in sessions_of(rows, chosen)] == [{"c": 1.5}]
    weighed = SessionFilter.model_validate({"interaction_weights": {"weights": {"bookmark": 9.0}}})
    assert [item.judged() for item in sessions_of(rows, weighed)] == [{"c": 9.0}]
    with pytest.raises(ValueError, match="taxonomies"):
        SessionFilter.model_validate({"taxonomy_node_ids": ["n"]})


@pytest.mark.parametrize("strategy", ["random", "recent", "stratified"])
def test_samples(strategy: str) -> None:
    sessions = [
        Session({"query": str(n)}, "often" if n % 10 else "seldom", f"2026-11-{n + 1:02}", None, grades={"a": 1.0})
        for n in range(28)
    ]
    chosen = sample(sessions, 6, strategy, "seed")
    assert len(chosen) == 6
    assert chosen == sample(sessions, 6, strategy, "seed")
    assert sample(sessions, 28, strategy, "seed") == sessions
    if strategy == "recent":
        assert [item.newest for item in chosen] == sorted((item.newest for item in sessions), reverse=True)[:6]
    if strategy == "stratified":
        assert [item.retriever_id for item in chosen].count("seldom") == 3


def test_two_retrievers_compared() -> None:
    wanted = [session(a=1.0), session(b=1.0), session(c=1.0)]
    baseline = list(zip(wanted, [answer("x", "a"), answer("b"), answer("c")], strict=True))
    better = list(zip(wanted, [answer("a", "x", ms=3.0), answer("b", ms=3.0), None], strict=True))
    against = alignment.pairs(baseline, better)
    assert len(against) == 2
    metrics = alignment.metrics(better, against)
    assert metrics["avg_position_delta"] == -0.5
    assert (metrics["items_promoted"], metrics["items_demoted"]) == (1, 0)
    assert (metrics["sessions_improved"], metrics["sessions_degraded"], metrics["sessions_neutral"]) == (1, 0, 1)
    assert metrics["mean_rank_clicked"] == 1.0
    assert metrics["mean_rank_purchased"] is None
    comparison = alignment.compare("better", against)
    assert comparison["latency_delta_ms"] == 2.0
    assert comparison["recall_delta"]["5"] == 0.0
    assert comparison["ndcg_delta"]["10"] > 0.1
    assert "no candidate differs" in alignment.recommendation([comparison], {"better": "better"}, 2)


def test_a_document_that_is_not_found_is_after_the_last() -> None:
    replays = [(session(a=1.0), answer("x"))]
    metrics = alignment.metrics(replays, alignment.pairs(replays, replays))
    assert metrics["mean_rank_clicked"] == alignment.DEPTH + 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from(IDS), st.floats(0.5, 5), min_size=1, max_size=4),
            st.permutations(IDS),
            st.permutations(IDS),
        ),
        min_size=2,
        max_size=12,
    )
)
def test_swapping_baseline_and_candidate_turns_every_sign(rows: list[Any]) -> None:
    wanted = [session(**grades) for grades, _, _ in rows]
    ones = [(item, answer(*ranking)) for item, (_, ranking, _) in zip(wanted, rows, strict=True)]
    others = [(item, answer(*ranking)) for item, (_, _, ranking) in zip(wanted, rows, strict=True)]
    forth = alignment.compare("c", alignment.pairs(ones, others))
    back = alignment.compare("c", alignment.pairs(others, ones))
    for name in ("ndcg_delta", "recall_delta"):
        assert forth[name] == pytest.approx({k: -value for k, value in back[name].items()}, abs=1e-12)
    assert forth["p_value"] == pytest.approx(back["p_value"], abs=1e-9)
    gained = alignment.metrics(others, alignment.pairs(ones, others))
    lost = alignment.metrics(ones, alignment.pairs(others, ones))
    assert gained["sessions_improved"] == lost["sessions_degraded"]
    assert gained["items_promoted"] == lost["items_demoted"]
    same = alignment.compare("c", alignment.pairs(ones, ones))
    assert (set(same["ndcg_delta"].values()), same["p_value"]) == ({0.0}, 1.0)
