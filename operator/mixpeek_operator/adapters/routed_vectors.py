"""VectorStore that sends each collection to the server it belongs on: the common one, or one of its namespace's own.

Which server that is, is asked of `locate` and remembered for a moment, so a key that is changed is taken up without a
restart. Connections are kept open until the end.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mixpeek_operator.core.errors import RefusedError
from mixpeek_operator.core.filters import Filter
from mixpeek_operator.ports.vectors import CollectionState, Hit, Page, Point, Search, VectorParams, VectorStore

Place = tuple[str, str | None]
"""URL and key of a server."""
Locate = Callable[[str], Awaitable[Place | None]]
"""Where a collection belongs; None = on the common server."""
Connect = Callable[[str, str | None], VectorStore]

_REMEMBER_S = 30.0


async def _nowhere_else(collection: str) -> Place | None:
    return None


class RoutedVectors:
    """See ports.vectors.VectorStore; `list_collections`, `health` and `can_push_down` are the common server's."""

    def __init__(self, common: VectorStore, connect: Connect) -> None:
        self._common = common
        self._connect = connect
        self._locate: Locate = _nowhere_else
        self._places: dict[str, tuple[float, Place | None]] = {}
        self._open: dict[Place, VectorStore] = {}

    def follow(self, locate: Locate) -> None:
        """Ask `locate` from now on; before that everything is on the common server."""
        self._locate = locate
        self._places.clear()

    async def describe(self, collection: str, *, max_age_s: float = 0.0) -> CollectionState | None:
        store = await self._at(collection)
        try:
            return await store.describe(collection, max_age_s=max_age_s)
        except RefusedError:
            # The key may have been changed a moment ago.
            self._places.pop(collection, None)
            renewed = await self._at(collection)
            if renewed is store:
                raise
            return await renewed.describe(collection)

    async def list_collections(self) -> list[str]:
        return await self._common.list_collections()

    async def create_collection(
        self, collection: str, vectors: Mapping[str, VectorParams], *, labels: Mapping[str, str]
    ) -> None:
        await (await self._at(collection)).create_collection(collection, vectors, labels=labels)

    async def delete_collection(self, collection: str) -> None:
        await (await self._at(collection)).delete_collection(collection)

    async def add_vector(self, collection: str, name: str, params: VectorParams) -> None:
        await (await self._at(collection)).add_vector(collection, name, params)

    async def delete_vector(self, collection: str, name: str) -> None:
        await (await self._at(collection)).delete_vector(collection, name)

    async def create_payload_index(self, collection: str, field_name: str, type: str) -> None:
        await (await self._at(collection)).create_payload_index(collection, field_name, type)

    async def delete_payload_index(self, collection: str, field_name: str) -> None:
        await (await self._at(collection)).delete_payload_index(collection, field_name)

    async def upsert(self, collection: str, points: Sequence[Point]) -> None:
        await (await self._at(collection)).upsert(collection, points)

    async def set_payload(self, collection: str, ids: Sequence[str], payload: Mapping[str, Any]) -> None:
        await (await self._at(collection)).set_payload(collection, ids, payload)

    async def delete_points(self, collection: str, ids: Sequence[str]) -> None:
        await (await self._at(collection)).delete_points(collection, ids)

    async def delete_by_filter(self, collection: str, filter: Filter) -> None:
        await (await self._at(collection)).delete_by_filter(collection, filter)

    async def get(self, collection: str, ids: Sequence[str], *, with_vectors: bool = False) -> list[Point]:
        return await (await self._at(collection)).get(collection, ids, with_vectors=with_vectors)

    async def search(
        self, collection: str, searches: Sequence[Search], *, with_vectors: bool | Sequence[str] = False
    ) -> list[list[Hit]]:
        return await (await self._at(collection)).search(collection, searches, with_vectors=with_vectors)

    async def scroll(
        self,
        collection: str,
        *,
        filter: Filter | None = None,
        limit: int = 100,
        after: str | None = None,
        order_by: tuple[str, str] | None = None,
        with_vectors: bool = False,
    ) -> Page:
        store = await self._at(collection)
        return await store.scroll(
            collection, filter=filter, limit=limit, after=after, order_by=order_by, with_vectors=with_vectors
        )

    async def count(self, collection: str, filter: Filter | None = None) -> int:
        return await (await self._at(collection)).count(collection, filter)

    async def facet(
        self, collection: str, field_name: str, *, filter: Filter | None = None, limit: int = 10
    ) -> list[tuple[Any, int]]:
        return await (await self._at(collection)).facet(collection, field_name, filter=filter, limit=limit)

    def can_push_down(self, filter: Filter) -> bool:
        return self._common.can_push_down(filter)

    async def snapshot(self, collection: str, target: Path) -> None:
        await (await self._at(collection)).snapshot(collection, target)

    async def restore(self, collection: str, source: Path) -> None:
        await (await self._at(collection)).restore(collection, source)

    async def health(self) -> None:
        await self._common.health()

    async def close(self) -> None:
        for store in (self._common, *self._open.values()):
            await store.close()

    async def _at(self, collection: str) -> VectorStore:
        known = self._places.get(collection)
        if known is None or time.monotonic() - known[0] > _REMEMBER_S:
            known = self._places[collection] = (time.monotonic(), await self._locate(collection))
        place = known[1]
        if place is None:
            return self._common
        if place not in self._open:
            self._open[place] = self._connect(*place)
        return self._open[place]
