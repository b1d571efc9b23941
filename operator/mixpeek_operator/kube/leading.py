"""What a replica may do: read what it follows, and change anything only while it leads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mixpeek_operator.core.errors import UnavailableError
from mixpeek_operator.core.index import ResourceIndex
from mixpeek_operator.core.lifecycle import Client, Subject
from mixpeek_operator.core.resource import Event, Resource, ResourceKey
from mixpeek_operator.ports.resources import ResourceStore


class LedStore:
    """The engine's way to resources: reads come from the index, which the watch keeps, so that a visit costs none.

    A read may be older than the store. A write then fails by its version, and the visit is repeated.
    """

    def __init__(
        self,
        store: ResourceStore,
        index: ResourceIndex,
        leads: Callable[[], bool],
        record: Callable[[Event], None],
    ) -> None:
        self._store = store
        self._index = index
        self._leads = leads
        self._record = record

    async def get(self, key: ResourceKey) -> Resource | None:
        """The resource as it is followed."""
        return self._index.get(key)

    async def update(self, resource: Resource) -> Resource:
        """As the store does. Raises UnavailableError once another may lead."""
        require(self._leads)
        return await self._store.update(resource)

    async def update_status(self, key: ResourceKey, status: Mapping[str, Any]) -> Resource | None:
        """As the store does. Raises UnavailableError once another may lead."""
        require(self._leads)
        return await self._store.update_status(key, status)

    async def apply_batch(
        self, create: Sequence[Resource], update: Sequence[Resource], delete: Sequence[ResourceKey]
    ) -> list[Resource]:
        """As the store does. Raises UnavailableError once another may lead."""
        require(self._leads)
        return await self._store.apply_batch(create, update, delete)

    async def record_event(self, event: Event) -> None:
        """Hand the event to whoever writes it. Raises UnavailableError once another may lead."""
        require(self._leads)
        self._record(event)


class LedClient:
    """The hands of a kind, tied once another may lead."""

    def __init__(self, client: Client, leads: Callable[[], bool]) -> None:
        self._client = client
        self._leads = leads

    async def observe(self, subject: Subject) -> Any:
        """What is really there."""
        return await self._client.observe(subject)

    async def act(self, subject: Subject, step: Any) -> None:
        """Carry out one step. Raises UnavailableError once another may lead."""
        require(self._leads)
        await self._client.act(subject, step)

    async def forget(self, subject: Subject) -> None:
        """Drop what is cached. Raises UnavailableError once another may lead."""
        require(self._leads)
        await self._client.forget(subject)


def require(leads: Callable[[], bool]) -> None:
    """Raise UnavailableError unless we lead."""
    if not leads():
        raise UnavailableError("this operator does not lead any more; another one goes on")
