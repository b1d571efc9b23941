"""Measures of a ranking against judgments, as trec_eval defines them. Pure.

A ranking is a list of distinct document ids, best first; judgments give each relevant document a grade above 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

Ranking = Sequence[str]
Judgments = Mapping[str, float]
"""Grade by document id; a document without one is not relevant."""
Metric = Callable[[Ranking, Judgments, int], float]
"""Of the first k documents."""


def precision(ranking: Ranking, judged: Judgments, k: int) -> float:
    """Share of relevant documents among k; places that the ranking leaves empty count."""
    return _hits(ranking, judged, k) / k


def recall(ranking: Ranking, judged: Judgments, k: int) -> float:
    """Share of the relevant documents that are among the first k."""
    return _hits(ranking, judged, k) / len(judged)


def f1(ranking: Ranking, judged: Judgments, k: int) -> float:
    """Harmonic mean of precision and recall."""
    return _f(ranking, judged, k, 1.0)


def f2(ranking: Ranking, judged: Judgments, k: int) -> float:
    """Like f1, with recall counting twice as much."""
    return _f(ranking, judged, k, 2.0)


def average_precision(ranking: Ranking, judged: Judgments, k: int) -> float:
    """Mean over all relevant documents of the precision at their place, 0 for those not among the first k."""
    hits, total = 0, 0.0
    for place, id in enumerate(ranking[:k], start=1):
        if id in judged:
            hits += 1
            total += hits / place
    return total / len(judged)


def reciprocal_rank(ranking: Ranking, judged: Judgments, k: int) -> float:
    """1 / place of the first relevant document, 0 when none is among the first k."""
    return next((1 / place for place, id in enumerate(ranking[:k], start=1) if id in judged), 0.0)


def ndcg(ranking: Ranking, judged: Judgments, k: int) -> float:
    """Discounted cumulative gain over that of the best possible ranking; the gain of a document is its grade."""
    best = sorted(judged.values(), reverse=True)[:k]
    return _gain([judged.get(id, 0.0) for id in ranking[:k]]) / _gain(best)


METRICS: Final[Mapping[str, Metric]] = {
    "precision": precision,
    "recall": recall,
    "f1": f1,
    "f2": f2,
    "map": average_precision,
    "ndcg": ndcg,
    "mrr": reciprocal_rank,
}
"""By the name that a request uses; the mean over queries makes MAP and MRR of the two that are named so."""


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean, 0 of nothing."""
    return math.fsum(values) / len(values) if values else 0.0


def _hits(ranking: Ranking, judged: Judgments, k: int) -> int:
    return sum(id in judged for id in ranking[:k])


def _f(ranking: Ranking, judged: Judgments, k: int, beta: float) -> float:
    p, r = precision(ranking, judged, k), recall(ranking, judged, k)
    return (1 + beta**2) * p * r / (beta**2 * p + r) if p + r else 0.0


def _gain(grades: Sequence[float]) -> float:
    return math.fsum(grade / math.log2(place + 1) for place, grade in enumerate(grades, start=1))
