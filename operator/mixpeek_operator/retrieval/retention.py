"""How much of the history of executions stays: the oldest goes, in the background, never while anybody waits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, timedelta
from typing import Final

import structlog

from mixpeek_operator.core.clock import Clock, timestamp
from mixpeek_operator.ports.metadata import MetadataStore, Write
from mixpeek_operator.retrieval.history import TABLE

EVERY_S: Final = 600.0
"""Seconds between two looks."""
_BATCH: Final = 200
"""Records that go in one transaction: few, for others write too."""

_log = structlog.get_logger(__name__)


class Retention:
    """Drops what is older than `days` or more than `most` per namespace; 0 is no limit."""

    def __init__(
        self,
        metadata: MetadataStore,
        namespaces: Callable[[], Iterable[str]],
        clock: Clock,
        *,
        days: float,
        most: int,
    ) -> None:
        """`namespaces` gives the ids of all there are."""
        self._metadata = metadata
        self._namespaces = namespaces
        self._clock = clock
        self._days = days
        self._most = most
        self._next_s = 0.0

    async def chore(self) -> None:
        """Drop what is due in every namespace, unless that was done a moment ago."""
        if self._clock.monotonic() < self._next_s or not (self._days or self._most):
            return
        for namespace_id in self._namespaces():
            dropped = await self.drop(namespace_id)
            if dropped:
                _log.info("execution_history_expired", namespace=namespace_id, dropped=dropped)
        self._next_s = self._clock.monotonic() + EVERY_S

    async def drop(self, namespace_id: str) -> int:
        """Drop what is due in one namespace; how many there were.

        The store lists records in the order in which they came, so nothing that stays is looked at.
        """
        border = ""
        if self._days:
            moment = self._clock.now().astimezone(UTC) - timedelta(days=self._days)
            border = timestamp(moment)
        over = await self._metadata.count(TABLE, namespace_id) - self._most if self._most else 0
        dropped = 0
        while True:
            oldest = await self._metadata.find(TABLE, namespace_id, limit=_BATCH)
            due = [
                record.id
                for position, record in enumerate(oldest, start=dropped)
                if position < over or str(record.body["created_at"]) < border
            ]
            if due:
                await self._metadata.transact([Write(TABLE, namespace_id, id, None) for id in due])
            dropped += len(due)
            if len(due) < _BATCH:
                return dropped
