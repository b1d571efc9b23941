"""ResourceStore on custom resources: an organization is a Kubernetes namespace.

Reads come from a ResourceIndex that follows the cluster, writes go to the API server and are in the index when they
return. docs/decisions/0007-custom-resources-as-the-store.md says what holds without transactions.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import structlog

from mixpeek_operator.adapters._clash import clash
from mixpeek_operator.adapters._kubernetes_events import Recorder
from mixpeek_operator.adapters._kubernetes_reflector import Reflector
from mixpeek_operator.adapters._kubernetes_writes import Write, apply_body, metadata_patch, replaced, same, says
from mixpeek_operator.adapters._watcher import Watcher
from mixpeek_operator.adapters.kubernetes_api import JSON_PATCH, MERGE_PATCH, KubernetesApi, Object
from mixpeek_operator.adapters.kubernetes_objects import Objects
from mixpeek_operator.core.errors import (
    AlreadyExistsError,
    ConflictError,
    MixpeekError,
    NotFoundError,
    SpecError,
)
from mixpeek_operator.core.index import ResourceIndex
from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.core.resource import Event, Metadata, Resource, ResourceKey
from mixpeek_operator.ports.resources import Change

REST_MANAGER, MANIFEST_MANAGER, STATUS_MANAGER = "mixpeek-api", "mixpeek-manifest", "mixpeek-operator"
_SYNC_S = 60.0
"""How long a read waits for the first listing, in seconds."""
_UNDO_ATTEMPTS = 5
_log = structlog.get_logger(__name__)
T = TypeVar("T")


class KubernetesResources:
    """Custom resources of `schemas` in `namespaces` (all when empty); see ports.resources.ResourceStore.

    `follow`: feed `index` ourselves, from the first read on. Without, somebody else does. `manager` is the field
    manager of what is declared. Closing it closes `api`.
    """

    def __init__(
        self,
        api: KubernetesApi,
        schemas: Mapping[str, KindSchema],
        index: ResourceIndex,
        *,
        namespaces: Sequence[str] = (),
        follow: bool = True,
        manager: str = REST_MANAGER,
    ) -> None:
        self._api = api
        self._objects = Objects(schemas)
        self._index = index
        self._manager = manager
        self._reflector = Reflector(api, self._objects, index, namespaces) if follow else None
        self._recorder = Recorder(api)
        self._running: set[asyncio.Future[Any]] = set()

    def managed_by(self, manager: str) -> KubernetesResources:
        """Return the same store with another field manager; it is closed with this one."""
        other = copy.copy(self)
        other._manager = manager
        return other

    # -- reading -----------------------------------------------------------------------------------------------

    async def get(self, key: ResourceKey) -> Resource | None:
        await self._synced()
        known = self._index.get(key) or await self._read(key)
        return None if known is None else _copy(known)

    async def find(self, organization: str, kind: str | None = None, *, namespace: str | None = None) -> list[Resource]:
        await self._synced()
        kinds = sorted(self._objects.apis) if kind is None else [kind]
        return [_copy(item) for name in kinds for item in self._index.of(organization, name, namespace)]

    async def by_id(self, organization: str, id: str) -> Resource | None:
        await self._synced()
        found = self._index.by_id(id)
        return _copy(found) if found is not None and found.metadata.organization == organization else None

    async def organizations(self) -> list[str]:
        await self._synced()
        return sorted({key.organization for key in self._index.everything()})

    async def watch(self, organization: str | None = None) -> AsyncIterator[Change]:
        await self._synced()
        watcher = Watcher(organization)

        def listen(before: Resource | None, after: Resource | None) -> None:
            if after is not None:
                watcher.put(Change("ADDED" if before is None else "MODIFIED", after))
            elif before is not None:
                watcher.put(Change("DELETED", before))

        stop = self._index.subscribe(listen)
        try:
            existing = [self._index.get(key) for key in self._index.everything()]
            for resource in existing:
                if resource is not None and organization in (None, resource.metadata.organization):
                    yield Change("ADDED", resource)
            while True:
                yield await watcher.next()
        finally:
            stop()

    # -- writing -----------------------------------------------------------------------------------------------

    async def create(self, resource: Resource) -> Resource:
        (made,) = await self.apply_batch([resource], [], [])
        return made

    async def update(self, resource: Resource) -> Resource:
        return await self._whole(self._update(resource))

    async def update_status(self, key: ResourceKey, status: Mapping[str, Any]) -> Resource | None:
        known = self._index.get(key) or await self._read(key)
        if known is None or known.status == status:
            return None if known is None else _copy(known)
        patch = [
            # One of the same name that was created meanwhile is another resource.
            {"op": "test", "path": "/metadata/uid", "value": known.metadata.uid},
            {"op": "add", "path": "/status", "value": self._objects.status(known, status)},
        ]
        api = self._objects.apis[key.kind]
        try:
            raw = await self._api.patch(
                api, key.organization, key.name, patch, kind=JSON_PATCH, subresource="status", manager=STATUS_MANAGER
            )
        except (NotFoundError, SpecError):
            found = await self._read(key)
            if found is not None and found.metadata.uid == known.metadata.uid:
                raise
            return found
        return self._took(raw)

    async def delete(self, key: ResourceKey) -> Resource | None:
        return await self._whole(self._delete(key))

    async def apply_batch(
        self, create: Sequence[Resource], update: Sequence[Resource], delete: Sequence[ResourceKey]
    ) -> list[Resource]:
        """All or nothing as far as the API server lets us: everything is rehearsed there first, and what was written
        is undone when a later write fails. Deletions come last, because nothing takes them back.
        """
        return await self._whole(self._batch(create, update, delete))

    # -- events ------------------------------------------------------------------------------------------------

    async def record_event(self, event: Event) -> None:
        await self._recorder.record(event)

    async def events(self, key: ResourceKey, limit: int = 50) -> list[Event]:
        return await self._recorder.read(key, limit)

    async def health(self) -> None:
        await self._api.health()

    async def close(self) -> None:
        await asyncio.gather(*self._running, return_exceptions=True)
        if self._reflector is not None:
            await self._reflector.stop()
        await self._api.close()

    async def _update(self, resource: Resource) -> Resource:
        await self._synced()
        self._refuse_taken([], [resource])
        return await self._write(await self._rehearsed(resource, alone=True), [])

    # -- one batch ---------------------------------------------------------------------------------------------

    async def _batch(
        self, create: Sequence[Resource], update: Sequence[Resource], delete: Sequence[ResourceKey]
    ) -> list[Resource]:
        await self._synced()
        self._refuse_taken(create, update)
        creates = [self._objects.encode(resource) for resource in create]
        # One write alone is all or nothing by itself; a creation is rehearsed all the same, because server-side apply
        # finds out that the name is taken only when it has written to who has it.
        alone = len(create) + len(update) + len(delete) == 1
        _, writes, _ = await asyncio.gather(
            _all(self._create(*item, dry_run=True) for item in zip(create, creates, strict=True)),
            _all(self._rehearsed(resource, alone=alone) for resource in update),
            _all(self._delete(key, dry_run=True) for key in delete if not alone),
        )
        undo: list[Callable[[], Awaitable[None]]] = []
        try:
            made = await _all(self._create(item, body, undo=undo) for item, body in zip(create, creates, strict=True))
            changed = await _all(self._write(write, undo) for write in writes)
            await _all(self._delete(key) for key in delete)
        except MixpeekError:
            await self._undo(undo)
            raise
        return [*made, *changed]

    def _refuse_taken(self, create: Sequence[Resource], update: Sequence[Resource]) -> None:
        """The API server knows `metadata.name` only; that of the spec is unique as well."""
        mine: dict[tuple[str, str, str | None, str], Resource] = {}
        for resource in (*create, *update):
            metadata = resource.metadata
            name = (metadata.organization, resource.kind, resource.namespace, resource.name)
            holder = mine.setdefault(name, resource)
            if holder is resource:
                found = self._index.named(*name)
                holder = found if found is not None and found.name == resource.name else resource
            if holder.key != resource.key or (holder is not resource and resource in create):
                raise clash(resource, (holder.metadata.name, holder.name))

    async def _create(
        self,
        resource: Resource,
        body: Object,
        *,
        dry_run: bool = False,
        undo: list[Callable[[], Awaitable[None]]] | None = None,
    ) -> Resource:
        api = self._objects.apis[resource.kind]
        try:
            raw = await self._api.apply(api, body, manager=self._manager, dry_run=dry_run, create=True)
        except AlreadyExistsError as error:
            holder = await self._read(resource.key)
            other = None if holder is None else (holder.metadata.name, holder.name)
            raise clash(resource, other) from error
        if dry_run:
            return resource
        made = self._took(raw)
        if undo is not None:
            undo.append(lambda: self._delete_this(made))
        return made

    async def _rehearsed(self, resource: Resource, *, alone: bool) -> Write:
        """Return the write that makes the resource so, tried out on the API server unless it is simple and `alone`."""
        key, given = resource.key, resource.metadata
        api = self._objects.apis[key.kind]
        known, raw = self._index.get(key), None
        if known is None or known.metadata.resource_version != given.resource_version or known.spec != resource.spec:
            # What is compared is what is written to: the index may not have heard of the newest version yet.
            raw = await self._raw(key)
            known = self._took(raw)
        if known.metadata.resource_version != given.resource_version:
            raise ConflictError(
                f"{key} is at version {known.metadata.resource_version}, not {given.resource_version}; "
                "read it again and retry"
            )
        if resource.spec == known.spec:
            if same(known.metadata, given):
                return Write(api, known, known, None, {})
            patch = metadata_patch(known.metadata, given)
            if not alone:
                await self._fresh(
                    key, self._api.patch(api, key.organization, key.name, patch, manager=self._manager, dry_run=True)
                )
            return Write(api, known, resource, MERGE_PATCH, patch)
        assert raw is not None
        spec = self._objects.spec(resource, raw.get("spec"))
        body = apply_body(raw, given, spec, self._manager)
        try:
            result = await self._fresh(key, self._api.apply(api, body, manager=self._manager, force=True, dry_run=True))
            if says(result, given, spec):
                return Write(api, known, resource, None, body)
        except SpecError:
            # It may be the mixture with what others wrote that is refused; the whole is tried below.
            _log.debug("writing the whole object instead", kind=key.kind, name=key.name)
        body = replaced(raw, given, spec)
        await self._fresh(key, self._api.replace(api, body, manager=self._manager, dry_run=True))
        return Write(api, known, resource, "application/json", body)

    async def _write(self, write: Write, undo: list[Callable[[], Awaitable[None]]]) -> Resource:
        key = write.after.key
        if not write.body:
            return _copy(write.before)
        if write.content_type == MERGE_PATCH:
            sent = self._api.patch(write.api, key.organization, key.name, write.body, manager=self._manager)
        elif write.content_type is None:
            sent = self._api.apply(write.api, write.body, manager=self._manager, force=True)
        else:
            sent = self._api.replace(write.api, write.body, manager=self._manager)
        changed = self._took(await self._fresh(key, sent))
        undo.append(lambda: self._restore(write.before, changed))
        return changed

    async def _delete(self, key: ResourceKey, *, dry_run: bool = False) -> Resource | None:
        api = self._objects.apis[key.kind]
        try:
            raw = await self._api.delete(api, key.organization, key.name, dry_run=dry_run)
        except NotFoundError:
            raw = {}
        if dry_run:
            return None
        if raw.get("kind") == key.kind and raw["metadata"].get("finalizers"):
            return self._took(raw)
        known = self._index.get(key)
        if known is not None:
            self._index.apply(Change("DELETED", known))
        return None

    # -- undoing -----------------------------------------------------------------------------------------------

    async def _undo(self, undo: Sequence[Callable[[], Awaitable[None]]]) -> None:
        """Take back what was written, the last first; what cannot be taken back is logged and left to the caller."""
        for step in reversed(undo):
            try:
                await step()
            except MixpeekError as error:
                _log.error("could not take back a write", error=str(error))

    async def _delete_this(self, made: Resource) -> None:
        key = made.key
        try:
            raw = await self._api.delete(
                self._objects.apis[key.kind], key.organization, key.name, uid=made.metadata.uid
            )
        except NotFoundError:
            return
        if raw.get("kind") == key.kind and raw["metadata"].get("finalizers"):
            self._took(raw)
        else:
            self._index.apply(Change("DELETED", made))

    async def _restore(self, before: Resource, written: Resource) -> None:
        """Write what was there before, unless somebody has changed the declaration since."""
        api = self._objects.apis[before.kind]
        for _ in range(_UNDO_ATTEMPTS):
            raw = await self._raw(before.key)
            now = self._objects.decode(raw)
            if now.spec != written.spec:
                return
            body = replaced(raw, before.metadata, self._objects.spec(before, raw.get("spec")))
            try:
                self._took(await self._api.replace(api, body, manager=self._manager))
            except ConflictError:
                continue
            return
        raise ConflictError(f"{before.key} is being changed by others")

    # -- details -----------------------------------------------------------------------------------------------

    async def _synced(self) -> None:
        if self._reflector is not None:
            await self._reflector.synced(_SYNC_S)

    async def _raw(self, key: ResourceKey) -> Object:
        return await self._api.get(self._objects.apis[key.kind], key.organization, key.name)

    async def _read(self, key: ResourceKey) -> Resource | None:
        """Return a resource as the API server has it now, and let the index know."""
        if key.kind not in self._objects.apis:
            return None
        try:
            return self._took(await self._raw(key))
        except NotFoundError:
            known = self._index.get(key)
            if known is not None:
                self._index.apply(Change("DELETED", known))
            return None

    async def _fresh(self, key: ResourceKey, request: Awaitable[Object]) -> Object:
        """Return the answer; a refusal because ours is old news makes the index read again, so that a retry is not."""
        try:
            return await request
        except (ConflictError, NotFoundError):
            await self._read(key)
            raise

    def _took(self, raw: Object) -> Resource:
        metadata = raw["metadata"]
        known = self._index.get(ResourceKey(raw["kind"], metadata["namespace"], metadata["name"]))
        resource = self._objects.decode(raw, known)
        gone = resource.deleting and not resource.metadata.finalizers
        self._index.apply(Change("DELETED" if gone else "MODIFIED", resource))
        return _copy(resource)

    async def _whole(self, work: Coroutine[Any, Any, T]) -> T:
        """Carry it out to its end, whatever happens to the caller meanwhile."""
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            # Its caller has the error, unless it was cancelled and wants none.
            task.exception()


async def _all(work: Iterable[Awaitable[T]]) -> list[T]:
    """Run all of it side by side and to the end; every problem of specs is told, else the first error."""
    results = await asyncio.gather(*work, return_exceptions=True)
    errors = [item for item in results if isinstance(item, BaseException)]
    problems = [problem for item in errors if isinstance(item, SpecError) for problem in item.problems]
    if len(errors) > 1 and problems:
        raise SpecError.of(problems)
    if errors:
        raise errors[0]
    return [item for item in results if not isinstance(item, BaseException)]


def _copy(resource: Resource) -> Resource:
    metadata: Metadata = resource.metadata
    return replace(
        resource,
        spec=copy.deepcopy(resource.spec),
        status=copy.deepcopy(resource.status),
        metadata=replace(
            metadata,
            labels=dict(metadata.labels),
            annotations=dict(metadata.annotations),
            finalizers=list(metadata.finalizers),
        ),
    )
