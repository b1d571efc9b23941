"""Which weights embedded the documents of each collection, so that nothing of other weights is put beside them.

A model keeps its name when its weights change, and vectors of different weights fit each other in size only: a search
over both answers, and answers nonsense. What is recorded per collection and vector is `Inference.identity`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from mixpeek_operator.core.clock import Clock
from mixpeek_operator.core.directory import CollectionInfo
from mixpeek_operator.core.errors import AlreadyExistsError, ConflictError, InternalError
from mixpeek_operator.core.filters import equals
from mixpeek_operator.ports.metadata import MetadataStore
from mixpeek_operator.ports.vectors import VectorStore

TABLE: Final = "signatures"
_FRESH_S: Final = 5.0
"""Seconds that a search goes by what it has read: only another process can have changed it meanwhile."""
_MAX_KNOWN: Final = 10_000
_ATTEMPTS: Final = 5

Identities = Mapping[str, str]
"""Identity of the weights by vector name."""


def record_id(collection_id: str) -> str:
    """Return the id of a collection's record in `TABLE`."""
    return f"{collection_id}.embedders"


class Embedders:
    """The weights behind every collection's vectors."""

    def __init__(self, metadata: MetadataStore, vectors: VectorStore, clock: Clock) -> None:
        self._metadata = metadata
        self._vectors = vectors
        self._clock = clock
        self._known: dict[tuple[str, str], tuple[float, Identities]] = {}

    async def claim(self, collection: CollectionInfo, found: Identities) -> None:
        """Record what embedded documents that are about to be written.

        Raises ConflictError when the collection has documents of other weights.
        """
        if not found:
            return
        key = record_id(collection.id)
        for _ in range(_ATTEMPTS):
            record = await self._metadata.get(TABLE, collection.namespace_id, key)
            known: Identities = record.body["embedders"] if record else {}
            other = _other(known, found)
            if other is not None and await self._documents(collection):
                raise _refusal(collection, other, known[other], found[other], "a new document would be")
            wanted = {**known, **found}
            if wanted == known:
                return
            body = {"collection_id": collection.id, "embedders": wanted}
            try:
                await self._metadata.put(
                    TABLE, collection.namespace_id, key, body, if_version=record.version if record else 0
                )
            except (AlreadyExistsError, ConflictError):
                continue  # another batch was quicker; what it wrote is now what counts
            self._known.pop((collection.namespace_id, collection.id), None)
            return
        raise InternalError(f"the embedders of {collection.id} changed {_ATTEMPTS} times while they were written")

    async def check(self, collections: Sequence[CollectionInfo], query: Identities) -> None:
        """Refuse to search collections with query vectors of other weights than their documents'.

        Reads nothing for what was read within the last seconds. Raises ConflictError naming both.
        """
        if not collections:
            return
        namespace_id = collections[0].namespace_id
        recorded = await self._recorded(namespace_id, [collection.id for collection in collections])
        for collection, known in zip(collections, recorded, strict=True):
            if _other(known, query) is None:
                continue
            # The documents may be gone, or embedded anew, since this was read.
            self._known.pop((namespace_id, collection.id), None)
            [known] = await self._recorded(namespace_id, [collection.id])
            other = _other(known, query)
            if other is not None and await self._documents(collection):
                raise _refusal(collection, other, known[other], query[other], "the query is")

    async def of(self, namespace_id: str, collection_id: str) -> Identities:
        """Return what embedded a collection's documents; nothing is known of vectors that users sent."""
        [known] = await self._recorded(namespace_id, [collection_id])
        return known

    async def _recorded(self, namespace_id: str, ids: Sequence[str]) -> list[Identities]:
        now = self._clock.monotonic()
        known = [self._known.get((namespace_id, id)) for id in ids]
        stale = [id for id, entry in zip(ids, known, strict=True) if entry is None or entry[0] <= now]
        if stale:
            records = await self._metadata.get_many(TABLE, namespace_id, [record_id(id) for id in stale])
            bodies = {str(record.body["collection_id"]): record.body["embedders"] for record in records}
            if len(self._known) + len(stale) > _MAX_KNOWN:
                self._known.clear()
            for id in stale:
                self._known[namespace_id, id] = (now + _FRESH_S, bodies.get(id, {}))
            known = [self._known.get((namespace_id, id), (now, {})) for id in ids]
        return [entry[1] for entry in known if entry is not None]

    async def _documents(self, collection: CollectionInfo) -> int:
        return await self._vectors.count(collection.vector_collection, equals("collection_id", collection.id))


def _other(known: Identities, found: Identities) -> str | None:
    """The first vector that other weights made."""
    return next((name for name, identity in found.items() if known.get(name, identity) != identity), None)


def _refusal(collection: CollectionInfo, vector: str, recorded: str, found: str, what: str) -> ConflictError:
    return ConflictError(
        f"collection {collection.name!r}: its documents were embedded by {recorded} ({vector}) and {what} embedded by "
        f"{found}; their vectors cannot be compared. Set the model back to {recorded}, or embed the documents again: "
        "delete them, or the collection, and process their objects in a new batch",
        code="embedder_changed",
        details={"collection_id": collection.id, "vector": vector, "documents": recorded, "found": found},
    )
