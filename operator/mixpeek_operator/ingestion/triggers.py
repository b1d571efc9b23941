"""What a collection is triggered over: its sources, narrowed, and what it feeds in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from mixpeek_operator.core.directory import CollectionInfo, Directory
from mixpeek_operator.core.errors import ConflictError, SpecError
from mixpeek_operator.core.filters import all_of, equals, parse
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.core.shapes import TEXT, TEXTS, expect
from mixpeek_operator.ingestion.batch_records import check_strategy, new_batch
from mixpeek_operator.ingestion.objects import Objects
from mixpeek_operator.ports.vectors import VectorStore, scroll_all

_SHAPE = {
    "object_ids": TEXTS,
    "include_buckets": TEXTS,
    "include_collections": TEXTS,
    "dedup_strategy": TEXT,
}


class TriggerSources:
    """Looks up what `POST /v1/collections/{id}/trigger` processes."""

    def __init__(self, directory: Directory, objects: Objects, vectors: VectorStore) -> None:
        self._directory = directory
        self._objects = objects
        self._vectors = vectors

    async def drafts(
        self, scope: Scope, info: CollectionInfo, options: Mapping[str, Any], now: str
    ) -> AsyncIterator[tuple[dict[str, Any], Sequence[str]]]:
        """Yield a batch to be and its items, for each source that holds any."""
        expect(options, _SHAPE)
        strategy = check_strategy(options.get("dedup_strategy"))
        for source_id in await self.narrowed(info, options):
            ids = await self.items(info, source_id, options)
            if not ids:
                continue
            batch = new_batch(
                organization=scope.organization,
                namespace_id=info.namespace_id,
                bucket_id=source_id if info.source_type == "bucket" else await self.root_bucket(info),
                root=source_id,
                type="BUCKET" if info.source_type == "bucket" else "COLLECTION",
                now=now,
            )
            batch |= {"dedup_strategy": strategy, "requested_collections": await self.downstream(info)}
            yield batch, ids

    async def narrowed(self, info: CollectionInfo, options: Mapping[str, Any]) -> Sequence[str]:
        """Return the ids of the sources to read: those named, or all."""
        named = options.get("include_buckets" if info.source_type == "bucket" else "include_collections")
        if not named:
            return info.source_ids
        lookup = self._directory.bucket if info.source_type == "bucket" else self._directory.collection
        chosen = [(await lookup(info.namespace_id, str(item))).id for item in named]
        foreign = [id for id in chosen if id not in info.source_ids]
        if foreign:
            raise SpecError(f"{', '.join(foreign)} does not feed collection {info.name!r}", code="not_a_source")
        return chosen

    async def items(self, info: CollectionInfo, source_id: str, options: Mapping[str, Any]) -> Sequence[str]:
        """Return the ids of a source's objects or documents that are to be processed."""
        filters = options.get("source_filters")
        if info.source_type == "bucket":
            if options.get("object_ids"):
                return await self._objects.known_ids(info.namespace_id, source_id, options["object_ids"])
            return await self._objects.find_ids(info.namespace_id, source_id, filters, None)
        filter = all_of(equals("collection_id", source_id), parse(filters))
        if await self._vectors.describe(info.vector_collection) is None:
            return []  # nothing is stored before the namespace is provisioned
        points = scroll_all(self._vectors, info.vector_collection, filter=filter)
        return [str(point.payload["document_id"]) async for point in points]

    async def downstream(self, info: CollectionInfo) -> list[str]:
        """Return the collection and everything it feeds, by id."""
        found = {info.id}
        collections = await self._directory.collections(info.namespace_id)
        for _ in collections:
            found |= {item.id for item in collections if found & set(item.source_ids)}
        return sorted(found)

    async def root_bucket(self, info: CollectionInfo) -> str:
        """The bucket a collection's documents come from in the end; the first one when there are several."""
        seen: set[str] = set()
        while info.source_type != "bucket" and info.id not in seen:
            seen.add(info.id)
            info = await self._directory.collection(info.namespace_id, info.source_ids[0])
        return info.source_ids[0]


def triggered(
    info: CollectionInfo, batches: Sequence[Mapping[str, Any]], tasks: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the answer to a trigger. Raises ConflictError when there is nothing to process."""
    if not batches:
        raise ConflictError(f"collection {info.name!r} has nothing to process: its sources hold no matching items")
    from_bucket = info.source_type == "bucket"
    sources = [batch["root"] for batch in batches]
    items = sum(batch["item_count"] for batch in batches)
    return {
        "batch_id": batches[0]["batch_id"],
        "task_id": tasks[0]["task_id"],
        "batch_ids": [batch["batch_id"] for batch in batches],
        "task_ids": [task["task_id"] for task in tasks],
        "batch_count": len(tasks),
        "collection_id": info.id,
        "source_bucket_ids": sources if from_bucket else None,
        "source_collection_ids": None if from_bucket else sources,
        "object_count": items if from_bucket else None,
        "document_count": None if from_bucket else items,
        "total_tiers": max(len(batch["dag_tiers"]) for batch in batches),
        "message": f"Processing {items} {'objects' if from_bucket else 'documents'} through {info.name!r}",
    }
