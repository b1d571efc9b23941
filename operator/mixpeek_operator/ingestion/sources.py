"""What goes into a collection: objects of a bucket or documents of upstream collections, read in bulk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mixpeek_operator.core.directory import CollectionInfo
from mixpeek_operator.core.errors import NotFoundError, SpecError
from mixpeek_operator.core.ids import document_id, point_id
from mixpeek_operator.ingestion.content import value_of
from mixpeek_operator.ingestion.lineage import Source, source_of_document
from mixpeek_operator.ingestion.paths import MISSING, assign, lookup, resolve, spellings
from mixpeek_operator.ports.blobs import BlobStore
from mixpeek_operator.ports.compute import RowFailure
from mixpeek_operator.ports.metadata import MetadataStore
from mixpeek_operator.ports.vectors import Point, VectorStore

OBJECTS = "objects"
"""Table of the objects of every bucket."""
_SYSTEM = frozenset(
    {"object_id", "bucket_id", "key_prefix", "blobs", "source_details", "status", "error", "created_at", "updated_at"}
)
_BINARY = frozenset({"image", "audio", "video", "pdf", "excel", "binary", "file", "gif"})
_GET = 1000


class SourceReader:
    """Reads sources with a few bulk calls per block."""

    def __init__(self, metadata: MetadataStore, vectors: VectorStore, blobs: BlobStore) -> None:
        self._metadata = metadata
        self._vectors = vectors
        self._blobs = blobs

    async def objects(self, namespace_id: str, ids: Sequence[str]) -> tuple[list[Source], list[RowFailure]]:
        """Return objects as sources, and a failure for each that is gone. Files are not read yet."""
        records = await self._metadata.get_many(OBJECTS, namespace_id, ids)
        found = {record.id: record.body for record in records}
        gone = [RowFailure(id, "NotFoundError", f"object {id} was deleted") for id in ids if id not in found]
        return [_of_object(found[id]) for id in ids if id in found], gone

    async def documents(
        self, vector_collection: str, namespace_id: str, ids: Sequence[str], *, with_vectors: bool = False
    ) -> tuple[list[Source], list[RowFailure]]:
        """Return documents by id as sources, and a failure for each that is gone."""
        points = await self._points(vector_collection, namespace_id, ids, with_vectors)
        found = {str(point.payload["document_id"]): point for point in points}
        gone = [RowFailure(id, "NotFoundError", f"document {id} was deleted") for id in ids if id not in found]
        return [source_of_document(found[id].payload, found[id].vectors) for id in ids if id in found], gone

    async def made_of(
        self, collection: CollectionInfo, source_ids: Sequence[str], *, with_vectors: bool = False
    ) -> dict[str, list[Source]]:
        """Return, per source, the documents that a collection made of it, in segment order.

        Ids are derived, so that no search is needed: segment 0 says how many segments there are.
        """
        firsts = await self.first_segments(collection, source_ids)
        wanted = {
            document_id(collection.id, source_id, segment): source_id
            for source_id, payload in firsts.items()
            for segment in range(int(payload["_internal"].get("segments", 1)))
        }
        points = await self._points(collection.vector_collection, collection.namespace_id, list(wanted), with_vectors)
        made: dict[str, list[Source]] = {source_id: [] for source_id in firsts}
        for point in points:
            made[wanted[str(point.payload["document_id"])]].append(source_of_document(point.payload, point.vectors))
        return made

    async def first_segments(
        self, collection: CollectionInfo, source_ids: Sequence[str]
    ) -> dict[str, Mapping[str, Any]]:
        """Return, per source that has documents in the collection, the payload of its segment 0."""
        ids = {document_id(collection.id, source_id, 0): source_id for source_id in source_ids}
        points = await self._points(collection.vector_collection, collection.namespace_id, list(ids), False)
        return {ids[str(point.payload["document_id"])]: point.payload for point in points}

    async def inputs(self, collection: CollectionInfo, source: Source) -> dict[str, Any]:
        """Return the extractor's inputs from a source, reading the files it needs.

        Without `input_mappings` an extractor finds its inputs by their own names. Raises SpecError for a file
        that is not what its type says, NotFoundError for one that is gone.
        """
        if collection.input_mappings:
            found = {}
            for name, path in collection.input_mappings.items():
                value = await self._value(source, path)
                if value is not MISSING:
                    found[name] = value
            return found
        return await self._everything(source) if collection.features else {}

    async def passthrough(self, collection: CollectionInfo, source: Source) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the user fields and the vectors that documents take over from their source."""
        everything = collection.include_all_source_fields or not (collection.field_passthrough or collection.features)
        fields = await self._everything(source) if everything else {}
        vectors: dict[str, Any] = {}
        for path, target in collection.field_passthrough:
            if path in source.vectors:
                vectors[target or path] = source.vectors[path]
                continue
            value = await self._value(source, path)
            if value is not MISSING and not isinstance(value, bytes):
                assign(fields, target or path, value)
        return fields, vectors

    async def _points(
        self, vector_collection: str, namespace_id: str, ids: Sequence[str], with_vectors: bool
    ) -> list[Point]:
        points: list[Point] = []
        for start in range(0, len(ids), _GET):
            chunk = [point_id(namespace_id, id) for id in ids[start : start + _GET]]
            points += await self._vectors.get(vector_collection, chunk, with_vectors=with_vectors)
        return points

    async def _value(self, source: Source, path: str) -> Any:
        value = resolve(source.fields, path)
        if value is not MISSING or not source.blobs:
            return value
        for candidate in spellings(path):
            name, _, rest = candidate.partition(".")
            values = [await self._read(blob) for blob in source.blobs if blob["property"] == name]
            if values:
                whole: Any = values[0] if len(values) == 1 else values
                if not rest:
                    return whole
                return lookup(whole, rest) if isinstance(whole, Mapping) else MISSING
        return MISSING

    async def _everything(self, source: Source) -> dict[str, Any]:
        fields = dict(source.fields)
        for blob in source.blobs:
            if blob["property"] not in fields and str(blob["type"]) not in _BINARY:
                value = await self._value(source, str(blob["property"]))
                if not isinstance(value, bytes) and value is not MISSING:
                    fields[str(blob["property"])] = value
        return fields

    async def _read(self, blob: Mapping[str, Any]) -> Any:
        properties, details = blob["properties"], blob.get("details") or {}
        kind, mime = str(blob["type"]), details.get("mime_type")
        if "data" in properties:
            inline = properties["data"]
            return value_of(kind, inline.encode(), mime) if isinstance(inline, str) and details else inline
        try:
            data = await self._blobs.get(properties["key"])
        except NotFoundError as error:
            raise NotFoundError(f"the file of blob {blob['property']!r} is gone; upload it again") from error
        try:
            return value_of(kind, data, mime)
        except SpecError as error:
            raise SpecError(f"the file of {blob['property']!r}: {error.message}", code="invalid_blob") from error


def _of_object(body: Mapping[str, Any]) -> Source:
    bucket_id = str(body["bucket_id"])
    fields = {name: value for name, value in body.items() if name not in _SYSTEM and not name.startswith("_")}
    return Source(
        id=str(body["object_id"]),
        kind="bucket",
        root_object_id=str(body["object_id"]),
        root_bucket_id=bucket_id,
        container_id=bucket_id,
        path=bucket_id,
        fingerprint=str(body.get("_hash", "")),
        fields=fields,
        blobs=tuple(body.get("blobs") or ()),
    )
