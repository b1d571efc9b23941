"""Every declared resource in memory, with its references both ways: what a reconcile and a lookup read.

Fed by the store's watch and, for reads after one's own writes, directly by whoever wrote. Old news is dropped by
resource version, so both may deliver the same change in any order. Resources held here are never modified.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from mixpeek_operator.core.kind import KindSchema, Reference
from mixpeek_operator.core.refs import references
from mixpeek_operator.core.resource import Resource, ResourceKey
from mixpeek_operator.ports.resources import Change, ResourceStore

Listener = Callable[[Resource | None, Resource | None], None]
"""Called with (before, after); before None = new, after None = gone."""

Name = tuple[str, str, str | None, str]
"""(organization, kind, namespace, name or id): what a reference says."""

_REMEMBERED_DEATHS = 10_000


class ResourceIndex:
    """Lookups by key, by name, by id and by reference; microseconds each."""

    def __init__(self, schemas: Mapping[str, KindSchema]) -> None:
        self._schemas = schemas
        self._items: dict[ResourceKey, Resource] = {}
        self._names: dict[Name, ResourceKey] = {}
        self._ids: dict[str, ResourceKey] = {}
        self._groups: dict[tuple[str, str], dict[ResourceKey, None]] = {}
        self._targets: dict[ResourceKey, dict[Name, bool]] = {}
        self._referrers: dict[Name, dict[ResourceKey, bool]] = {}
        self._dead: OrderedDict[str, None] = OrderedDict()
        self._listeners: list[Listener] = []
        self.revision = 0
        """Moves when a declaration appears, changes or goes; a status alone does not move it."""

    async def load(self, store: ResourceStore) -> None:
        """Read everything once, so that lookups are complete before the watch has started."""
        for organization in await store.organizations():
            for resource in await store.find(organization):
                self.apply(Change("ADDED", resource))

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` after every change; returns how to stop."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def apply(self, change: Change) -> bool:
        """Take in one change; False when it is old news."""
        after = None if change.type == "DELETED" else change.resource
        key = change.resource.key
        uid = change.resource.metadata.uid
        before = self._items.get(key)
        if after is None:
            self._bury(uid)
            if before is None or before.metadata.uid != uid:
                return False
            self._remove(before)
        else:
            if uid in self._dead:
                return False
            same = before is not None and before.metadata.uid == uid
            if same and before is not None and _version(after) <= _version(before):
                return False
            self._replace(before, after)
        for listener in tuple(self._listeners):
            listener(before, after)
        return True

    def get(self, key: ResourceKey) -> Resource | None:
        """The resource under this key."""
        return self._items.get(key)

    def by_id(self, id: str) -> Resource | None:
        """The first resource that claimed this id, whatever its organization."""
        key = self._ids.get(id)
        return None if key is None else self._items[key]

    def named(self, organization: str, kind: str, namespace: str | None, identifier: str) -> Resource | None:
        """The resource of this kind and namespace by name, else by id."""
        key = self._names.get((organization, kind, namespace, identifier))
        if key is not None:
            return self._items[key]
        found = self.by_id(identifier)
        if found is None or found.kind != kind or found.metadata.organization != organization:
            return None
        return found if found.namespace == namespace else None

    def of(self, organization: str, kind: str, namespace: str | None = None) -> list[Resource]:
        """Resources of a kind in key order, of one Mixpeek namespace when given."""
        keys = sorted(self._groups.get((organization, kind), ()))
        found = (self._items[key] for key in keys)
        return [item for item in found if namespace is None or item.namespace == namespace]

    def everything(self) -> list[ResourceKey]:
        """Every key, in the order they came."""
        return list(self._items)

    def references(self, resource: Resource) -> Sequence[Reference]:
        """What the spec refers to, as written."""
        schema = self._schemas.get(resource.kind)
        return () if schema is None else references(schema, resource.spec)

    def targets(self, resource: Resource, *, ordered: bool = False) -> list[Resource]:
        """The resources that this one refers to and that exist, in key order; `ordered` as for referrers."""
        found = (self.named(*name) for name, orders in self._names_referred(resource).items() if orders or not ordered)
        return sorted((item for item in found if item is not None), key=lambda item: item.key)

    def way(self, start: Resource, goal: Resource) -> list[Resource]:
        """A way of ordered references from one resource to another (both ends included), [] when there is none.

        From a resource to itself it is the circle that it is part of.
        """
        came_from: dict[ResourceKey, Resource] = {}
        waiting = [start]
        while waiting:
            here = waiting.pop()
            for target in self.targets(here, ordered=True):
                if target.key in came_from:
                    continue
                came_from[target.key] = here
                if target.key == goal.key:
                    path = [target, here]
                    while path[-1].key != start.key:
                        path.append(came_from[path[-1].key])
                    return path[::-1]
                waiting.append(target)
        return []

    def dependents(self, root: Resource) -> list[Resource]:
        """Return the resource and everything that cannot be without it, directly or not."""
        found = {root.key: root}
        waiting = [root]
        while waiting:
            for referrer in self.referrers(waiting.pop(), ordered=True):
                if referrer.key not in found:
                    found[referrer.key] = referrer
                    waiting.append(referrer)
        return list(found.values())

    def referrers(self, resource: Resource, *, ordered: bool = False) -> list[Resource]:
        """The resources that refer to this one by name or id, in key order; never itself.

        `ordered` leaves out those whose reference makes no order: they can do without the resource.
        """
        keys: dict[ResourceKey, bool] = {}
        for identifier in {resource.name, resource.id} - {""}:
            name = (resource.metadata.organization, resource.kind, resource.namespace, identifier)
            for key, orders in self._referrers.get(name, {}).items():
                keys[key] = keys.get(key, False) or orders
        keys.pop(resource.key, None)
        return [self._items[key] for key in sorted(keys) if keys[key] or not ordered]

    def _names_referred(self, resource: Resource) -> dict[Name, bool]:
        organization, namespace = resource.metadata.organization, resource.namespace
        names: dict[Name, bool] = {}
        for item in self.references(resource):
            name = (organization, item.kind, None if item.kind == "Namespace" else namespace, item.value)
            names[name] = names.get(name, False) or item.ordered
        return names

    def _replace(self, before: Resource | None, after: Resource) -> None:
        key = after.key
        declared = before is None or _declaration(before) != _declaration(after)
        self._items[key] = after
        if not declared:
            return
        self.revision += 1
        if before is not None:
            self._unlink(before)
        self._names[_name(after)] = key
        if after.id:
            self._ids.setdefault(after.id, key)
        self._groups.setdefault((key.organization, key.kind), {})[key] = None
        self._targets[key] = self._names_referred(after)
        for name, orders in self._targets[key].items():
            self._referrers.setdefault(name, {})[key] = orders

    def _remove(self, resource: Resource) -> None:
        self.revision += 1
        self._unlink(resource)
        del self._items[resource.key]

    def _unlink(self, resource: Resource) -> None:
        key = resource.key
        if self._names.get(_name(resource)) == key:
            del self._names[_name(resource)]
        if self._ids.get(resource.id) == key:
            del self._ids[resource.id]
        self._groups.get((key.organization, key.kind), {}).pop(key, None)
        for name in self._targets.pop(key, {}):
            referrers = self._referrers.get(name)
            if referrers is not None:
                referrers.pop(key, None)
                if not referrers:
                    del self._referrers[name]

    def _bury(self, uid: str) -> None:
        self._dead[uid] = None
        while len(self._dead) > _REMEMBERED_DEATHS:
            self._dead.popitem(last=False)


def _version(resource: Resource) -> int:
    return resource.metadata.resource_version


def _name(resource: Resource) -> Name:
    return resource.metadata.organization, resource.kind, resource.namespace, resource.name


def _declaration(resource: Resource) -> tuple[str, int, bool, str]:
    return resource.metadata.uid, resource.metadata.generation, resource.deleting, resource.id
