"""Keeps the index equal to what the API server holds.

Events say what changes, a listing of our own says what there is: at the start, so that nothing is judged to be missing
before everything was read; after kopf listed anew, because a listing says nothing of what is gone; and now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from mixpeek_operator.core.errors import MixpeekError
from mixpeek_operator.core.index import ResourceIndex
from mixpeek_operator.core.resource import Metadata, Resource, ResourceKey
from mixpeek_operator.kube.events import Seen
from mixpeek_operator.ports.resources import Change

_log = structlog.get_logger(__name__)
_SETTLE_S = 0.5
_RETRY_S = 2.0


@dataclass(frozen=True, slots=True)
class Listing:
    """Every object of one kind, and the version of the store at which that was so."""

    kind: str
    objects: Sequence[Mapping[str, Any]]
    version: int
    namespace: str | None = None
    """Where it was looked for; None for everywhere."""


class Events(Protocol):
    """What tells of changes until cancelled."""

    async def run(self) -> None: ...


class Follower:
    """Feeds a ResourceIndex from listings and events."""

    def __init__(
        self,
        *,
        index: ResourceIndex,
        list_all: Callable[[], Awaitable[Sequence[Listing]]],
        decode: Callable[[Mapping[str, Any]], Resource],
        events: Callable[[Callable[[Seen], None]], Events],
        resync_s: float = 300.0,
    ) -> None:
        """`events` makes the source from what takes its events; `resync_s` is the time between two listings."""
        self._index = index
        self._list_all = list_all
        self._decode = decode
        self._events = events(self.take)
        self._resync_s = resync_s
        self._listed = asyncio.Event()
        self.complete = asyncio.Event()
        """Set once everything was read."""
        self.failure = ""
        """Why the last listing failed; "" when it did not."""
        self.taken = 0
        """Events so far."""

    async def run(self) -> None:
        """Follow until cancelled. Waits for an API server that is away, and for definitions that are not installed."""
        while not self.complete.is_set():
            try:
                await self.sync()
            except MixpeekError as error:
                _log.warning("waiting for the API server", error=str(error))
                await asyncio.sleep(_RETRY_S)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._events.run(), name="events")
            tasks.create_task(self._keep_complete(), name="resync")

    async def sync(self) -> None:
        """Make the index equal to a listing taken now. Raises what the API server's client raises."""
        try:
            listings = await self._list_all()
        except MixpeekError as error:
            self.failure = str(error)
            raise
        for listing in listings:
            there = set()
            for raw in listing.objects:
                there.add(_key(listing.kind, raw))
                self._apply("ADDED", listing.kind, raw)
            for key in self._index.everything():
                known = self._index.get(key)
                if known is None or key.kind != listing.kind or key in there:
                    continue
                if listing.namespace not in (None, key.organization):
                    continue
                # What is newer than the listing was made after it.
                if known.metadata.resource_version <= listing.version:
                    self._index.apply(Change("DELETED", known))
        self.failure = ""
        self.complete.set()

    def take(self, seen: Seen) -> None:
        """Take in one event."""
        self.taken += 1
        if seen.type is None:
            self._listed.set()
        self._apply("DELETED" if seen.type == "DELETED" else "MODIFIED", seen.kind, seen.object)

    def _apply(self, type: str, kind: str, raw: Mapping[str, Any]) -> None:
        metadata = raw["metadata"]
        key, version = _key(kind, raw), int(metadata["resourceVersion"])
        known = self._index.get(key)
        same = known is not None and known.metadata.uid == metadata["uid"]
        if type == "DELETED":
            # Only its identity matters, so that even what cannot be read can go.
            gone = Metadata(key.name, key.organization, uid=metadata["uid"], resource_version=version)
            self._index.apply(Change(type, Resource(kind, gone, {})))
            return
        if known is not None and same and known.metadata.resource_version >= version:
            return  # our own write comes back, or a listing repeats what is known
        try:
            resource = self._decode(raw)
        except Exception:
            # One object that cannot be read must not keep the others from being followed.
            _log.exception("leaving out an object that cannot be read", kind=kind, name=key.name)
            return
        self._index.apply(Change(type, resource))

    async def _keep_complete(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._listed.wait(), timeout=self._resync_s)
                await asyncio.sleep(_SETTLE_S)
            self._listed.clear()
            try:
                await self.sync()
            except MixpeekError as error:
                _log.warning("could not list", error=str(error))
                await asyncio.sleep(_RETRY_S)
                self._listed.set()


def _key(kind: str, raw: Mapping[str, Any]) -> ResourceKey:
    metadata = raw["metadata"]
    return ResourceKey(kind, metadata.get("namespace", ""), metadata["name"])
