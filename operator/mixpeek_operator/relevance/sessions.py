"""Sessions to replay: what was asked, and what users then did, grouped from interactions. Pure but for the reading.

A session is one search: the interactions of one execution; without one, those of a session (or user) with the same
query. Its documents are graded by the interactions with them, so that a replay shows how high a retriever would have
placed what users wanted.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, field_validator

from mixpeek_operator.core.clock import timestamp
from mixpeek_operator.core.filters import Compare, Filter, Operator, all_of, one_of
from mixpeek_operator.relevance.interactions import InteractionType
from mixpeek_operator.retrieval.learned import REWARDS

MAX_INTERACTIONS: Final = 50_000
"""Newest interactions that sessions are made of."""


Moment = Annotated[datetime, AfterValidator(lambda value: value.replace(tzinfo=UTC) if value.tzinfo is None else value)]
"""A time; UTC unless it says otherwise."""


class TimeRange(BaseModel):
    """From `start` to before `end`; open where absent."""

    model_config = ConfigDict(extra="forbid")

    start: Moment | None = None
    end: Moment | None = None


class Weights(BaseModel):
    """What interactions are worth."""

    model_config = ConfigDict(extra="forbid")

    weights: dict[str, float] | None = Field(default=None, description="By interaction type; others are worth nothing.")


class SessionFilter(BaseModel):
    """Which sessions are replayed."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    retriever_ids: list[str] | None = Field(default=None, description="Sessions of these retrievers only.")
    taxonomy_node_ids: list[str] | None = Field(default=None, description="Refused: sessions have no taxonomy nodes.")
    time_range: TimeRange | None = Field(default=None, description="Sessions of this time only.")
    created_after: Moment | None = Field(default=None, description="The same as time_range.start.")
    created_before: Moment | None = Field(default=None, description="The same as time_range.end.")
    min_interactions: int = Field(default=1, ge=1, description="Least number of interactions of a session.")
    interaction_types: list[InteractionType] | None = Field(
        default=None, description="Sessions with at least one of these."
    )
    sample_strategy: Literal["random", "recent", "stratified"] = Field(
        default="random", description="Which sessions, if there are more; stratified takes as many of each retriever."
    )
    interaction_weights: Weights = Field(
        default=Weights(),
        validation_alias=AliasChoices("interaction_weights", "weights"),
        description="What interactions are worth.",
    )

    @field_validator("taxonomy_node_ids")
    @classmethod
    def _no_taxonomies(cls, value: Any) -> Any:
        if value:
            raise ValueError("interactions are not classified by taxonomies; leave taxonomy_node_ids out")
        return value

    def condition(self) -> Filter | None:
        """Return what the interactions must satisfy."""
        span = self.time_range or TimeRange()
        start, end = span.start or self.created_after, span.end or self.created_before
        return all_of(
            one_of("retriever_id", list(self.retriever_ids)) if self.retriever_ids else None,
            Compare("timestamp", Operator.GTE, timestamp(start)) if start else None,
            Compare("timestamp", Operator.LT, timestamp(end)) if end else None,
        )


@dataclass(slots=True)
class Session:
    """One search that users reacted to."""

    query: Mapping[str, Any]
    retriever_id: str
    newest: str
    user_id: str | None
    count: int = 0
    grades: dict[str, float] = field(default_factory=dict)
    """By document; negative where users disliked more than they liked."""
    clicked: set[str] = field(default_factory=set)
    purchased: set[str] = field(default_factory=set)
    types: set[str] = field(default_factory=set)

    def judged(self) -> dict[str, float]:
        """Return the documents that users wanted."""
        return {id: grade for id, grade in self.grades.items() if grade > 0}


def sessions_of(interactions: Iterable[Mapping[str, Any]], chosen: SessionFilter) -> list[Session]:
    """Group interactions, newest first, into the sessions that pass; without a query or a wanted document none does."""
    weights = chosen.interaction_weights.weights
    worth = REWARDS if weights is None else weights
    found: dict[bytes, Session] = {}
    for item in interactions:
        query = item.get("query_snapshot")
        if not query:
            continue
        who = item.get("execution_id") or item.get("session_id") or item.get("user_id") or ""
        key = orjson.dumps([who, query], option=orjson.OPT_SORT_KEYS)
        session = found.get(key)
        if session is None:
            session = found[key] = Session(
                query, str(item.get("retriever_id", "")), str(item["timestamp"]), item.get("user_id")
            )
        _add(session, item, worth)
    wanted = set(chosen.interaction_types or ())
    return [
        session
        for session in found.values()
        if session.count >= chosen.min_interactions and (not wanted or session.types & wanted) and session.judged()
    ]


def sample(sessions: Sequence[Session], count: int, strategy: str, seed: str) -> list[Session]:
    """Return at most `count` sessions; the same ones for the same seed."""
    if len(sessions) <= count:
        return list(sessions)
    if strategy == "recent":
        return sorted(sessions, key=lambda session: session.newest, reverse=True)[:count]
    dice = random.Random(seed)  # noqa: S311  no secret
    shuffled = dice.sample(list(sessions), len(sessions))
    if strategy == "random":
        return shuffled[:count]
    strata: dict[str, list[Session]] = {}
    for session in shuffled:
        strata.setdefault(session.retriever_id, []).append(session)
    chosen: list[Session] = []
    while len(chosen) < count:
        for stratum in strata.values():
            if stratum and len(chosen) < count:
                chosen.append(stratum.pop())
    return chosen


def _add(session: Session, item: Mapping[str, Any], worth: Mapping[str, float]) -> None:
    types = set(item["interaction_type"])
    id = str(item["feature_id"])
    session.count += 1
    session.types |= types
    session.grades[id] = session.grades.get(id, 0.0) + sum(worth.get(name, 0.0) for name in types)
    if types & {"click", "long_view", "dwell", "play"}:
        session.clicked.add(id)
    if "purchase" in types:
        session.purchased.add(id)
