"""Index signatures: what a cached answer over a collection depends on.

A signature hashes the collection's configuration, its vectors and what embedded them, its document count and its
last write. Whoever writes documents calls `touch`; whoever caches puts `signature` into the key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from mixpeek_operator.core.clock import Clock
from mixpeek_operator.core.directory import CollectionInfo
from mixpeek_operator.core.filters import equals
from mixpeek_operator.core.ids import random
from mixpeek_operator.extraction.embedders import TABLE, Embedders, Identities, record_id
from mixpeek_operator.ingestion.records import timestamp
from mixpeek_operator.ports.metadata import MetadataStore, Write
from mixpeek_operator.ports.vectors import VectorStore


class Signatures:
    """Index signatures of the collections of every namespace."""

    def __init__(self, metadata: MetadataStore, vectors: VectorStore, clock: Clock) -> None:
        self._metadata = metadata
        self._vectors = vectors
        self._clock = clock
        self._embedders = Embedders(metadata, vectors, clock)

    async def signature(self, collection: CollectionInfo) -> str:
        """Return the signature (32 hex digits); it changes with every write to the collection."""
        return (await self.signatures([collection]))[0]

    async def signatures(self, collections: Iterable[CollectionInfo]) -> list[str]:
        """Return the signatures of collections of one namespace, in the order given, with one read."""
        wanted = list(collections)
        if not wanted:
            return []
        ids = [id for item in wanted for id in (item.id, record_id(item.id))]
        records = await self._metadata.get_many(TABLE, wanted[0].namespace_id, ids)
        known = {record.id: record.body for record in records}
        return [_digest(item, known.get(item.id, {}), known.get(record_id(item.id), {})) for item in wanted]

    async def claim(self, collection: CollectionInfo, embedders: Identities) -> None:
        """Record what embedded documents that are about to be written.

        Raises ConflictError when the collection has documents of other weights.
        """
        await self._embedders.claim(collection, embedders)

    def mark(self, namespace_id: str, collection_id: str, *, documents: int | None = None) -> Write:
        """Return the write that changes a signature, to go into the same transaction as other records."""
        body: dict[str, Any] = {
            "collection_id": collection_id,
            "revision": random("rev", 12),
            "documents": documents,
            "last_ingestion_at": timestamp(self._clock.now()),
        }
        return Write(TABLE, namespace_id, collection_id, body)

    async def touch(self, collection: CollectionInfo) -> None:
        """Record that documents of the collection were written or deleted."""
        documents = await self._vectors.count(collection.vector_collection, equals("collection_id", collection.id))
        await self._metadata.transact([self.mark(collection.namespace_id, collection.id, documents=documents)])

    async def facts(self, collection: CollectionInfo) -> dict[str, Any]:
        """Return `index_signature`, `document_count` (counted now) and `last_ingestion_at` of a collection."""
        ids = [collection.id, record_id(collection.id)]
        known = {
            record.id: record.body for record in await self._metadata.get_many(TABLE, collection.namespace_id, ids)
        }
        body, embedded = (known.get(id, {}) for id in ids)
        documents = await self._vectors.count(collection.vector_collection, equals("collection_id", collection.id))
        return {
            "index_signature": _digest(collection, body, embedded),
            "document_count": documents,
            "last_ingestion_at": body.get("last_ingestion_at"),
        }


def _digest(collection: CollectionInfo, body: Any, embedded: Any) -> str:
    vectors = sorted((item.index.name, item.index.dimensions or 0) for item in collection.features)
    parts = (
        collection.id,
        collection.config_signature,
        repr(vectors),
        str(body.get("documents")),
        str(body.get("revision")),
        repr(sorted(embedded.get("embedders", {}).items())),
    )
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]
