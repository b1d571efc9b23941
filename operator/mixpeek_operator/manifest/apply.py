"""Carries out a plan: everything it writes stays, or nothing does. Applies of one organization take turns.

journal → all writes in one batch → wait until the engine has settled each resource → forget the journal. A resource
that cannot become ready undoes the apply in reverse, updates included. `recover` does the same for an apply whose
process was killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from mixpeek_operator.core import conditions, ids
from mixpeek_operator.core.clock import Clock
from mixpeek_operator.core.conditions import READY, STALLED, Reason
from mixpeek_operator.core.errors import AlreadyExistsError, ConflictError, MixpeekError, NotFoundError
from mixpeek_operator.core.resource import API_GROUP, UPDATED_ANNOTATION, Resource, ResourceKey
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.manifest.journal import SETTLING, UNDOING, WRITING, Image, Intent, Journal, Update
from mixpeek_operator.manifest.plan import Action, Plan, Step
from mixpeek_operator.ports.resources import ResourceStore

APPLY_ANNOTATION = f"{API_GROUP}/apply"
"""Id of the apply that created a resource: what its rollback may delete."""


class Declarations(Protocol):
    """How resources are declared; core.resources.Resources is one."""

    def prepare(
        self,
        scope: Scope,
        kind: str,
        body: Mapping[str, Any],
        *,
        id: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Resource:
        """The resource as it will be stored: checked, named, with its id. Nothing is written."""
        ...

    async def commit(
        self, create: Sequence[Resource], update: Sequence[Resource], delete: Sequence[ResourceKey]
    ) -> list[Resource]:
        """Write everything or nothing; returns the created and updated ones."""
        ...


_ATTEMPTS = 10
_FIRST_POLL_S, _LAST_POLL_S = 0.01, 0.25
_KEPT_DIFFERENCE = (Reason.DRIFTED, Reason.DRIFT_IGNORED, Reason.NOT_MANAGED)


@dataclass(slots=True)
class Applied:
    """What an apply did."""

    written: dict[ResourceKey, Resource] = field(default_factory=dict)
    """Created and updated resources as they were last seen."""
    failures: dict[ResourceKey, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    pending: dict[ResourceKey, str] = field(default_factory=dict)
    """Not ready when the wait ended, and why."""
    rolled_back: bool = False
    orphans: list[str] = field(default_factory=list)
    """`<kind>/<name>` of what a rollback could not undo."""

    @property
    def success(self) -> bool:
        return not self.failures and not self.errors


@dataclass(frozen=True, slots=True)
class Recovered:
    """An apply that a killed process left, and how it ended."""

    organization: str
    id: str
    undone: bool


class Applier:
    """Writes plans. `settle_s` is how long a rollback waits for what it deletes to be gone, in seconds."""

    def __init__(
        self,
        *,
        store: ResourceStore,
        journal: Journal,
        resources: Declarations,
        clock: Clock,
        settle_s: float = 30.0,
    ) -> None:
        self._store = store
        self._journal = journal
        self._resources = resources
        self._clock = clock
        self._settle_s = settle_s
        self._turns: dict[str, asyncio.Lock] = {}

    def turn(self, organization: str) -> asyncio.Lock:
        """The lock that an apply of this organization holds from planning to its end."""
        return self._turns.setdefault(organization, asyncio.Lock())

    async def apply(self, organization: str, plan: Plan, *, wait_s: float, id: str | None = None) -> Applied:
        """Create and update what the plan says; the caller holds `turn`. `id` is what `recover` will call it.

        Waits up to `wait_s` seconds for readiness. What is not ready by then stays and is listed as pending.
        """
        creates = [step for step in plan.steps if step.action is Action.CREATE]
        updates = [step for step in plan.steps if step.action is Action.UPDATE]
        if not creates and not updates:
            return Applied()
        applied = Applied()
        try:
            intent, made, changed = self._intent(id or ids.random("apply"), organization, creates, updates, wait_s)
        except MixpeekError as error:
            applied.errors.append(error.message)
            return applied
        await self._journal.write(intent, WRITING)
        try:
            for resource in await self._write(made, changed):
                applied.written[resource.key] = resource
        except MixpeekError as error:
            applied.errors.append(error.message)
            await self._undo(intent, applied)
            return applied
        await self._finish(intent, applied)
        return applied

    async def recover(self) -> list[Recovered]:
        """Finish or undo every apply that a killed process left, and return them.

        Called once at start-up, after the engine: finishing waits for readiness like the apply itself.
        """
        owner, found = ids.random("recover"), list[Recovered]()
        lease_s = self._settle_s + 60.0
        while taken := await self._journal.take(owner=owner, lease_s=lease_s, now=self._clock.now().timestamp()):
            intent, state = taken
            async with self.turn(intent.organization):
                applied = Applied()
                if state != UNDOING and (state == SETTLING or await self._all_written(intent)):
                    await self._finish(intent, applied)
                else:
                    await self._undo(intent, applied)
            found.append(Recovered(intent.organization, intent.id, applied.rolled_back))
        return found

    # -- writing -----------------------------------------------------------------------------------------------

    def _intent(
        self, id: str, organization: str, creates: Sequence[Step], updates: Sequence[Step], wait_s: float
    ) -> tuple[Intent, list[Resource], list[Resource]]:
        made = [self._made(organization, step, id) for step in creates]
        changed: list[Resource] = []
        images: list[Update] = []
        for step in updates:
            if step.before is None:
                continue
            after = updated_resource(step.before, step, self._clock.now())
            changed.append(after)
            images.append(Update(after.key, _image(step.before), _image(after)))
        intent = Intent(id, organization, tuple(item.key for item in made), tuple(images), wait_s)
        return intent, made, changed

    def _made(self, organization: str, step: Step, apply_id: str) -> Resource:
        extra = step.entry.kubernetes
        made = self._resources.prepare(
            Scope(organization, None, step.entry.namespace),
            step.entry.kind,
            step.spec,
            labels=extra.get("labels"),
            annotations={**(extra.get("annotations") or {}), APPLY_ANNOTATION: apply_id},
        )
        if extra.get("name"):
            made = replace(made, metadata=replace(made.metadata, name=extra["name"]))
        return made

    async def _write(self, made: Sequence[Resource], changed: Sequence[Resource]) -> list[Resource]:
        """Write everything at once. A status written meanwhile is no conflict, a changed declaration is one."""
        for attempt in range(_ATTEMPTS):
            try:
                return await self._resources.commit(made, changed, ())
            except AlreadyExistsError:
                raise
            except ConflictError:
                if attempt == _ATTEMPTS - 1:
                    raise
                changed = [await self._current(resource) for resource in changed]
        raise ConflictError("the resources are being changed by others; apply again")

    async def _current(self, resource: Resource) -> Resource:
        found = await self._store.get(resource.key)
        if found is None or found.deleting or found.metadata.generation != resource.metadata.generation:
            raise ConflictError(f"{resource.key} was changed by someone else while it was applied; apply again")
        version = found.metadata.resource_version
        return replace(resource, metadata=replace(resource.metadata, resource_version=version))

    async def _all_written(self, intent: Intent) -> bool:
        for key in intent.created:
            found = await self._store.get(key)
            if found is None or found.metadata.annotations.get(APPLY_ANNOTATION) != intent.id:
                return False
        for update in intent.updated:
            found = await self._store.get(update.key)
            if found is None or found.spec != update.after.spec:
                return False
        return True

    # -- readiness ---------------------------------------------------------------------------------------------

    async def _finish(self, intent: Intent, applied: Applied) -> None:
        if intent.wait_s > 0:
            await self._journal.write(intent, SETTLING)
            await self._settle(intent, applied)
        if applied.failures:
            await self._journal.write(intent, UNDOING)
            await self._undo(intent, applied)
            return
        await self._journal.close(intent)

    async def _settle(self, intent: Intent, applied: Applied) -> None:
        """Wait until every resource is ready, one cannot become so, or the time is over."""
        end = self._clock.monotonic() + intent.wait_s
        waiting, delay = set(intent.keys), _FIRST_POLL_S
        while True:
            found = {item.key: item for item in await self._store.find(intent.organization) if item.key in waiting}
            for key in sorted(waiting):
                resource = found.get(key)
                if resource is None:
                    applied.failures[key] = f"{key} was deleted by someone else while it was applied"
                    waiting.discard(key)
                elif conditions.is_settled(resource):
                    applied.written[key] = resource
                    waiting.discard(key)
                    if message := failure(resource):
                        applied.failures[key] = message
            if applied.failures or not waiting:
                return
            if self._clock.monotonic() >= end:
                applied.pending |= {key: reason_of(found[key]) for key in waiting}
                return
            await asyncio.sleep(delay)
            delay = min(delay * 1.5, _LAST_POLL_S)

    # -- undoing -----------------------------------------------------------------------------------------------

    async def _undo(self, intent: Intent, applied: Applied) -> None:
        """Restore what was updated and delete what was created, the last first."""
        applied.rolled_back = True
        applied.written.clear()
        await self._journal.write(intent, UNDOING)
        for update in reversed(intent.updated):
            if not await self._restored(update):
                applied.orphans.append(str(update.key))
        mine: list[ResourceKey] = []
        for key in reversed(intent.created):
            found = await self._store.get(key)
            if found is not None and found.metadata.annotations.get(APPLY_ANNOTATION) == intent.id:
                mine.append(key)
        if mine:
            await self._resources.commit((), (), mine)
        applied.orphans += [str(key) for key in await self._until_gone(intent, mine)]
        await self._journal.close(intent)

    async def _restored(self, update: Update) -> bool:
        """Whether the resource is as before; one that somebody else changed since is left as it is."""
        for _ in range(_ATTEMPTS):
            found = await self._store.get(update.key)
            if found is None:
                return False
            now = _image(found)
            if now == update.before:
                return True
            if now.spec not in (update.before.spec, update.after.spec):
                return False
            metadata = replace(
                found.metadata, labels=dict(update.before.labels), annotations=dict(update.before.annotations)
            )
            try:
                await self._resources.commit((), [replace(found, spec=dict(update.before.spec), metadata=metadata)], ())
            except ConflictError:
                continue
            except NotFoundError:
                return False
            return True
        return False

    async def _until_gone(self, intent: Intent, keys: Sequence[ResourceKey]) -> list[ResourceKey]:
        end, delay, left = self._clock.monotonic() + self._settle_s, _FIRST_POLL_S, list(keys)
        while left:
            there = {
                item.key
                for item in await self._store.find(intent.organization)
                if item.metadata.annotations.get(APPLY_ANNOTATION) == intent.id
            }
            left = [key for key in left if key in there]
            if not left or self._clock.monotonic() >= end:
                break
            await asyncio.sleep(delay)
            delay = min(delay * 1.5, _LAST_POLL_S)
        return left


def updated_resource(before: Resource, step: Step, now: datetime) -> Resource:
    """Return the resource that an update step makes of one that exists."""
    extra = step.entry.kubernetes
    metadata = replace(
        before.metadata,
        labels={**before.metadata.labels, **(extra.get("labels") or {})},
        annotations={
            **before.metadata.annotations,
            **(extra.get("annotations") or {}),
            UPDATED_ANNOTATION: now.isoformat().replace("+00:00", "Z"),
        },
    )
    return replace(before, metadata=metadata, spec=dict(step.spec))


def failure(resource: Resource) -> str | None:
    """Return why a settled resource cannot be used without somebody acting, None when it can."""
    stalled = conditions.read(resource.status, STALLED)
    if stalled is None or stalled.get("status") != "True" or stalled.get("reason") in _KEPT_DIFFERENCE:
        return None
    return str(stalled.get("message") or stalled.get("reason"))


def reason_of(resource: Resource) -> str:
    """Return what a resource waits for, in words."""
    ready = conditions.read(resource.status, READY)
    if ready is None or resource.status.get("observed_generation") != resource.metadata.generation:
        return "it has not been looked at yet; it becomes ready without another apply"
    return f"{ready.get('reason')}: {ready.get('message') or 'it becomes ready when that is over'}"


def _image(resource: Resource) -> Image:
    metadata = resource.metadata
    return Image(dict(resource.spec), dict(metadata.labels), dict(metadata.annotations))
