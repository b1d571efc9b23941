"""Answers that are kept: the bytes of their JSON, found by everything they depend on.

    <namespace>:retriever:<retriever>:answer:<key>      a whole answer
    <namespace>:retriever:<retriever>:stage:<key>       what a stage made

A cache that is away or slow costs its adapter's time limit and never an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import structlog

from mixpeek_operator.core.clock import Clock
from mixpeek_operator.core.errors import MixpeekError
from mixpeek_operator.ports.cache import Cache

MAX_BYTES: Final = 8 * 1024 * 1024
"""Largest entry that is kept."""

_log = structlog.get_logger(__name__)


def prefix(namespace_id: str, retriever_id: str) -> str:
    """Return what the keys of everything kept for a retriever begin with."""
    return f"{namespace_id}:retriever:{retriever_id}:"


class Shelf:
    """The cache, as a helper that may be absent: what it cannot answer it does not have."""

    def __init__(self, cache: Cache, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock
        self._writing: set[asyncio.Task[None]] = set()

    def now(self) -> float:
        """Unix time."""
        return self._clock.now().timestamp()

    async def get(self, key: str) -> bytes | None:
        """Return an entry, None when there is none or the cache is away."""
        try:
            return await self._cache.get(key)
        except MixpeekError as error:
            _log.warning("cache_not_read", reason=error.message)
            return None

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep an entry unless it is too large or the cache is away."""
        if len(value) > MAX_BYTES:
            return
        try:
            await self._cache.set(key, value, ttl_s=ttl_s)
        except MixpeekError as error:
            _log.warning("cache_not_written", reason=error.message)

    def put_later(self, key: str, make: Callable[[], Awaitable[bytes | None]], ttl_s: float) -> None:
        """Make and keep an entry behind the answer, which does not wait for it."""

        async def write() -> None:
            value = await make()
            if value is not None:
                await self.put(key, value, ttl_s)

        task = asyncio.create_task(write(), name="keep-stage-output")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def clear(self, namespace_id: str, retriever_id: str) -> int | None:
        """Delete everything kept for a retriever; the number of entries, None when the cache is away."""
        try:
            return await self._cache.delete_prefix(prefix(namespace_id, retriever_id))
        except MixpeekError as error:
            _log.warning("cache_not_cleared", reason=error.message)
            return None

    async def close(self) -> None:
        """Finish what is being written."""
        await asyncio.gather(*self._writing, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer without what is another in every response: the execution's id and `cached_at`."""

    at: float
    """Unix time at which it was made."""
    body: bytes
    """JSON members between the id and `cached_at`."""
    facts: Mapping[str, Any]
    """What the history of a hit tells: status, number of documents, the query."""
    marks: Mapping[str, str]
    """See Dependencies."""
    gaps: Sequence[Sequence[Any]] = ()
    """What was taken out of its documents; see Withheld."""

    def encode(self) -> bytes:
        """As it is stored: a line of JSON, then the body."""
        head = {"at": self.at, "facts": self.facts, "marks": self.marks, "gaps": self.gaps}
        return orjson.dumps(head) + b"\n" + self.body

    @classmethod
    def decode(cls, value: bytes) -> Kept:
        head, _, body = value.partition(b"\n")
        found = orjson.loads(head)
        return cls(found["at"], body, found["facts"], found["marks"], found.get("gaps", ()))


class Answers:
    """Kept answers, each computed once however many ask for it at the same time."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._flights: dict[str, asyncio.Future[Kept | None]] = {}
        self._landing: set[asyncio.Task[None]] = set()

    async def find(self, key: str) -> Kept | None:
        """Return the answer that is kept or just being made for somebody else; None when there is none.

        Raises what made the other one fail.
        """
        flight = self._flights.get(key)
        if flight is None:
            value = await self._shelf.get(key)
            # Another may have begun while the cache was asked.
            flight = self._flights.get(key)
            if value is not None or flight is None:
                return None if value is None else Kept.decode(value)
        # A caller that gives up must not take the others along.
        return await asyncio.shield(flight)

    def begin(self, key: str, make: Callable[[], Awaitable[Kept | None]], ttl_s: float) -> asyncio.Future[Kept | None]:
        """Start making an answer, which goes on when its caller leaves, and keep it unless it is None.

        Until it is kept, whoever looks for it finds it here; so nobody waits for the cache to have it.
        """
        flight: asyncio.Future[Kept | None] = asyncio.get_running_loop().create_future()
        flight.add_done_callback(_looked_at)
        self._flights[key] = flight
        task = asyncio.create_task(self._land(key, flight, make, ttl_s), name="answer")
        self._landing.add(task)
        task.add_done_callback(self._landing.discard)
        return flight

    async def keep(self, key: str, kept: Kept, ttl_s: float) -> None:
        """Keep an answer that was made for one caller."""
        await self._shelf.put(key, kept.encode(), ttl_s)

    async def close(self) -> None:
        """Finish what is being made."""
        await asyncio.gather(*self._landing, return_exceptions=True)

    async def _land(
        self, key: str, flight: asyncio.Future[Kept | None], make: Callable[[], Awaitable[Kept | None]], ttl_s: float
    ) -> None:
        try:
            try:
                kept = await make()
            except asyncio.CancelledError:
                flight.cancel()
                raise
            except Exception as error:
                flight.set_exception(error)
                return
            flight.set_result(kept)
            if kept is not None:
                await self.keep(key, kept, ttl_s)
        finally:
            if self._flights.get(key) is flight:
                del self._flights[key]


def _looked_at(flight: asyncio.Future[Kept | None]) -> None:
    """A failure that nobody waits for any more is in the history; asyncio need not report it again."""
    if not flight.cancelled():
        flight.exception()
