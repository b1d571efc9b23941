"""Fusing several ranked lists into one. Pure; ties are broken by id, so equal inputs give equal orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

RANK_CONSTANT: Final = 60
"""`k` of reciprocal rank fusion."""

Ranking = Sequence[tuple[str, float]]
"""(id, score) pairs, best first."""


def rrf(rankings: Sequence[Ranking], weights: Sequence[float]) -> dict[str, float]:
    """Reciprocal rank fusion: the sum of weight / (60 + rank), ranks from 1; scores themselves do not matter."""
    fused: dict[str, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        for rank, (id, _) in enumerate(ranking, start=1):
            fused[id] = fused.get(id, 0.0) + weight / (RANK_CONSTANT + rank)
    return fused


def dbsf(rankings: Sequence[Ranking], weights: Sequence[float]) -> dict[str, float]:
    """Distribution-based fusion: each list is scaled from mean ± 3 standard deviations to 0..1, then summed."""
    fused: dict[str, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        low, span = _distribution([score for _, score in ranking])
        for id, score in ranking:
            scaled = 0.5 if span == 0 else min(1.0, max(0.0, (score - low) / span))
            fused[id] = fused.get(id, 0.0) + weight * scaled
    return fused


def weighted(rankings: Sequence[Ranking], weights: Sequence[float]) -> dict[str, float]:
    """The weighted sum of raw scores; a list that lacks an id adds nothing."""
    fused: dict[str, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        for id, score in ranking:
            fused[id] = fused.get(id, 0.0) + weight * score
    return fused


def maximum(rankings: Sequence[Ranking], weights: Sequence[float]) -> dict[str, float]:
    """The best raw score; weights do not matter."""
    fused: dict[str, float] = {}
    for ranking in rankings:
        for id, score in ranking:
            fused[id] = max(score, fused.get(id, score))
    return fused


STRATEGIES: Final = {"rrf": rrf, "dbsf": dbsf, "weighted": weighted, "max": maximum, "learned": rrf}
"""By name; what differs for `learned` is where its weights come from."""


def ordered(fused: Mapping[str, float]) -> list[tuple[str, float]]:
    """Best first, ties by id."""
    return sorted(fused.items(), key=lambda item: (-item[1], item[0]))


def _distribution(scores: Sequence[float]) -> tuple[float, float]:
    """Lower end and width of mean ± 3 standard deviations (sample deviation, as Qdrant computes it)."""
    if len(scores) < 2:
        return 0.0, 0.0
    mean = sum(scores) / len(scores)
    deviation = (sum((score - mean) ** 2 for score in scores) / (len(scores) - 1)) ** 0.5
    return mean - 3 * deviation, 6 * deviation
