"""Keeps an index equal to the custom resources of a cluster: list, watch from there, list again when it must."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import structlog

from mixpeek_operator.adapters.kubernetes_api import Api, KubernetesApi, Object
from mixpeek_operator.adapters.kubernetes_errors import Expired
from mixpeek_operator.adapters.kubernetes_objects import Objects
from mixpeek_operator.core.errors import MixpeekError, NotFoundError
from mixpeek_operator.core.index import ResourceIndex
from mixpeek_operator.core.resource import Metadata, Resource, ResourceKey
from mixpeek_operator.ports.resources import Change

_log = structlog.get_logger(__name__)
_FIRST_DELAY_S, _LAST_DELAY_S = 0.25, 15.0


class Reflector:
    """Follows every kind in `namespaces` (in all when empty); `synced` returns once everything was read."""

    def __init__(self, api: KubernetesApi, objects: Objects, index: ResourceIndex, namespaces: Sequence[str]) -> None:
        self._api = api
        self._objects = objects
        self._index = index
        self._places: list[tuple[Api, str | None]] = [
            (kind, namespace) for kind in objects.apis.values() for namespace in (namespaces or (None,))
        ]
        self._unread = set(range(len(self._places)))
        self._synced = asyncio.Event()
        self._failed: MixpeekError | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def synced(self, timeout_s: float) -> None:
        """Start on the first call; return when everything was read once. Raises why not after `timeout_s`."""
        if not self._tasks:
            for number, (kind, namespace) in enumerate(self._places):
                work = self._follow(number, kind, namespace)
                self._tasks.append(asyncio.create_task(work, name=f"follow {kind.plural}"))
        if self._synced.is_set():
            return
        try:
            await asyncio.wait_for(self._synced.wait(), timeout_s)
        except TimeoutError:
            raise self._failed or TimeoutError from None

    async def stop(self) -> None:
        """Follow no longer."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _follow(self, number: int, kind: Api, namespace: str | None) -> None:
        version, failures = "", 0
        while True:
            try:
                if not version:
                    version = await self._list(kind, namespace)
                    self._unread.discard(number)
                    if not self._unread:
                        self._synced.set()
                async for event in self._api.watch(kind, namespace, resource_version=version):
                    failures = 0
                    version = str(event.object["metadata"]["resourceVersion"])
                    if event.type != "BOOKMARK":
                        self._take(event.type, event.object)
            except (Expired, NotFoundError) as error:
                # Expired: that version is forgotten. Not found: the definition itself went, and may come back.
                self._failed, version, failures = error, "", failures + 1
                _log.info("listing again", kind=kind.kind, error=str(error))
            except MixpeekError as error:
                self._failed, failures = error, failures + 1
                _log.warning("watching again after an error", kind=kind.kind, error=str(error))
            if failures:
                ceiling = min(_LAST_DELAY_S, _FIRST_DELAY_S * 2.0 ** min(failures, 30))
                await asyncio.sleep(ceiling * (0.5 + random.random() / 2))  # noqa: S311 - spreads load

    async def _list(self, kind: Api, namespace: str | None) -> str:
        page = await self._api.list(kind, namespace)
        there: set[ResourceKey] = set()
        for raw in page.items:
            there.add(ResourceKey(kind.kind, raw["metadata"]["namespace"], raw["metadata"]["name"]))
            self._take("ADDED", raw)
        for key in self._index.everything():
            known = self._index.get(key)
            if known is None or key.kind != kind.kind or key in there or namespace not in (None, key.organization):
                continue
            # What is newer than the listing was made after it.
            if known.metadata.resource_version <= int(page.resource_version):
                self._index.apply(Change("DELETED", known))
        return page.resource_version

    def _take(self, type: str, raw: Object) -> None:
        metadata = raw["metadata"]
        key = ResourceKey(raw["kind"], metadata["namespace"], metadata["name"])
        if type == "DELETED":
            # Only its identity matters, so that even what cannot be read can go.
            version = int(metadata["resourceVersion"])
            gone = Metadata(key.name, key.organization, uid=metadata["uid"], resource_version=version)
            self._index.apply(Change(type, Resource(key.kind, gone, {})))
            return
        try:
            resource = self._objects.decode(raw)
        except Exception:
            # One object that cannot be read must not keep the others from being followed.
            _log.exception("leaving out an object that cannot be read", kind=key.kind, name=key.name)
            return
        self._index.apply(Change(type, resource))
