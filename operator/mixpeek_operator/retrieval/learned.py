"""Learned fusion: how much each search of a fusion counts, learned from what users did with earlier answers.

Each search is an arm of a bandit with a Beta distribution, kept per user, per segment and for all. An interaction
rewards the searches that ranked its document well and, as fusion is a choice between them, counts against the others:

    credit of a search     1, when the interaction names its feature; else its share of 1 / rank over all searches
    alpha += w · r · credit,  beta += w · r · (1 - credit)      for a reward r > 0
    beta  += w · |r| · credit                                   for a penalty r < 0
    w = decay_factor ^ days · log2(position + 2)                old counts less; a click far down counts more

The weights are drawn from these distributions (Thompson sampling), scaled and kept within bounds, and weigh reciprocal
rank fusion. The draw depends on the interactions and the query alone, so that a query asked again finds the same.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

REWARDS: Final[Mapping[str, float]] = {
    "click": 1.0,
    "dwell": 1.0,
    "play": 1.0,
    "download": 1.5,
    "save": 1.5,
    "bookmark": 1.5,
    "wishlist": 1.5,
    "share": 2.0,
    "long_view": 2.0,
    "add_to_project": 2.0,
    "add_to_cart": 2.0,
    "positive_feedback": 3.0,
    "purchase": 5.0,
    "skip": -0.5,
    "return_to_results": -1.0,
    "negative_feedback": -3.0,
}
"""What each interaction is worth unless `reward_map` says otherwise; the others are worth nothing."""
_DAY_S: Final = 86_400.0
_EPSILON: Final = 0.1
_Feature = Annotated[str, Field(pattern=r"^(INPUT|inputs)\.\w+$")]


class LearnedFusion(BaseModel):
    """How fusion weights are learned from interactions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    algorithm: Literal["thompson_sampling", "epsilon_greedy", "ucb"] = Field(
        default="thompson_sampling",
        description="How weights are chosen: drawn from the distributions, mostly their means, or their upper bounds.",
    )
    context_features: list[_Feature] = Field(
        default=["INPUT.user_id"], description="Inputs that tell users apart; none learns for all users alike."
    )
    demographic_features: list[_Feature] = Field(
        default=["INPUT.user_segment"], description="Inputs that tell segments of users apart, for new users."
    )
    fallback_strategy: Literal["hierarchical", "global"] = Field(
        default="hierarchical", description="What counts for a new user: the segment and then all, or all at once."
    )
    min_interactions: int = Field(
        default=5, ge=1, le=100, description="Interactions from which a user's own weights are used."
    )
    reward_signal: str | None = Field(default=None, description="The one interaction that is a reward; see reward_map.")
    reward_map: dict[str, float] | None = Field(
        default=None, description="Reward of each interaction, negative for a penalty; wins over reward_signal."
    )
    exploration_bonus: float = Field(
        default=1.0, ge=0.1, le=10.0, description="Width of the draw; more tries other weights more often."
    )
    exploration_decay: float = Field(
        default=0.99, ge=0.9, le=1.0, description="What each interaction multiplies the width with."
    )
    exploration_floor: float = Field(default=0.1, ge=0.0, le=5.0, description="Least width of the draw.")
    prior_alpha: float = Field(default=1.0, ge=0.1, description="Rewards assumed before the first.")
    prior_beta: float = Field(default=1.0, ge=0.1, description="Penalties assumed before the first.")
    decay_factor: float = Field(default=0.995, ge=0.9, le=1.0, description="What an interaction loses per day.")
    decay_window_days: int = Field(default=365, ge=1, le=3650, description="Days after which one is ignored.")
    min_weight: float = Field(default=0.05, ge=0.0, le=0.5, description="Least share of a search.")
    max_weight: float = Field(default=0.95, ge=0.5, le=1.0, description="Largest share of a search.")
    max_reward_per_interaction: float = Field(
        default=5.0, ge=0.1, le=100.0, description="Most that one interaction counts."
    )
    rollout_pct: float = Field(
        default=100.0, ge=0.0, le=100.0, description="Percentage of users, or of queries, that get learned weights."
    )
    shadow_mode: bool = Field(default=False, description="Learn and report weights, and use the declared ones.")
    circuit_breaker_timeout_ms: int = Field(
        default=1000, ge=1, description="Milliseconds after which a search goes on with the declared weights."
    )


@dataclass(frozen=True, slots=True)
class Event:
    """One interaction, as far as learning needs it."""

    at_s: float
    """Unix seconds."""
    position: int
    types: tuple[str, ...]
    credits: Mapping[str, float]
    """Share of each search, by its key; they sum to 1."""
    facts: Mapping[str, Any]
    """What is known of who did it: the query's inputs, `user_id`, `session_id`, metadata."""


@dataclass(slots=True)
class Posterior:
    """What a group of users taught."""

    count: int = 0
    newest_s: float = 0.0
    arms: dict[str, list[float]] = field(default_factory=dict)
    """[alpha, beta] by search."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The weights for one query; they sum to the number of searches, so that equal ones are 1."""

    weights: tuple[float, ...]
    level: Literal["personal", "demographic", "global", "prior"]
    interactions: int


Posteriors = Mapping[tuple[str, ...], Posterior]
"""By level and the values of its features."""


def credits_of(ranks: Mapping[str, int]) -> dict[str, float]:
    """Return each search's share in having found a document, from its ranks (1 is the first)."""
    total = math.fsum(1 / rank for rank in ranks.values())
    return {key: 1 / rank / total for key, rank in ranks.items()}


def event_of(record: Mapping[str, Any]) -> Event | None:
    """Return a stored interaction as an event, None when no search can be credited with it."""
    uri = record.get("feature_uri")
    credits = {str(uri): 1.0} if uri else record.get("_credits")
    if not credits:
        return None
    facts: dict[str, Any] = {**(record.get("metadata") or {}), **(record.get("query_snapshot") or {})}
    facts |= {name: record[name] for name in ("user_id", "session_id") if record.get(name) is not None}
    at = datetime.fromisoformat(str(record["timestamp"])).timestamp()
    return Event(at, int(record["position"]), tuple(record["interaction_type"]), credits, facts)


def reward(types: Sequence[str], config: LearnedFusion) -> float:
    """Return what an interaction is worth: the strongest of its types, penalties before rewards."""
    if config.reward_map is not None:
        worth: Mapping[str, float] = config.reward_map
    elif config.reward_signal is not None:
        worth = {config.reward_signal: 1.0}
    else:
        worth = REWARDS
    values = [worth.get(name, 0.0) for name in types]
    penalty = min((value for value in values if value < 0), default=0.0)
    return penalty or max(values, default=0.0)


def learn(events: Sequence[Event], arms: Sequence[str], config: LearnedFusion, now_s: float) -> Posteriors:
    """Return what the events teach about the searches, for each user, each segment and all."""
    found: dict[tuple[str, ...], Posterior] = {}
    names = set(arms)
    for event in events:
        days = max(0.0, (now_s - event.at_s) / _DAY_S)
        worth = reward(event.types, config)
        known = {key: share for key, share in event.credits.items() if key in names}
        if days > config.decay_window_days or worth == 0.0 or not known:
            continue
        amount = min(config.max_reward_per_interaction, abs(worth) * math.log2(event.position + 2))
        amount *= config.decay_factor**days
        for key in _levels(event.facts, config):
            posterior = found.setdefault(key, Posterior())
            posterior.count += 1
            posterior.newest_s = max(posterior.newest_s, event.at_s)
            for arm in arms:
                state = posterior.arms.setdefault(arm, [config.prior_alpha, config.prior_beta])
                share = known.get(arm, 0.0)
                if worth > 0:
                    state[0] += amount * share
                    state[1] += amount * (1 - share)
                else:
                    state[1] += amount * share
    return found


def choose(
    posteriors: Posteriors, arms: Sequence[str], config: LearnedFusion, facts: Mapping[str, Any], seed: Any
) -> Choice:
    """Return the weights for a query of somebody of whom `facts` are known; equal ones while nothing was learned."""
    for level, key in _ladder(facts, config):
        posterior = posteriors.get(key)
        least = config.min_interactions if level == "personal" else 1
        if posterior is None or posterior.count < least:
            continue
        dice = random.Random(_number([key, posterior.count, posterior.newest_s, seed]))  # noqa: S311  no secret
        values = _drawn([posterior.arms[arm] for arm in arms], posterior.count, config, dice)
        shares = bounded(values, config.min_weight, config.max_weight)
        return Choice(tuple(share * len(arms) for share in shares), level, posterior.count)
    return Choice((1.0,) * len(arms), "prior", 0)


def bounded(values: Sequence[float], low: float, high: float) -> list[float]:
    """Return the values scaled to sum to 1, each within the bounds, which give way to equal shares."""
    count = len(values)
    low, high = min(low, 1 / count), max(high, 1 / count)
    values = [max(value, 1e-9) for value in values]
    least, most = 0.0, 1 / min(values)
    for _ in range(100):
        scale = (least + most) / 2
        if math.fsum(min(high, max(low, scale * value)) for value in values) < 1:
            least = scale
        else:
            most = scale
    shares = [min(high, max(low, most * value)) for value in values]
    total = math.fsum(shares)
    return [share / total for share in shares]


def takes_part(config: LearnedFusion, facts: Mapping[str, Any], seed: Any) -> bool:
    """Whether the rollout includes this user, or this query of nobody known; the same one always or never."""
    who = facts.get("user_id")
    return _number(seed if who is None else who) % 10_000 < config.rollout_pct * 100


def _drawn(arms: Sequence[Sequence[float]], count: int, config: LearnedFusion, dice: random.Random) -> Sequence[float]:
    width = max(config.exploration_floor, config.exploration_bonus * config.exploration_decay**count)
    means = [alpha / (alpha + beta) for alpha, beta in arms]
    if config.algorithm == "epsilon_greedy":
        return [dice.random() for _ in arms] if dice.random() < _EPSILON * width else means
    if config.algorithm == "ucb":
        return [
            mean + width * math.sqrt(mean * (1 - mean) / (alpha + beta + 1))
            for mean, (alpha, beta) in zip(means, arms, strict=True)
        ]
    if width < 1e-6:
        return means
    # A smaller sum of both parameters widens the distribution around the same mean.
    return [dice.betavariate(alpha / width, beta / width) for alpha, beta in arms]


def _ladder(
    facts: Mapping[str, Any], config: LearnedFusion
) -> list[tuple[Literal["personal", "demographic", "global"], tuple[str, ...]]]:
    found: list[tuple[Literal["personal", "demographic", "global"], tuple[str, ...]]] = []
    if (personal := _values(facts, config.context_features)) is not None:
        found.append(("personal", ("personal", *personal)))
    if config.fallback_strategy == "hierarchical":
        segment = _values(facts, config.demographic_features)
        if segment is not None:
            found.append(("demographic", ("demographic", *segment)))
    found.append(("global", ("global",)))
    return found


def _levels(facts: Mapping[str, Any], config: LearnedFusion) -> list[tuple[str, ...]]:
    return [key for _, key in _ladder(facts, config)]


def _values(facts: Mapping[str, Any], features: Sequence[str]) -> list[str] | None:
    """The features' values as text, None when there are none or one is unknown."""
    values = [facts.get(feature.partition(".")[2]) for feature in features]
    return [str(value) for value in values] if values and all(value is not None for value in values) else None


def _number(parts: Any) -> int:
    return int.from_bytes(hashlib.sha256(orjson.dumps(parts, default=str)).digest()[:8], "big")
