"""The embedded work queue: decides which resource the engine visits next, and when again.

One visit per resource at a time, at most `concurrency` altogether, organizations in turn. Everything is driven by
changes and timers; nothing polls.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import structlog

from mixpeek_operator.core import conditions
from mixpeek_operator.core.index import ResourceIndex
from mixpeek_operator.core.resource import FINALIZER, ID_ANNOTATION, Resource, ResourceKey
from mixpeek_operator.core.visit import Again, Outcome
from mixpeek_operator.ports.resources import ResourceStore

_log = structlog.get_logger(__name__)


class Reconciler(Protocol):
    """What visits one resource; the engine."""

    async def reconcile(self, key: ResourceKey, *, reading: Callable[[], None]) -> Outcome: ...


class Queue:
    """Runs the engine over every resource of the index, which it feeds from `store`, or which others feed.

    `first_delay_s` and `max_delay_s` bound the backoff, `drift_interval_s` is the time between two visits of a
    resource that nothing happens to; each is spread by `jitter`, a number in [0, 1). `gathers` names the kinds whose
    plans depend on those who refer to them, and the kinds of those.
    """

    def __init__(
        self,
        *,
        index: ResourceIndex,
        engine: Reconciler,
        store: ResourceStore | None = None,
        concurrency: int = 8,
        drift_interval_s: float = 300.0,
        first_delay_s: float = 0.5,
        max_delay_s: float = 120.0,
        gathers: Mapping[str, Collection[str]] | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._index = index
        self._engine = engine
        self._concurrency = concurrency
        self._drift_interval_s = drift_interval_s
        self._first_delay_s = first_delay_s
        self._max_delay_s = max_delay_s
        self._gathers = gathers or {}
        self._jitter = jitter
        self._ready: OrderedDict[str, deque[ResourceKey]] = OrderedDict()
        self._queued: set[ResourceKey] = set()
        self._active: dict[ResourceKey, asyncio.Task[None]] = {}
        self._dirty: set[ResourceKey] = set()
        self._failures: dict[ResourceKey, int] = {}
        self._timers: dict[ResourceKey, asyncio.TimerHandle] = {}
        self._watch: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._busy_at = float("-inf")
        """When the last visit ended, in the event loop's time."""
        self._running = False

    async def start(self) -> None:
        """Visit every resource once, and each again from then on whenever something concerns it."""
        self._running = True
        self._unsubscribe = self._index.subscribe(self._changed)
        if self._store is not None:
            await self._index.load(self._store)
        for key in self._index.everything():
            self.wake(key)
        if self._store is not None:
            self._watch = asyncio.create_task(self._follow(self._store), name="watch resources")

    async def stop(self, timeout_s: float = 10.0) -> None:
        """Start no visit any more; let those under way finish within `timeout_s`, then cut them off."""
        self._running = False
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._ready.clear()
        self._queued.clear()
        tasks: list[asyncio.Task[None]] = list(self._active.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout_s)
            for task in late:
                task.cancel()
        if self._watch is not None:
            self._watch.cancel()
            tasks.append(self._watch)
            self._watch = None
        await asyncio.gather(*tasks, return_exceptions=True)
        self._idle.set()

    def wake(self, key: ResourceKey) -> None:
        """Visit a resource as soon as its turn comes."""
        if not self._running:
            return
        if key in self._active:
            self._dirty.add(key)
            return
        if key in self._queued:
            return
        self._forget_timer(key)
        self._queued.add(key)
        self._ready.setdefault(key.organization, deque()).append(key)
        self._idle.clear()
        self._pump()

    @property
    def waiting(self) -> int:
        """How many resources wait for their turn."""
        return len(self._queued)

    @property
    def active(self) -> int:
        """How many resources are being visited."""
        return len(self._active)

    async def idle(self, quiet_s: float = 0.0) -> None:
        """Return when nothing is queued or under way (timers may still be pending), and was not for `quiet_s`."""
        while True:
            await self._idle.wait()
            left_s = self._busy_at + quiet_s - asyncio.get_running_loop().time()
            if left_s <= 0 or not self._running:
                return
            await asyncio.sleep(left_s)

    # -- turns -------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        while self._running and self._ready and len(self._active) < self._concurrency:
            organization, waiting = next(iter(self._ready.items()))
            key = waiting.popleft()
            if waiting:
                self._ready.move_to_end(organization)
            else:
                del self._ready[organization]
            self._queued.discard(key)
            task = asyncio.create_task(self._visit(key), name=f"reconcile {key}")
            self._active[key] = task
        if not self._active and not self._ready:
            self._idle.set()

    async def _visit(self, key: ResourceKey) -> None:
        outcome = Outcome(Again.BACKOFF)
        try:
            # What it was woken for before it reads, it is about to see.
            outcome = await self._engine.reconcile(key, reading=lambda: self._dirty.discard(key))
        except Exception as error:
            # The engine maps what concerns the resource; what is left is the resource store itself.
            _log.warning("visiting again after an error", kind=key.kind, name=key.name, error=str(error))
        finally:
            self._active.pop(key, None)
            self._busy_at = asyncio.get_running_loop().time()
            self._plan_next(key, outcome)
            self._pump()

    def _plan_next(self, key: ResourceKey, outcome: Outcome) -> None:
        if not self._running:
            return
        failures = self._failures.pop(key, 0) if outcome.again is Again.NO else self._failures.get(key, 0) + 1
        if outcome.again is not Again.NO:
            self._failures[key] = failures
        if key in self._dirty:
            self._dirty.discard(key)
            if outcome.again is Again.NO:
                self.wake(key)
                return
        if outcome.again is Again.NO and self._index.get(key) is None:
            self._failures.pop(key, None)
            return
        self._later(key, self._delay(outcome, failures))

    def _delay(self, outcome: Outcome, failures: int) -> float:
        if outcome.again is Again.SLOW:
            return self._max_delay_s * (0.5 + self._jitter() / 2)
        if outcome.again is Again.BACKOFF:
            ceiling = min(self._max_delay_s, self._first_delay_s * 2.0 ** min(failures - 1, 30))
            return ceiling * self._jitter()
        check_s = self._drift_interval_s * (0.9 + self._jitter() / 5)
        return check_s if outcome.after_s is None else min(outcome.after_s, check_s)

    def _later(self, key: ResourceKey, delay_s: float) -> None:
        self._forget_timer(key)
        self._timers[key] = asyncio.get_running_loop().call_later(delay_s, self._due, key)

    def _due(self, key: ResourceKey) -> None:
        self._timers.pop(key, None)
        self.wake(key)

    def _forget_timer(self, key: ResourceKey) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    # -- changes -----------------------------------------------------------------------------------------------

    def _changed(self, before: Resource | None, after: Resource | None) -> None:
        """Wake whom a change concerns: the resource, who refers to it, and whose deletion waited for it."""
        if before is None or after is None or _declared(before) != _declared(after):
            for resource in (before, after):
                if resource is not None:
                    self._wake_targets(resource)
            if after is not None:
                if before is None or not _adopted(before, after):
                    self.wake(after.key)
            elif before is not None:
                self._forget_timer(before.key)
                self._failures.pop(before.key, None)
        if before is None or after is None or _shown(before) != _shown(after):
            for resource in (before, after):
                if resource is not None:
                    for referrer in self._index.referrers(resource):
                        self.wake(referrer.key)
        elif before.id != after.id:
            # Who waits until it is ready, and knows it by its name, learns nothing from an id.
            waiting = [] if conditions.is_ready(after) else self._index.referrers(before, ordered=True)
            known = {referrer.key for referrer in waiting}
            for referrer in self._index.referrers(after):
                if referrer.key not in known:
                    self.wake(referrer.key)

    def _wake_targets(self, resource: Resource) -> None:
        """Wake those it refers to whose deletion waits for it, or whose plan depends on it."""
        for target in self._index.targets(resource):
            if target.deleting or resource.kind in self._gathers.get(target.kind, ()):
                self.wake(target.key)

    async def _follow(self, store: ResourceStore) -> None:
        """Feed the index from the store's watch, for ever; a watch that breaks is begun again."""
        attempts = 0
        while True:
            try:
                async for change in store.watch():
                    attempts = 0
                    self._index.apply(change)
            except Exception as error:
                _log.warning("watching again after an error", error=str(error))
            attempts += 1
            await asyncio.sleep(
                self._first_delay_s
                + min(self._max_delay_s, self._first_delay_s * 2.0 ** min(attempts, 30)) * self._jitter()
            )


def _declared(resource: Resource) -> tuple[object, ...]:
    metadata = resource.metadata
    return (
        metadata.uid,
        metadata.generation,
        resource.deleting,
        metadata.annotations,
        metadata.finalizers,
    )


def _adopted(before: Resource, after: Resource) -> bool:
    """Whether a visit has given it an id and our finalizer and nothing else changed; the visit goes on with both."""
    old, new = before.metadata, after.metadata
    given = {key: value for key, value in new.annotations.items() if key != ID_ANNOTATION or before.id}
    return (
        FINALIZER not in old.finalizers
        and list(new.finalizers) == [*old.finalizers, FINALIZER]
        and given == dict(old.annotations)
        and (old.uid, old.generation, before.deleting) == (new.uid, new.generation, after.deleting)
    )


def _shown(resource: Resource) -> tuple[object, ...]:
    """What others can see of a resource and decide by, its id aside."""
    ready = conditions.read(resource.status, conditions.READY) or {}
    metadata = resource.metadata
    return (
        metadata.uid,
        metadata.generation,
        resource.deleting,
        ready.get("status"),
        resource.status.get("data_lost_at"),
        resource.status.get("tier"),
    )
