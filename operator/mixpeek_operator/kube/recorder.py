"""Events of Kubernetes, written behind the work: whoever waits for Ready does not wait for what is told about it.

As with client-go's recorder they are news, not state: they wait in memory, those beyond a bound are dropped, and what
waits when the process is killed is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from mixpeek_operator.core.clock import Clock
from mixpeek_operator.core.errors import MixpeekError, UnavailableError
from mixpeek_operator.core.resource import Event

_log = structlog.get_logger(__name__)
_KEPT = 10_000
_RETRY_S = 1.0


class EventRecorder:
    """Writes warnings at once, and the rest when nothing is being reconciled or `patience_s` have passed."""

    def __init__(
        self,
        *,
        write: Callable[[Event], Awaitable[None]],
        idle: Callable[[], Awaitable[None]],
        clock: Clock,
        patience_s: float = 30.0,
        kept: int = _KEPT,
    ) -> None:
        """`idle` returns when no resource is visited or was a moment ago; `kept` bounds the events of either sort."""
        self._write = write
        self._idle = idle
        self._clock = clock
        self._patience_s = patience_s
        self._warnings: asyncio.Queue[Event] = asyncio.Queue(kept)
        self._others: asyncio.Queue[Event] = asyncio.Queue(kept)
        self._unwritten = 0

    @property
    def waiting(self) -> int:
        """How many events are not written yet."""
        return self._unwritten

    def record(self, event: Event) -> None:
        """Take an event; never waits and never raises."""
        try:
            (self._warnings if event.type == "Warning" else self._others).put_nowait(event)
            self._unwritten += 1
        except asyncio.QueueFull:
            _log.warning("too many events wait; dropped one", resource=str(event.key), event_message=event.message)

    async def run(self) -> None:
        """Write what was taken, one of a sort at a time, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._drain(self._warnings), name="warnings")
            tasks.create_task(self._drain(self._others, self._turn), name="events")

    async def flush(self, timeout_s: float) -> None:
        """Return when everything is written, at the latest after `timeout_s`; what is left is told in the log."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._warnings.join()
                await self._others.join()
        except TimeoutError:
            _log.warning("events were not written", events=self._unwritten)

    async def _drain(
        self, events: asyncio.Queue[Event], turn: Callable[[Event], Awaitable[None]] | None = None
    ) -> None:
        while True:
            event = await events.get()
            if turn is not None:
                await turn(event)
            await self._written(event)
            self._unwritten -= 1
            events.task_done()

    async def _turn(self, event: Event) -> None:
        waited_s = (self._clock.now() - event.at).total_seconds()
        try:
            async with asyncio.timeout(max(self._patience_s - waited_s, 0.0)):
                await self._idle()
        except TimeoutError:
            return

    async def _written(self, event: Event) -> None:
        while True:
            try:
                return await self._write(event)
            except UnavailableError:
                await asyncio.sleep(_RETRY_S)
            except Exception as error:
                # News that cannot be told must not end who works.
                bug = error if not isinstance(error, MixpeekError) else None
                _log.warning("could not record an event", resource=str(event.key), error=str(error), exc_info=bug)
                return None
