"""Port: declared resources, with Kubernetes' semantics: generation, resourceVersion, finalizers, conflicts, watch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mixpeek_operator.core.resource import Event, Resource, ResourceKey


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of a watch: `ADDED`, `MODIFIED` or `DELETED`."""

    type: str
    resource: Resource


class ReconciledStore(Protocol):
    """The part of a ResourceStore that a reconcile needs."""

    async def get(self, key: ResourceKey) -> Resource | None: ...

    async def update(self, resource: Resource) -> Resource: ...

    async def update_status(self, key: ResourceKey, status: Mapping[str, Any]) -> Resource | None: ...

    async def apply_batch(
        self, create: Sequence[Resource], update: Sequence[Resource], delete: Sequence[ResourceKey]
    ) -> list[Resource]: ...

    async def record_event(self, event: Event) -> None: ...


class ResourceStore(Protocol):
    """Every adapter passes `tests/contract/resources`.

    `create` fills uid, generation 1, resource_version and creation_timestamp. `update` needs the current
    resource_version (ConflictError otherwise) and raises the generation only when the spec changed. `delete` sets
    deletion_timestamp while finalizers remain, and removes the resource when the last finalizer goes.
    (organization, kind, `spec.namespace`, `spec.name`) is unique: AlreadyExistsError names both.
    """

    async def get(self, key: ResourceKey) -> Resource | None: ...

    async def find(self, organization: str, kind: str | None = None, *, namespace: str | None = None) -> list[Resource]:
        """Resources in name order; `namespace` is the name of the Mixpeek Namespace."""
        ...

    async def by_id(self, organization: str, id: str) -> Resource | None: ...

    async def create(self, resource: Resource) -> Resource: ...

    async def update(self, resource: Resource) -> Resource:
        """Write spec, labels, annotations and finalizers."""
        ...

    async def update_status(self, key: ResourceKey, status: Mapping[str, Any]) -> Resource | None:
        """Replace the status only; None when the resource is gone. No write when equal."""
        ...

    async def delete(self, key: ResourceKey) -> Resource | None:
        """The resource as it is now (marked), None when it is gone at once or was not there."""
        ...

    async def apply_batch(
        self, create: Sequence[Resource], update: Sequence[Resource], delete: Sequence[ResourceKey]
    ) -> list[Resource]:
        """All or nothing, in one transaction where the store has them; same checks as the single calls."""
        ...

    def watch(self, organization: str | None = None) -> AsyncIterator[Change]:
        """First every resource as ADDED, then changes as they happen; starts when iterated."""
        ...

    async def record_event(self, event: Event) -> None: ...

    async def events(self, key: ResourceKey, limit: int = 50) -> list[Event]: ...

    async def organizations(self) -> list[str]: ...

    async def health(self) -> None: ...

    async def close(self) -> None: ...
