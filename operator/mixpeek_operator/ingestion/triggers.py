"""What a collection is triggered over: its sources, narrowed, and what it feeds in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mixpeek_operator.core.directory import CollectionInfo, Directory
from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.core.filters import all_of, equals, parse
from mixpeek_operator.ingestion.objects import Objects
from mixpeek_operator.ports.vectors import VectorStore, scroll_all


class TriggerSources:
    """Looks up what `POST /v1/collections/{id}/trigger` processes."""

    def __init__(self, directory: Directory, objects: Objects, vectors: VectorStore) -> None:
        self._directory = directory
        self._objects = objects
        self._vectors = vectors

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
