"""Learned weights for one search stage, and the signal that tells of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mixpeek_operator.retrieval.learned import LearnedFusion, takes_part
from mixpeek_operator.retrieval.stage import Context

SIGNAL = "learned_weights"
MAX_RANKED = 100
"""Documents of an answer whose ranks are told; hardly anybody looks further down."""


def arms_of(uris: Sequence[str]) -> list[str]:
    """Return a key for each search: its feature, numbered from the second search of the same one on."""
    seen: dict[str, int] = {}
    keys = []
    for uri in uris:
        seen[uri] = seen.get(uri, 0) + 1
        keys.append(uri if seen[uri] == 1 else f"{uri}#{seen[uri]}")
    return keys


async def weights(
    arms: Sequence[str], declared: Sequence[float], config: LearnedFusion, context: Context
) -> tuple[list[float], dict[str, Any]]:
    """Return the weight of each search, and the signal about them.

    The declared weights count while nothing is learned, for whom the rollout leaves out, in shadow mode, and when the
    interactions cannot be read in time, which is a warning.
    """
    inputs = context.names["INPUT"]
    facts: dict[str, Any] = dict(inputs)
    if context.user_id is not None:
        facts["user_id"] = context.user_id
    retriever_id = str(context.names["CONTEXT"].get("retriever_id") or "")
    choice = await context.feedback.choose((context.namespace.id, retriever_id), arms, config, facts, inputs)
    data: dict[str, Any] = {"level": "unknown", "interactions": 0, "learned": None}
    used = list(declared)
    if choice is None:
        context.warnings.append(
            "learned fusion: the interactions could not be read within "
            f"{config.circuit_breaker_timeout_ms} ms; the declared weights were used"
        )
    else:
        data |= {"level": choice.level, "interactions": choice.interactions}
        if choice.level != "prior":
            data["learned"] = dict(zip(arms, choice.weights, strict=True))
            if not config.shadow_mode and takes_part(config, facts, inputs):
                used = list(choice.weights)
    data["weights"] = dict(zip(arms, used, strict=True))
    return used, {"signal_type": SIGNAL, "signal_data": data}


def ranks_of(found: Sequence[Sequence[Any]], arms: Sequence[str], shown: Mapping[str, str]) -> dict[str, Any]:
    """Return the rank of each shown document (document id by point id) in each search that found it."""
    ranks: dict[str, Any] = {}
    for arm, hits in zip(arms, found, strict=True):
        for rank, hit in enumerate(hits, start=1):
            if hit.id in shown:
                ranks.setdefault(shown[hit.id], {})[arm] = rank
    return ranks
