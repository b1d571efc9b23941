"""Changes of custom resources, from kopf: it watches and tells, and does nothing else.

One `on.event` handler per kind, made from the registry of kinds. Handlers of that sort make kopf keep nothing in the
objects: no finalizer, no annotation, no last-handled configuration. Peering, posting of events and scanning for new
kinds are off. kopf runs in a thread with an event loop of its own, because it cancels every task of its loop when it
ends, and it ends on answers it does not know; it is then started again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import kopf
import structlog

from mixpeek_operator.core.errors import MixpeekError
from mixpeek_operator.core.resource import API_GROUP, API_VERSION

_log = structlog.get_logger(__name__)
_RESTART_S = 2.0
_STOP_S = 5.0
_IDENTITY: Any = "mixpeek-operator"
"""kopf's name for us; its own begins with the user's name, and in a container the user's id may have none."""


@dataclass(frozen=True, slots=True)
class Watched:
    """One kind of object to follow."""

    kind: str
    plural: str
    group: str = API_GROUP
    version: str = API_VERSION.partition("/")[2]
    name: str | None = None
    """Only objects of this name."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One event as kopf saw it; `type` is None for an object of a listing."""

    kind: str
    type: str | None
    object: Mapping[str, Any]


class _Backoff:
    """Delays without an end: a request of a watch is tried until the API server answers."""

    def __iter__(self) -> Iterator[float]:
        delay = 0.1
        while True:
            yield delay * (0.75 + random.random() / 2)  # noqa: S311 - spreads load, guards nothing
            delay = min(delay * 2, 2.0)


class KopfEvents:
    """Delivers events to `deliver`, in the event loop that `run` was called in."""

    def __init__(
        self,
        *,
        watched: Sequence[Watched],
        login: Callable[[], kopf.AiohttpSession],
        deliver: Callable[[Seen], None],
        served: Callable[[], Awaitable[None]],
        namespaces: Sequence[str] = (),
        watch_s: int = 240,
    ) -> None:
        """`login` is called in kopf's event loop whenever it needs credentials. `served` raises MixpeekError while the
        API server does not know every kind: kopf looks for them once, when it starts. Without `namespaces` all are
        followed. `watch_s` is the longest life of one watch request.
        """
        self._watched = tuple(watched)
        self._login = login
        self._deliver = deliver
        self._served = served
        self._namespaces = tuple(namespaces)
        self._watch_s = watch_s
        self.restarts = 0

    async def run(self) -> None:
        """Follow until cancelled; when kopf ends by itself it is started again."""
        while True:
            try:
                await self._served()
                failure = await self._once()
                _log.warning("following changes anew", error=str(failure or "kopf ended"))
            except MixpeekError as error:
                _log.warning("waiting to follow changes", error=str(error))
            self.restarts += 1
            await asyncio.sleep(_RESTART_S)

    async def _once(self) -> BaseException | None:
        """Run kopf until it ends, or until cancelled. Returns what ended it."""
        home = asyncio.get_running_loop()
        ended: asyncio.Future[BaseException | None] = home.create_future()
        # An event loop of the same make as ours.
        thread = _Thread(type(home), self._operator(home), lambda failure: _settle(home, ended, failure))
        thread.start()
        try:
            return await asyncio.shield(ended)
        finally:
            thread.stop()
            await asyncio.wait([ended], timeout=_STOP_S)

    def _operator(self, home: asyncio.AbstractEventLoop) -> Callable[[asyncio.Event], Any]:
        registry = kopf.OperatorRegistry()
        kopf.on.login(id="login", registry=registry)(self._credentials)
        for watched in self._watched:
            kopf.on.event(
                group=watched.group,
                version=watched.version,
                plural=watched.plural,
                id=watched.plural,
                registry=registry,
            )(self._handler(home, watched.kind))
        where = {"namespaces": self._namespaces} if self._namespaces else {"clusterwide": True}
        settings = _settings(self._watch_s)
        for watched in self._watched:
            if watched.name is not None:
                selector = f"metadata.name={watched.name}"
                settings.watching.field_selectors[watched.group, watched.version, watched.plural] = selector

        async def operator(stop: asyncio.Event) -> None:
            await kopf.operator(
                registry=registry, settings=settings, standalone=True, stop_flag=stop, identity=_IDENTITY, **where
            )

        return operator

    async def _credentials(self, **_: Any) -> kopf.AiohttpSession:
        return self._login()

    def _handler(self, home: asyncio.AbstractEventLoop, kind: str) -> Callable[..., Any]:
        async def handle(event: Mapping[str, Any], **_: Any) -> None:
            found = event["object"]
            if kind == "Secret":
                # That it changed is told; what it holds stays where it is.
                found = {"metadata": found["metadata"]}
            home.call_soon_threadsafe(self._deliver, Seen(kind, event["type"], found))

        return handle


class _Thread(threading.Thread):
    """kopf's thread. A daemon: a request that hangs must not keep the process alive."""

    def __init__(
        self,
        new_loop: Callable[[], asyncio.AbstractEventLoop],
        operator: Callable[[asyncio.Event], Any],
        ended: Callable[[BaseException | None], None],
    ) -> None:
        super().__init__(name="kopf", daemon=True)
        self._new_loop = new_loop
        self._operator = operator
        self._ended = ended
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._stopped = False

    def run(self) -> None:
        failure: BaseException | None = None
        try:
            with asyncio.Runner(loop_factory=self._new_loop) as runner:
                runner.run(self._main())
        except BaseException as error:
            failure = error
        self._ended(failure)

    def stop(self) -> None:
        """Ask kopf to end; harmless when it has ended."""
        with self._lock:
            self._stopped = True
            if self._loop is not None and self._stop is not None:
                self._loop.call_soon_threadsafe(self._stop.set)

    async def _main(self) -> None:
        stop = asyncio.Event()
        with self._lock:
            if self._stopped:
                return
            self._loop, self._stop = asyncio.get_running_loop(), stop
        try:
            await self._operator(stop)
        finally:
            with self._lock:
                self._loop = None


def _settle(
    home: asyncio.AbstractEventLoop, ended: asyncio.Future[BaseException | None], failure: BaseException | None
) -> None:
    def settle() -> None:
        if not ended.done():
            ended.set_result(failure)

    if not home.is_closed():
        home.call_soon_threadsafe(settle)


def _settings(watch_s: int) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    # Without these a connection that died silently is never noticed, and the watch stands still.
    settings.watching.server_timeout = watch_s
    settings.watching.client_timeout = watch_s + 10
    settings.watching.connect_timeout = 5
    settings.networking.connect_timeout = 5
    settings.networking.request_timeout = 60
    settings.networking.error_backoffs = _Backoff()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.queueing.idle_timeout = 0.5
    settings.queueing.exit_timeout = 0.5
    settings.process.ultimate_exiting_timeout = None
    settings.persistence.diffbase_storage = _NoDiffs()
    # Nothing of its handlers is kept anywhere; its default would look through every annotation all the same.
    settings.persistence.progress_storage = kopf.StatusProgressStorage()
    return settings


class _NoDiffs(kopf.DiffBaseStorage):
    """Compares nothing: kopf would copy every object of every event to find changes that nobody here asks it for."""

    def build(self, *, body: kopf.Body, extra_fields: object = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        pass


class _Quiet(logging.Filter):
    """Drops what kopf says about every single retry, and about signals, which are not its business here.

    That the API server is away is said once, by whoever has to wait for it; that a right is missing, by the first try.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if text.startswith("Request attempt #1 ") and "APIForbiddenError" in text:
            return True
        return not text.startswith(("Request attempt #", "OS signals are ignored"))


def quiet_kopf() -> None:
    """Let kopf log warnings only, and not one per retry. For the process that runs."""
    logging.getLogger("kopf").setLevel(logging.WARNING)
    for name in ("kopf._cogs.clients.watching", "kopf._core.reactor.running", "kopf._core.reactor.observation"):
        logging.getLogger(name).addFilter(_Quiet())
