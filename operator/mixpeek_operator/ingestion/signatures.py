"""Index signatures: what a cached answer over a collection depends on.

A signature hashes the collection's configuration, its vectors and what embedded them, its document count and its
last write. Whoever writes documents does it inside `changing`, or calls `touch` afterwards; whoever caches puts
signatures into the key (ports.signatures).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import operator
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Final

from mixpeek_operator.core.clock import Clock, timestamp
from mixpeek_operator.core.directory import CollectionInfo
from mixpeek_operator.core.filters import equals
from mixpeek_operator.core.ids import random
from mixpeek_operator.extraction.embedders import TABLE, Embedders, Identities, record_id
from mixpeek_operator.ports.metadata import MetadataStore, Record, Write
from mixpeek_operator.ports.vectors import VectorStore

_MAX_STAMPS: Final = 1000


class Signatures:
    """Index signatures of the collections of every namespace."""

    def __init__(self, metadata: MetadataStore, vectors: VectorStore, clock: Clock) -> None:
        self._metadata = metadata
        self._vectors = vectors
        self._clock = clock
        self._embedders = Embedders(metadata, vectors, clock)
        self._stamps: dict[tuple[str, str], tuple[Sequence[CollectionInfo], Sequence[Record], str]] = {}

    async def signature(self, collection: CollectionInfo) -> str:
        """Return the signature (32 hex digits); it changes with every write to the collection."""
        return (await self.signatures([collection]))[0]

    async def signatures(self, collections: Iterable[CollectionInfo]) -> list[str]:
        """Return the signatures of collections of one namespace, in the order given, with one read."""
        wanted = list(collections)
        if not wanted:
            return []
        return _digests(wanted, await self._records(wanted[0].namespace_id, wanted))

    async def stamp(self, namespace_id: str, retriever_id: str, collections: Iterable[CollectionInfo]) -> str:
        """Return one signature of a retriever and its collections, with one read; see `renew`."""
        wanted = tuple(collections)
        records = await self._metadata.get_many(TABLE, namespace_id, _ids(wanted, retriever_id))
        place = (namespace_id, retriever_id)
        last = self._stamps.get(place)
        # A store that remembers its records gives the same ones until something is written.
        if last is not None and _same(last[0], wanted) and _same(last[1], records):
            return last[2]
        known = {record.id: record.body for record in records}
        revision = str(known.get(retriever_id, {}).get("revision"))
        stamp = _hash(retriever_id, revision, *_digests(wanted, known))
        if len(self._stamps) >= _MAX_STAMPS:
            self._stamps.clear()
        self._stamps[place] = (wanted, records, stamp)
        return stamp

    async def renew(self, namespace_id: str, retriever_id: str) -> None:
        """Change the retriever's stamp, so that nothing that was kept for it is found again."""
        body = {"retriever_id": retriever_id, "revision": random("rev", 12)}
        await self._metadata.transact([Write(TABLE, namespace_id, retriever_id, body)])

    async def _records(self, namespace_id: str, collections: Iterable[CollectionInfo]) -> dict[str, Mapping[str, Any]]:
        records = await self._metadata.get_many(TABLE, namespace_id, _ids(collections))
        return {record.id: record.body for record in records}

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

    @contextlib.asynccontextmanager
    async def changing(self, collection: CollectionInfo) -> AsyncIterator[None]:
        """Change the signature after the block, which writes to the collection, whether or not it fails."""
        async with self.unfinished(collection):
            yield
        await self.touch(collection)

    @contextlib.asynccontextmanager
    async def unfinished(self, collection: CollectionInfo) -> AsyncIterator[None]:
        """Change the signature if the block fails, for part of it may have been written."""
        try:
            yield
        except BaseException:
            await asyncio.shield(self._metadata.transact([self.mark(collection.namespace_id, collection.id)]))
            raise

    async def facts(self, collection: CollectionInfo) -> dict[str, Any]:
        """Return `index_signature`, `document_count` (counted now) and `last_ingestion_at` of a collection."""
        known = await self._records(collection.namespace_id, [collection])
        documents = await self._vectors.count(collection.vector_collection, equals("collection_id", collection.id))
        return {
            "index_signature": _digests([collection], known)[0],
            "document_count": documents,
            "last_ingestion_at": known.get(collection.id, {}).get("last_ingestion_at"),
        }


def _ids(collections: Iterable[CollectionInfo], *more: str) -> list[str]:
    return [*more, *(id for item in collections for id in (item.id, record_id(item.id)))]


def _same(ones: Sequence[object], others: Sequence[object]) -> bool:
    return len(ones) == len(others) and all(map(operator.is_, ones, others))


def _digests(collections: Iterable[CollectionInfo], known: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [_digest(item, known.get(item.id, {}), known.get(record_id(item.id), {})) for item in collections]


def _digest(collection: CollectionInfo, body: Mapping[str, Any], embedded: Mapping[str, Any]) -> str:
    vectors = sorted((item.index.name, item.index.dimensions or 0) for item in collection.features)
    return _hash(
        collection.id,
        collection.incarnation,
        collection.config_signature,
        repr(vectors),
        str(body.get("documents")),
        str(body.get("revision")),
        repr(sorted(embedded.get("embedders", {}).items())),
    )


def _hash(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]
