"""Says when a deletion does not end: in the log, in a metric, and to whoever describes the resource."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime

import structlog

from mixpeek_operator.core import conditions
from mixpeek_operator.core.clock import Clock
from mixpeek_operator.core.index import ResourceIndex
from mixpeek_operator.core.resource import FINALIZER, Event, Resource

_log = structlog.get_logger(__name__)


class Watchdog:
    """Looks every `every_s` for resources whose deletion is older than `after_s`; tells of each once."""

    def __init__(
        self,
        *,
        index: ResourceIndex,
        record: Callable[[Event], None],
        clock: Clock,
        after_s: float,
        every_s: float = 30.0,
    ) -> None:
        self._index = index
        self._record = record
        self._clock = clock
        self._after_s = after_s
        self._every_s = every_s
        self._told: set[str] = set()

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            await asyncio.sleep(self._every_s)
            self.look()

    def look(self) -> None:
        """Tell of every stuck deletion that was not told of yet."""
        found = self.stuck()
        self._told &= {resource.metadata.uid for resource in found}
        for resource in found:
            if resource.metadata.uid in self._told:
                continue
            message = why(resource)
            _log.warning(
                "a deletion does not end",
                kind=resource.kind,
                namespace=resource.metadata.organization,
                name=resource.metadata.name,
                why=message,
            )
            uid = resource.metadata.uid
            self._record(Event(resource.key, "Warning", "DeletionStuck", message, self._clock.now(), uid))
            self._told.add(uid)

    def stuck(self) -> Sequence[Resource]:
        """Every resource that has been going for too long."""
        return stuck(self._index, self._clock.now(), self._after_s)


def stuck(index: ResourceIndex, now: datetime, after_s: float) -> list[Resource]:
    """Return the resources that were to be deleted more than `after_s` seconds before `now` and are still there."""
    found = (index.get(key) for key in index.everything())
    return [
        item
        for item in found
        if item is not None
        and item.metadata.deletion_timestamp is not None
        and (now - item.metadata.deletion_timestamp).total_seconds() > after_s
    ]


def why(resource: Resource) -> str:
    """Return what a deletion waits for, as far as it is known."""
    others = [name for name in resource.metadata.finalizers if name != FINALIZER]
    if FINALIZER not in resource.metadata.finalizers:
        return f"The deletion waits for the finalizers {', '.join(others)}, which are not this operator's"
    ready = conditions.read(resource.status, conditions.READY) or {}
    text = ready.get("message") or ready.get("reason") or "the operator has not seen it"
    return f"The deletion does not end: {text}"
