"""One level-triggered reconcile for every kind and every trigger.

resolve references → observe → plan → act → observe again → status, computed once and written once. Nothing is
remembered between two visits except what the store holds, so a visit may be cut off anywhere and repeated.
The engine knows no kind, no store and no front door.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from mixpeek_operator.core import conditions
from mixpeek_operator.core.catalog import Catalog
from mixpeek_operator.core.clock import Clock
from mixpeek_operator.core.conditions import SYNCED, Finding, Reason
from mixpeek_operator.core.errors import (
    InternalError,
    Problem,
    SpecError,
)
from mixpeek_operator.core.graph import CycleError
from mixpeek_operator.core.index import ResourceIndex
from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.core.lifecycle import (
    Client,
    Facilities,
    Kind,
    Refs,
    Report,
    Step,
    Subject,
    Waiting,
    mint_id,
)
from mixpeek_operator.core.normal import normalise
from mixpeek_operator.core.resource import FINALIZER, ID_ANNOTATION, UPDATED_ANNOTATION, Event, Resource, ResourceKey
from mixpeek_operator.core.visit import Again, Outcome, Visit, bound, drifted, fail, waiting_for, would
from mixpeek_operator.ports.resources import Change, ReconciledStore


class Engine:
    """Makes what is there equal to what is declared, one resource per call."""

    def __init__(
        self,
        *,
        store: ReconciledStore,
        index: ResourceIndex,
        kinds: Mapping[str, Kind],
        clients: Mapping[str, Client],
        catalog: Catalog,
        clock: Clock,
        facilities: Facilities | None = None,
        deadline_s: float = 300.0,
        patience_s: float = 0.0,
    ) -> None:
        """`patience_s`: how long a new resource may wait for what it refers to before its status says so.

        Where resources come one by one, most of what is missing at first is there a moment later.
        """
        self._store = store
        self._index = index
        self._kinds = kinds
        self._clients = clients
        self._catalog = catalog
        self._clock = clock
        self._facilities = facilities or Facilities()
        self._deadline_s = deadline_s
        self._patience_s = patience_s

    async def reconcile(self, key: ResourceKey, *, reading: Callable[[], None] = lambda: None) -> Outcome:
        """Visit one resource. Never raises for what concerns the resource: that becomes its conditions.

        `reading` is called when the visit has all that was declared until then, and is about to look at the rest.
        """
        resource = await self._store.get(key)
        kind = self._kinds.get(key.kind)
        if resource is None or kind is None:
            return Outcome()
        self._index.apply(Change("MODIFIED", resource))
        visit = Visit(kind, resource)
        finished = False
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._visit(visit, reading)
            finished = True
        except Exception as error:
            fail(visit, error, self._deadline_s)
            finished = True
        finally:
            # A cancelled visit says nothing: the next start repeats it.
            if finished:
                outcome = await self._conclude(visit)
        return outcome

    async def preview(self, resource: Resource) -> tuple[list[Step], Refs]:
        """Return what a visit would do, by its first three lines; nothing is written."""
        kind = self._kinds[resource.kind]
        subject = self.subject(resource)
        if subject.refs.waiting:
            return [], subject.refs
        want = None if resource.deleting else kind.want(subject)
        have = await self._clients[kind.name].observe(subject)
        return list(kind.plan(want, have)), subject.refs

    # -- one visit ---------------------------------------------------------------------------------------------

    async def _visit(self, visit: Visit, reading: Callable[[], None]) -> None:
        if visit.resource.deleting:
            await self._delete(visit)
            return
        left_s = self._left_s(visit.resource)
        if left_s is not None and left_s <= 0:
            await self._expire(visit)
            return
        visit.resource = await self._adopt(visit.kind, visit.resource)
        known = self._index.get(visit.resource.key)
        if known is None or known.metadata.resource_version <= visit.resource.metadata.resource_version:
            reading()
        subject = visit.subject = self.subject(visit.resource)
        if subject.refs.waiting:
            refuse_circle(self._index, visit.resource)
            visit.patient_s = self._patient_s(visit.resource)
            if visit.patient_s:
                visit.silent = True
                return
        problems = check(visit.kind.schema, visit.resource.spec, self._catalog)
        if problems:
            raise SpecError.of(problems)
        if subject.refs.waiting:
            visit.synced = waiting_for(subject.refs.waiting)
            return
        want = visit.want = visit.kind.want(subject)
        client = self._clients[visit.kind.name]
        visit.have = await client.observe(subject)
        visit.observed = True
        steps = list(visit.kind.plan(want, visit.have))
        chosen = self._choose(visit, steps)
        if not chosen:
            visit.applied = not steps
            return
        await self._act(visit, client, subject, chosen)
        left = list(visit.kind.plan(want, visit.have))
        if len(left) >= len(steps):
            raise InternalError(
                f"{visit.kind.name}: after acting the plan did not become shorter; "
                f"left: {'; '.join(step.todo() for step in left)}"
            )
        visit.applied = not left
        if left:
            visit.again = Again.BACKOFF if len(chosen) == len(steps) else Again.NO
            visit.synced = Finding(SYNCED, False, Reason.NOT_MANAGED, would(left))

    def _choose(self, visit: Visit, steps: list[Step]) -> list[Step]:
        """Return the steps the policies let us run, and say so in Synced when they do not."""
        if not steps:
            return []
        spec, status = visit.resource.spec, visit.resource.status
        management = spec.get("management_policy") or "Full"
        if management == "Observe":
            visit.synced = Finding(SYNCED, False, Reason.NOT_MANAGED, f"managementPolicy is Observe; {would(steps)}")
            return []
        applied = status.get("applied_generation")
        visit.lost = applied is not None and any(step.restores for step in steps)
        if visit.lost or applied == visit.resource.metadata.generation:
            policy = spec.get("drift_policy") or "Correct"
            if policy == "Ignore":
                visit.synced = Finding(SYNCED, True, Reason.DRIFT_IGNORED, f"driftPolicy is Ignore; {would(steps)}")
                return []
            if policy == "Report":
                visit.synced = Finding(SYNCED, False, Reason.DRIFTED, f"driftPolicy is Report; {would(steps)}")
                return []
            visit.events.append(("Warning", "DriftFound", drifted(steps, lost=visit.lost)))
        if management == "NoDelete":
            allowed = [step for step in steps if not step.destroys]
            if not allowed:
                visit.synced = Finding(
                    SYNCED, False, Reason.NOT_MANAGED, f"managementPolicy is NoDelete; {would(steps)}"
                )
            return allowed
        return steps

    async def _act(self, visit: Visit, client: Client, subject: Subject, steps: Sequence[Step]) -> None:
        log = bound(visit)
        try:
            for step in steps:
                log.info("acting", step=step.todo())
                await client.act(subject, step)
                visit.done.append(step)
        finally:
            if visit.done:
                visit.events.append(("Normal", "Applied", "; ".join(step.done() for step in visit.done)))
        visit.have = await client.observe(subject)

    async def _delete(self, visit: Visit) -> None:
        resource = visit.resource
        if FINALIZER not in resource.metadata.finalizers:
            visit.silent = True
            return
        # Resources that refer to each other in a circle and all go would wait for each other for ever.
        blockers = [
            item
            for item in self._index.referrers(resource, ordered=True)
            if not (item.deleting and self._index.way(resource, item))
        ]
        if blockers:
            names = ", ".join(str(item.key) for item in blockers[:10])
            more = f" and {len(blockers) - 10} more" if len(blockers) > 10 else ""
            held = any(not item.deleting for item in blockers)
            message = f"still referred to by {names}{more}" + ("; delete those first" if held else ", being deleted")
            visit.synced = Finding(SYNCED, False, Reason.STILL_REFERRED_TO, message, stalled=held)
            return
        visit.synced = Finding(SYNCED, False, Reason.DELETING, "the deletion is under way")
        if not self._retains(resource):
            subject = visit.subject = self.subject(resource)
            client = self._clients[visit.kind.name]
            visit.have = await client.observe(subject)
            steps = list(visit.kind.plan(None, visit.have))
            for turn in range(_DELETIONS, 0, -1):
                if not steps:
                    break
                await self._act(visit, client, subject, steps)
                left = list(visit.kind.plan(None, visit.have))
                if left and len(left) < len(steps):
                    visit.again = Again.BACKOFF
                    return
                # What was under way when the deletion began may write once more: a record of a query, say.
                if left and turn == 1:
                    raise InternalError(f"{visit.kind.name}: a deletion did not become shorter: {would(left)}")
                steps = left
            await client.forget(subject)
        finalizers = [item for item in resource.metadata.finalizers if item != FINALIZER]
        released = await self._store.update(
            replace(resource, metadata=replace(resource.metadata, finalizers=finalizers))
        )
        if finalizers:
            self._index.apply(Change("MODIFIED", released))
            visit.silent = True
            return
        visit.gone = True
        kept = " and kept its data" if self._retains(resource) else ""
        visit.events.append(("Normal", "Deleted", f"Deleted {resource.key}{kept}"))
        self._index.apply(Change("DELETED", resource))

    def _left_s(self, resource: Resource) -> float | None:
        """Return the seconds until the resource's own end, None when it has none.

        They count from the last change of the declaration, so that giving an old one an end does not end it at once.
        """
        ttl_s, metadata = resource.spec.get("ttl_seconds"), resource.metadata
        if ttl_s is None or (resource.spec.get("management_policy") or "Full") != "Full":
            return None
        changed = metadata.annotations.get(UPDATED_ANNOTATION)
        since = datetime.fromisoformat(changed) if changed else metadata.creation_timestamp
        return None if since is None else float(ttl_s) - (self._clock.now() - since).total_seconds()

    async def _expire(self, visit: Visit) -> None:
        """Ask for the deletion of the resource and of all that depends on it."""
        doomed = [item.key for item in self._index.dependents(visit.resource)]
        await self._store.apply_batch((), (), doomed)
        visit.silent = True
        visit.events.append(("Normal", "Expired", f"Deleted {visit.resource.key}: its ttl_seconds were over"))

    async def _adopt(self, kind: Kind, resource: Resource) -> Resource:
        """Return the resource with our finalizer and an id, written once when they were missing."""
        metadata = resource.metadata
        if not resource.id or FINALIZER not in metadata.finalizers:
            annotations = dict(metadata.annotations)
            if not resource.id:
                annotations[ID_ANNOTATION] = mint_id(
                    kind.schema,
                    metadata.organization,
                    resource.namespace,
                    resource.name,
                    lambda id: self._index.by_id(id) is not None,
                )
            finalizers = list(dict.fromkeys([*metadata.finalizers, FINALIZER]))
            resource = await self._store.update(
                replace(resource, metadata=replace(metadata, annotations=annotations, finalizers=finalizers))
            )
            self._index.apply(Change("MODIFIED", resource))
        holder = self._index.by_id(resource.id)
        if holder is not None and holder.key != resource.key:
            raise SpecError(
                f"the id {resource.id} in annotation {ID_ANNOTATION} is already taken; choose another or remove it"
            )
        return resource

    def subject(self, resource: Resource) -> Subject:
        refs = self._resolve(resource)
        namespace_id = resource.id if resource.kind == "Namespace" else ""
        if resource.namespace is not None:
            found = refs.get("Namespace", resource.namespace)
            namespace_id = found.id if found is not None else ""
        return Subject(resource, refs, self._catalog, namespace_id, self._facilities, self._gathered(resource))

    def _gathered(self, resource: Resource) -> tuple[Resource, ...]:
        gathers = self._kinds[resource.kind].gathers
        return tuple(item for item in self._index.referrers(resource) if item.kind in gathers) if gathers else ()

    def _resolve(self, resource: Resource) -> Refs:
        found: dict[tuple[str, str], Resource] = {}
        waiting: dict[tuple[str, str], Waiting] = {}
        for ref in self._index.references(resource):
            identity = (ref.kind, ref.value)
            if identity in waiting or (identity in found and not ref.ordered):
                continue
            namespace = None if ref.kind == "Namespace" else resource.namespace
            target = self._index.named(resource.metadata.organization, ref.kind, namespace, ref.value)
            if target is not None:
                found[identity] = target
            if not ref.ordered:
                continue
            if target is None:
                waiting[identity] = Waiting(ref.kind, ref.value, "does not exist")
            elif target.deleting:
                waiting[identity] = Waiting(ref.kind, ref.value, "is being deleted")
            elif not conditions.is_ready(target):
                waiting[identity] = Waiting(ref.kind, ref.value, "is not ready")
        return Refs(found, tuple(waiting[item] for item in sorted(waiting)))

    @staticmethod
    def _retains(resource: Resource) -> bool:
        spec = resource.spec
        return spec.get("deletion_policy") == "Retain" or spec.get("management_policy") in ("Observe", "NoDelete")

    # -- how a visit ends --------------------------------------------------------------------------------------

    async def _conclude(self, visit: Visit) -> Outcome:
        """Write status and events, each only on change."""
        report = Report()
        if not visit.gone and not visit.silent:
            report = self._report(visit)
            await self._write_status(visit, report)
        for type_, reason, message in visit.events:
            await self._store.record_event(
                Event(visit.resource.key, type_, reason, message, self._clock.now(), visit.resource.metadata.uid)
            )
        left_s = None if visit.gone or visit.resource.deleting else self._left_s(visit.resource)
        looks = [each for each in (report.look_again_s, left_s, visit.patient_s or None) if each is not None]
        return Outcome(visit.again, max(min(looks), 0.0) if looks else None)

    def _patient_s(self, resource: Resource) -> float:
        """Seconds for which a resource that waits says nothing yet."""
        created = resource.metadata.creation_timestamp
        if created is None or resource.status.get("conditions"):
            return 0.0
        return max(self._patience_s - (self._clock.now() - created).total_seconds(), 0.0)

    def _report(self, visit: Visit) -> Report:
        if not visit.observed or visit.subject is None or visit.resource.deleting:
            return Report()
        try:
            return visit.kind.status(visit.subject, visit.want, visit.have)
        except Exception as error:
            fail(visit, error, self._deadline_s)
            return Report()

    async def _write_status(self, visit: Visit, report: Report) -> None:
        resource, before = visit.resource, visit.resource.status
        generation = resource.metadata.generation
        current = conditions.summarise(report.findings, visit.synced)
        # What could not be observed keeps its last known facts; the conditions say that they are not fresh.
        facts = report.facts if visit.observed else _facts(before)
        status: dict[str, Any] = {
            **{key: value for key, value in facts.items() if value is not None},
            "id": resource.id,
            "observed_generation": generation,
            "conditions": conditions.stamp(before.get("conditions") or (), current, generation, self._clock.now()),
        }
        applied = generation if visit.applied else before.get("applied_generation")
        if applied is not None:
            status["applied_generation"] = applied
        lost_at = conditions.timestamp(self._clock.now()) if visit.lost and visit.done else before.get("data_lost_at")
        if lost_at is not None:
            status["data_lost_at"] = lost_at
        if conditions.equal(before, status):
            return
        written = await self._store.update_status(resource.key, status)
        if written is None:
            return
        self._index.apply(Change("MODIFIED", written))
        was, now = conditions.read(before, conditions.READY), conditions.read(status, conditions.READY)
        if now is not None and (was is None or was.get("status") != now["status"]):
            if now["status"] == "True":
                # What was done belongs to the same news: one event for both.
                done = "".join(f"; {message}" for _, reason, message in visit.events if reason == "Applied")
                visit.events = [event for event in visit.events if event[1] != "Applied"]
                visit.events.append(("Normal", "BecameReady", f"{resource.key} became ready{done}"))
            elif was is not None or now["reason"] == Reason.SPEC_INVALID:
                visit.events.append(
                    ("Warning", "BecameNotReady", f"{resource.key} became not ready: {now['message'] or now['reason']}")
                )


def check(schema: KindSchema, spec: Mapping[str, Any], catalog: Catalog) -> list[Problem]:
    """Return everything wrong with a spec by itself: its form, and what the catalog knows better."""
    canonical, problems = normalise(schema, dict(spec))
    return [*problems, *schema.check(canonical, catalog)]


def refuse_circle(index: ResourceIndex, resource: Resource) -> None:
    """Raise CycleError with the path when the resource refers to itself, directly or through others."""
    circle = index.way(resource, resource)
    if circle:
        raise CycleError([str(item.key) for item in circle])


_DELETIONS = 3
"""Times that one visit deletes what is left, before that counts as a bug of ours."""
_ENGINE_FIELDS = frozenset({"id", "observed_generation", "applied_generation", "data_lost_at", "conditions"})


def _facts(status: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in status.items() if key not in _ENGINE_FIELDS}
