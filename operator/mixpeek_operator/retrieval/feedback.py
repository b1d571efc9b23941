"""The interactions that learned fusion learns from: read rarely, and never longer than a search may wait."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mixpeek_operator.core.clock import Clock
from mixpeek_operator.core.errors import MixpeekError
from mixpeek_operator.core.filters import equals
from mixpeek_operator.ports.metadata import MetadataStore
from mixpeek_operator.retrieval.learned import Choice, Event, LearnedFusion, Posteriors, choose, event_of, learn

TABLE: Final = "interactions"
MAX_EVENTS: Final = 10_000
"""Newest interactions of a retriever that are learned from."""
_FRESH_S: Final = 30.0
"""Seconds until interactions that another process stored are noticed; our own are at once."""
_MAX_RETRIEVERS: Final = 200
_QUICK: Final = 500
"""Interactions that are read anew after every new one; for each so many more, searches go by what they have for"""
_QUICK_S: Final = 0.1
"""seconds, so that many clicks do not make every search read them all."""

_Key = tuple[str, str]


@dataclass(slots=True)
class _Read:
    at_s: float
    events: list[Event]
    stale: bool = False
    """Whether interactions were stored since."""
    learned: dict[tuple[str, ...], Posteriors] = field(default_factory=dict)
    """By configuration and searches, which are few per retriever."""

    def lasts_s(self) -> float:
        """Seconds that it may be used for."""
        return len(self.events) // _QUICK * _QUICK_S if self.stale else _FRESH_S


class Feedback:
    """What users taught, by namespace and retriever."""

    def __init__(self, metadata: MetadataStore, clock: Clock) -> None:
        self._metadata = metadata
        self._clock = clock
        self._read: dict[_Key, _Read] = {}
        self._reading: dict[_Key, asyncio.Task[_Read]] = {}

    def added(self, namespace_id: str, retriever_id: str) -> None:
        """Take note that a retriever has a new interaction: at once, or soon where reading them all takes long."""
        if (read := self._read.get((namespace_id, retriever_id))) is not None:
            read.stale = True
        # What is being read now may lack it; nobody may find that later.
        self._reading.pop((namespace_id, retriever_id), None)

    def removed(self, namespace_id: str, retriever_id: str) -> None:
        """Forget what was read of a retriever's interactions: one may no longer count."""
        self._read.pop((namespace_id, retriever_id), None)
        self._reading.pop((namespace_id, retriever_id), None)

    async def choose(
        self,
        where: _Key,
        arms: Sequence[str],
        config: LearnedFusion,
        facts: Mapping[str, Any],
        seed: Any,
    ) -> Choice | None:
        """Return the weights of the searches `arms` of retriever `where` (namespace id, retriever id).

        What was read before counts when the store is away, or takes longer than the circuit breaker allows (reading
        then goes on behind). None when there is nothing yet.
        """
        read = self._read.get(where)
        if read is None or self._clock.monotonic() >= read.at_s + read.lasts_s():
            reading = self._reading.get(where)
            if reading is None:
                reading = self._reading[where] = asyncio.create_task(self._load(where), name="interactions")
                # Nobody may be left to ask how it ended.
                reading.add_done_callback(lambda task: task.cancelled() or task.exception())
            done, _ = await asyncio.wait({reading}, timeout=config.circuit_breaker_timeout_ms / 1000)
            error = reading.exception() if done else None
            if error is not None and not isinstance(error, MixpeekError):
                raise error
            if done and error is None:
                read = reading.result()
            elif read is None:
                return None
        key = (config.model_dump_json(), *arms)
        posteriors = read.learned.get(key)
        if posteriors is None:
            posteriors = read.learned[key] = learn(read.events, arms, config, self._clock.now().timestamp())
        return choose(posteriors, arms, config, facts, seed)

    async def close(self) -> None:
        """Stop reading."""
        tasks = list(self._reading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _load(self, where: _Key) -> _Read:
        me = asyncio.current_task()
        try:
            began = self._clock.monotonic()
            namespace_id, retriever_id = where
            records = await self._metadata.find(
                TABLE,
                namespace_id,
                filter=equals("retriever_id", retriever_id),
                sort=(("timestamp", "desc"),),
                limit=MAX_EVENTS,
            )
            events = [event for record in records if (event := event_of(record.body)) is not None]
            read = _Read(began, events)
            if self._reading.get(where) is me:
                if len(self._read) >= _MAX_RETRIEVERS:
                    self._read.pop(next(iter(self._read)))
                self._read[where] = read
            return read
        finally:
            if self._reading.get(where) is me:
                del self._reading[where]
