"""How well replayed rankings agree with what users did, and how two retrievers compare. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mixpeek_operator.relevance.metrics import Metric, mean, ndcg, recall
from mixpeek_operator.relevance.replay import Answer
from mixpeek_operator.relevance.sessions import Session
from mixpeek_operator.relevance.statistics import percentile, t_test

KS: Final = (5, 10, 20)
DEPTH: Final = 100
"""Documents of each replayed answer; a document that is not among them counts as the one after the last."""
MAIN_K: Final = 10
SIGNIFICANT: Final = 0.05
_NEUTRAL: Final = 1e-9

Replays = Sequence[tuple[Session, Answer | None]]
"""Each session with the answer, None where the replay failed."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A session that both retrievers answered."""

    session: Session
    baseline: Answer
    candidate: Answer

    def change(self, metric: Metric, k: int) -> float:
        """Return by how much the candidate's ranking is better."""
        judged = self.session.judged()
        return metric(self.candidate.ranking, judged, k) - metric(self.baseline.ranking, judged, k)


def pairs(baseline: Replays, candidate: Replays) -> list[Pair]:
    """Return the sessions that both answered; the two replay the same sessions in the same order."""
    return [
        Pair(session, one, other)
        for (session, one), (_, other) in zip(baseline, candidate, strict=True)
        if one is not None and other is not None
    ]


def metrics(replays: Replays, against: Sequence[Pair]) -> dict[str, Any]:
    """Return the wire's AlignmentMetrics of a retriever; `against` are its pairs with the baseline."""
    answered = [(session, answer) for session, answer in replays if answer is not None]
    clicked = [_place(answer, id) for session, answer in answered for id in session.clicked]
    purchased = [_place(answer, id) for session, answer in answered for id in session.purchased]
    moves = [_place(pair.candidate, id) - _place(pair.baseline, id) for pair in against for id in pair.session.judged()]
    changes = [pair.change(ndcg, MAIN_K) for pair in against]
    improved = sum(change > _NEUTRAL for change in changes)
    degraded = sum(change < -_NEUTRAL for change in changes)
    return {
        "ndcg_at_k": {
            str(k): mean([ndcg(answer.ranking, session.judged(), k) for session, answer in answered]) for k in KS
        },
        "recall_at_k": {
            str(k): mean([recall(answer.ranking, session.judged(), k) for session, answer in answered]) for k in KS
        },
        "mean_rank_clicked": mean(clicked),
        "mean_rank_purchased": mean(purchased) if purchased else None,
        "avg_position_delta": mean(moves),
        "items_promoted": sum(move < 0 for move in moves),
        "items_demoted": sum(move > 0 for move in moves),
        "sessions_improved": improved,
        "sessions_degraded": degraded,
        "sessions_neutral": len(changes) - improved - degraded,
    }


def latency(replays: Replays) -> dict[str, Any]:
    """Return the wire's LatencyMetrics, in milliseconds."""
    answers = [answer for _, answer in replays if answer is not None]
    durations = [answer.duration_ms for answer in answers]
    names = list(dict.fromkeys(name for answer in answers for name in answer.stages_ms))
    return {
        "p50_ms": percentile(durations, 0.5),
        "p90_ms": percentile(durations, 0.9),
        "p99_ms": percentile(durations, 0.99),
        "mean_ms": mean(durations),
        "stage_latencies": {
            name: mean([answer.stages_ms[name] for answer in answers if name in answer.stages_ms]) for name in names
        },
    }


def compare(candidate_id: str, against: Sequence[Pair]) -> dict[str, Any]:
    """Return the wire's PipelineComparison over the sessions that both answered."""
    ndcgs = {k: [pair.change(ndcg, k) for pair in against] for k in KS}
    recalls = {k: [pair.change(recall, k) for pair in against] for k in KS}
    test = t_test(ndcgs[MAIN_K])
    return {
        "candidate_retriever_id": candidate_id,
        "ndcg_delta": {str(k): mean(values) for k, values in ndcgs.items()},
        "recall_delta": {str(k): mean(values) for k, values in recalls.items()},
        "latency_delta_ms": mean([pair.candidate.duration_ms - pair.baseline.duration_ms for pair in against]),
        "p_value": None if test is None else test[0],
        "confidence_interval": None if test is None else list(test[1]),
        "taxonomy_wins": [],
        "taxonomy_losses": [],
    }


def recommendation(comparisons: Sequence[Mapping[str, Any]], names: Mapping[str, str], sessions: int) -> str:
    """Return which retriever to use, in a sentence, and how sure that is."""
    key = str(MAIN_K)
    best = max(comparisons, key=lambda item: float(item["ndcg_delta"][key]))
    name, delta, p = names[best["candidate_retriever_id"]], best["ndcg_delta"][key], best["p_value"]
    sure = p is not None and p < SIGNIFICANT
    figures = f"nDCG@{MAIN_K} {delta:+.4f} over {sessions} sessions, p = {'unknown' if p is None else f'{p:.3g}'}"
    if sure and delta > 0:
        return f"use {name}: {figures}, mean latency {best['latency_delta_ms']:+.1f} ms"
    if sure:
        return f"keep the baseline: the best candidate, {name}, is worse ({figures})"
    return f"no candidate differs from the baseline by more than chance; the best is {name} ({figures})"


def _place(answer: Answer, id: str) -> float:
    return float(answer.ranking.index(id) + 1 if id in answer.ranking else DEPTH + 1)
