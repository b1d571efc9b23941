"""Declaring resources: create, change, rename, delete and read, the same for REST and manifests.

What is declared is checked here as the engine would check it, but refused instead of reported; the engine makes it
real. Nothing here touches a store of data.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any

from mixpeek_operator.core import conditions
from mixpeek_operator.core.catalog import Catalog
from mixpeek_operator.core.clock import Clock
from mixpeek_operator.core.engine import Engine, refuse_circle
from mixpeek_operator.core.errors import AlreadyExistsError, ConflictError, NotFoundError, SpecError
from mixpeek_operator.core.index import ResourceIndex
from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.core.lifecycle import Kind, mint_id
from mixpeek_operator.core.normal import nearest, normalise, path_text
from mixpeek_operator.core.refs import immutable_changes, references, translate
from mixpeek_operator.core.resource import (
    FINALIZER,
    ID_ANNOTATION,
    UPDATED_ANNOTATION,
    Event,
    Metadata,
    Resource,
    ResourceKey,
    metadata_name,
)
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.ports.resources import Change, ResourceStore

_ATTEMPTS = 5


class Referrers(StrEnum):
    """What a deletion does about the resources that refer to what is deleted."""

    REFUSE = "refuse"
    WAIT = "wait"
    DELETE = "delete"


class Resources:
    """Declared resources of every kind. Reads are served from memory, writes go to the store first."""

    def __init__(
        self,
        *,
        store: ResourceStore,
        index: ResourceIndex,
        kinds: Mapping[str, Kind],
        catalog: Catalog,
        engine: Engine,
        clock: Clock,
    ) -> None:
        self._store = store
        self._index = index
        self._kinds = kinds
        self._catalog = catalog
        self._engine = engine
        self._clock = clock

    # -- reading -----------------------------------------------------------------------------------------------

    async def get(self, scope: Scope, kind: str, identifier: str) -> Resource:
        """Return a resource by name or id. Raises NotFoundError outside the scope's namespace."""
        self._schema(kind)
        namespace = None if kind == "Namespace" else self._namespace(scope)
        found = self._index.named(scope.organization, kind, namespace, identifier)
        if found is None:
            key = ResourceKey(kind, scope.organization, metadata_name(namespace, identifier))
            stored = await self._store.get(key)
            if stored is not None and stored.name == identifier:
                self._index.apply(Change("ADDED", stored))
                found = stored
        if found is None:
            raise NotFoundError(_absent(kind, identifier, namespace))
        return found

    async def find(self, scope: Scope, kind: str) -> list[Resource]:
        """Return the resources of a kind in the scope's namespace, or of the whole organization, in name order."""
        self._schema(kind)
        whole = kind == "Namespace" or (scope.namespace_id is None and scope.namespace is None)
        return self._index.of(scope.organization, kind, None if whole else self._namespace(scope))

    async def events(self, key: ResourceKey, limit: int = 50) -> list[Event]:
        """Return what happened to a resource, newest first."""
        return await self._store.events(key, limit)

    async def wait_settled(
        self, key: ResourceKey, timeout_s: float, *, enough: Callable[[Resource], bool] = conditions.is_settled
    ) -> Resource | None:
        """Return the resource once the engine will not change its mind, None once it is gone.

        After `timeout_s` it is returned as it then is. `enough` says what else there is no need to wait for.
        """
        changed = asyncio.Event()

        def listen(before: Resource | None, after: Resource | None) -> None:
            one = after or before
            if one is not None and one.key == key:
                changed.set()

        unsubscribe = self._index.subscribe(listen)
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    changed.clear()
                    found = self._index.get(key)
                    if found is None or enough(found):
                        return found
                    await changed.wait()
        except TimeoutError:
            return self._index.get(key)
        finally:
            unsubscribe()

    # -- declaring ---------------------------------------------------------------------------------------------

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
        """Return the resource that `body` declares, checked by itself, named and with its id; nothing is written.

        Whether what it refers to exists is not asked: `require_references` does. Raises SpecError with every
        problem, AlreadyExistsError when the id or the name is taken.
        """
        schema = self._schema(kind)
        body = dict(body)
        if kind != "Namespace" and body.get("namespace") is None:
            body["namespace"] = self._namespace(scope)
        spec = self._checked(scope, schema, body)
        name, namespace = str(spec["name"]), spec.get("namespace")
        self._refuse_taken_name(scope, kind, namespace, name)
        notes = dict(annotations or {})
        wanted = id or notes.get(ID_ANNOTATION)
        if wanted and self._index.by_id(wanted) is not None:
            raise AlreadyExistsError(f"the id {wanted} is already taken; choose another or leave it out")
        notes[ID_ANNOTATION] = wanted or mint_id(
            schema, scope.organization, namespace, name, lambda minted: self._index.by_id(minted) is not None
        )
        metadata = Metadata(
            name=self._metadata_name(scope, kind, namespace, name, notes[ID_ANNOTATION]),
            organization=scope.organization,
            labels=dict(labels or {}),
            annotations=notes,
            finalizers=[FINALIZER],
        )
        return Resource(kind, metadata, spec)

    def revise(self, current: Resource, spec: Mapping[str, Any]) -> Resource:
        """Return `current` with another whole spec, checked; nothing is written.

        Raises SpecError with every problem, ConflictError naming each field that cannot change and why.
        """
        schema = self._schema(current.kind)
        scope = Scope(current.metadata.organization, None, current.namespace)
        changed = self._checked(scope, schema, spec)
        fixed = immutable_changes(schema, current.spec, changed)
        if fixed:
            parts = [f"{path_text(path)} cannot change because {why}" for path, why in fixed]
            raise ConflictError(
                f"{current.kind} {current.name!r}: {'; '.join(parts)}; delete it and create it again to replace it",
                code="immutable_field",
                details={"fields": [path_text(path) for path, _ in fixed]},
            )
        if changed["name"] != current.name:
            if current.kind == "Extractor":
                raise ConflictError(
                    f"Extractor {current.name!r} cannot be renamed: feature URIs hold its name", code="immutable_field"
                )
            self._refuse_taken_name(scope, current.kind, current.namespace, str(changed["name"]))
        return current.with_spec(changed)

    def require_references(self, resource: Resource) -> None:
        """Raise NotFoundError naming every reference that does not exist, SpecError for what does not fit them."""
        organization = resource.metadata.organization
        problems: list[str] = []
        for ref in self._index.references(resource):
            namespace = None if ref.kind == "Namespace" else resource.namespace
            target = self._index.named(organization, ref.kind, namespace, ref.value)
            if target is None:
                problems.append(f"{path_text(ref.path)}: {_absent(ref.kind, ref.value, namespace)}")
            elif target.deleting:
                problems.append(f"{path_text(ref.path)}: {ref.kind} {ref.value!r} is being deleted")
        if problems:
            raise NotFoundError("; ".join(dict.fromkeys(problems)), code="reference_not_found")
        refuse_circle(self._index, resource)
        self._kinds[resource.kind].want(self._engine.subject(resource))

    async def create(self, scope: Scope, kind: str, spec_body: Mapping[str, Any], *, id: str | None = None) -> Resource:
        """Declare a resource; the engine makes it real. References may be ids or names."""
        resource = self.prepare(scope, kind, spec_body, id=id)
        self.require_references(resource)
        made = await self._store.create(resource)
        self._index.apply(Change("ADDED", made))
        return made

    async def update(self, scope: Scope, kind: str, identifier: str, patch: Mapping[str, Any]) -> Resource:
        """Change a resource by a JSON merge patch; a changed name is changed in all that refers to it, too."""
        if not patch:
            raise SpecError("the change is empty; give at least one field", code="empty_update")
        for attempt in range(_ATTEMPTS):
            known = await self.get(scope, kind, identifier)
            current = await self._store.get(known.key)
            if current is None:
                raise NotFoundError(_absent(kind, identifier, known.namespace))
            if current.deleting:
                raise ConflictError(f"{kind} {current.name!r} is being deleted")
            self._index.apply(Change("MODIFIED", current))
            revised = self.revise(current, self._merged(current, patch))
            if revised.spec == current.spec:
                return current
            self.require_references(revised)
            try:
                return await self._write(current, revised)
            except ConflictError:
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    async def delete(
        self, scope: Scope, kind: str, identifier: str, *, referrers: Referrers | None = None
    ) -> Resource | None:
        """Ask for a deletion; returns the marked resource, None when it is gone at once.

        `referrers` says what becomes of a resource that others refer to; a Namespace is deleted with what is in it
        unless said otherwise, anything else is refused. Refused is a ConflictError that names them; a deletion that
        waits ends by itself when the last of them goes, and its conditions name them until then.
        """
        found = await self.get(scope, kind, identifier)
        chosen = referrers or (Referrers.DELETE if kind == "Namespace" else Referrers.REFUSE)
        doomed = self._index.dependents(found) if chosen is Referrers.DELETE else [found]
        if chosen is Referrers.REFUSE:
            blockers = [item for item in self._index.referrers(found, ordered=True) if not item.deleting]
            if blockers:
                names = ", ".join(f"{item.kind} {item.name!r}" for item in blockers)
                raise ConflictError(
                    f"{kind} {found.name!r} is still referred to by {names}; delete those first",
                    code="in_use",
                    details={"referrers": [item.id for item in blockers]},
                )
        await self.commit([], [], [item.key for item in doomed])
        return self._index.get(found.key)

    async def commit(
        self, create: Sequence[Resource], update: Sequence[Resource], delete: Sequence[ResourceKey]
    ) -> list[Resource]:
        """Write prepared resources, all or none; returns the created and updated ones as stored."""
        written = await self._store.apply_batch(create, update, delete)
        for resource in written:
            self._index.apply(Change("MODIFIED", resource))
        for key in delete:
            left = await self._store.get(key)
            gone = self._index.get(key)
            if left is not None:
                self._index.apply(Change("MODIFIED", left))
            elif gone is not None:
                self._index.apply(Change("DELETED", gone))
        return written

    # -- details -----------------------------------------------------------------------------------------------

    def _schema(self, kind: str) -> KindSchema:
        known = self._kinds.get(kind)
        if known is None:
            guess = nearest(kind, list(self._kinds))
            hint = f"did you mean {guess}?" if guess else f"kinds are {', '.join(sorted(self._kinds))}"
            raise NotFoundError(f"there is no kind {kind!r}; {hint}")
        return known.schema

    def _namespace(self, scope: Scope) -> str:
        """Return the name of the scope's namespace as it is now: it may have been renamed since."""
        if scope.namespace_id is not None:
            found = self._index.by_id(scope.namespace_id)
            if found is not None and found.metadata.organization == scope.organization:
                return found.name
        if scope.namespace is None:
            raise SpecError("name the namespace this belongs to", code="namespace_required")
        return scope.namespace

    def _checked(self, scope: Scope, schema: KindSchema, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the canonical spec with references as names."""
        spec, problems = normalise(schema, dict(body))
        if not problems:
            problems = schema.check(spec, self._catalog)
        if problems:
            raise SpecError.of(problems)
        if schema.name == "Namespace":
            return spec
        owner = self._index.named(scope.organization, "Namespace", None, str(spec["namespace"]))
        namespace = owner.name if owner is not None else str(spec["namespace"])
        if scope.namespace_id is not None and namespace != self._namespace(scope):
            raise NotFoundError(f"this request is about namespace {scope.namespace!r}, the body names {namespace!r}")
        found = references(schema, spec)
        names: dict[tuple[str, str], str] = {}
        for ref in found:
            within = None if ref.kind == "Namespace" else namespace
            target = self._index.named(scope.organization, ref.kind, within, ref.value)
            if target is not None and target.name != ref.value:
                names[ref.kind, ref.value] = target.name
        return translate(spec, found, names) if names else spec

    def _merged(self, current: Resource, patch: Mapping[str, Any]) -> dict[str, Any]:
        """Return the spec with the patch merged in, whatever spelling the patch uses."""
        schema = self._schema(current.kind)
        canonical = getattr(schema.spec, "canonical", dict)
        by_alias = {field.alias: name for name, field in schema.spec.model_fields.items() if field.alias}
        spelled = {by_alias.get(key, key): value for key, value in canonical(dict(patch)).items()}
        # Parts that are whole in themselves are made canonical first, so that aliases meet their fields.
        whole, problems = normalise(schema, {**current.spec, **spelled})
        source = {key: whole.get(key) for key in spelled} if not problems else spelled
        return _merge(current.spec, source)

    def _refuse_taken_name(self, scope: Scope, kind: str, namespace: str | None, name: str) -> None:
        taken = self._index.named(scope.organization, kind, namespace, name)
        if taken is not None and taken.name == name:
            state = " and is being deleted" if taken.deleting else ""
            where = f" in namespace {namespace!r}" if namespace else ""
            raise AlreadyExistsError(f"{kind} {name!r} exists already{where}{state}", details={"id": taken.id})

    def _metadata_name(self, scope: Scope, kind: str, namespace: str | None, name: str, id: str) -> str:
        wanted = metadata_name(namespace, name)
        holder = self._index.get(ResourceKey(kind, scope.organization, wanted))
        if holder is None:
            return wanted
        if metadata_name(holder.namespace, holder.name) == wanted:
            raise AlreadyExistsError(
                f"{kind} {name!r} cannot exist beside {holder.name!r}: both are called {wanted!r} in Kubernetes"
            )
        # Its holder was renamed since; Kubernetes' name stays with it.
        return f"{wanted}-{id.rsplit('_', 1)[-1]}"

    async def _write(self, current: Resource, revised: Resource) -> Resource:
        notes = {**revised.metadata.annotations, UPDATED_ANNOTATION: self._clock.now().isoformat()}
        notes[UPDATED_ANNOTATION] = notes[UPDATED_ANNOTATION].replace("+00:00", "Z")
        revised = replace(revised, metadata=replace(revised.metadata, annotations=notes))
        if revised.name == current.name:
            written = await self._store.update(revised)
            self._index.apply(Change("MODIFIED", written))
            return written
        (written, *_) = await self.commit([], [revised, *self._rewritten(current, revised.name)], [])
        return written

    def _rewritten(self, current: Resource, name: str) -> list[Resource]:
        """Return every referrer with the new name in its references."""
        rewritten: list[Resource] = []
        for referrer in self._index.referrers(current):
            found = self._index.references(referrer)
            spec = translate(referrer.spec, found, {(current.kind, current.name): name})
            rewritten.append(referrer.with_spec(spec))
        return rewritten


def _merge(target: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """RFC 7396: mappings merge, null removes, everything else replaces."""
    merged = dict(target)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def _absent(kind: str, identifier: str, namespace: str | None) -> str:
    where = f" in namespace {namespace!r}" if namespace else ""
    return f"{kind} {identifier!r} does not exist{where}"
