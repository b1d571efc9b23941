"""Documents of a collection: read, list, change, and trace to where they come from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mixpeek_operator.core.clock import Clock, timestamp
from mixpeek_operator.core.directory import CollectionInfo, Directory
from mixpeek_operator.core.errors import MixpeekError, NotFoundError, SpecError
from mixpeek_operator.core.filters import parse
from mixpeek_operator.core.ids import point_id, random
from mixpeek_operator.core.links import Links
from mixpeek_operator.core.listing import ListPage, ListQuery
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.core.shapes import OBJECT, TEXTS, expect
from mixpeek_operator.ingestion import aggregate as aggregation
from mixpeek_operator.ingestion.document_bodies import changes_of, created, limited, refuse_reserved, vectors_of
from mixpeek_operator.ingestion.document_lists import count, list_groups, list_page, rendered, select, stream
from mixpeek_operator.ingestion.lineage import RESERVED, render, user_fields
from mixpeek_operator.ingestion.paths import MISSING, assign, resolve
from mixpeek_operator.ingestion.records import namespace_of
from mixpeek_operator.ingestion.signatures import Signatures
from mixpeek_operator.ingestion.statistics import FieldStatistics
from mixpeek_operator.ports.vectors import Point, VectorStore, not_provisioned

_WRITE = 500


class Documents:
    """Documents; user fields may be changed, lineage and ids may not."""

    def __init__(
        self,
        vectors: VectorStore,
        directory: Directory,
        signatures: Signatures,
        clock: Clock,
        links: Links,
    ) -> None:
        self._vectors = vectors
        self._directory = directory
        self._signatures = signatures
        self._clock = clock
        self._links = links

    async def get(
        self,
        scope: Scope,
        collection: str,
        document_id: str,
        *,
        return_vectors: bool = False,
        return_presigned_urls: bool = False,
    ) -> dict[str, Any]:
        """Return one document, on request with download links of its object's files in `document_blobs`.

        Raises NotFoundError outside the collection.
        """
        info = await self._info(scope, collection)
        point = await self._point(info, document_id)
        found = await rendered(self._vectors, info, [point], vectors=return_vectors)
        if return_presigned_urls:
            found = await self._links.of_documents(info.namespace_id, found)
        return found[0]

    async def homes(self, scope: Scope, document_ids: Sequence[str]) -> dict[str, str]:
        """Return the id of the collection that each document is in; a document that does not exist is left out."""
        namespace_id = namespace_of(scope)
        # Every collection of a namespace keeps its documents in the same vector collection.
        collections = {item.id: item for item in await self._directory.collections(namespace_id)}
        points = [point_id(namespace_id, id) for id in document_ids]
        found: dict[str, str] = {}
        for place in {item.vector_collection for item in collections.values()}:
            if await self._vectors.describe(place) is None:
                continue  # not provisioned yet
            for point in await self._vectors.get(place, points):
                if point.payload.get("collection_id") in collections:
                    found[str(point.payload["document_id"])] = str(point.payload["collection_id"])
        return found

    async def list(
        self,
        scope: Scope,
        collection: str,
        query: ListQuery,
        *,
        return_vectors: bool = False,
        return_presigned_urls: bool = False,
        group_by: str | None = None,
    ) -> ListPage:
        """Return a page of documents, or with `group_by` of groups `{group_key, documents, count}`."""
        info = await self._info(scope, collection)
        if group_by:
            page = await list_groups(self._vectors, info, query, group_by, vectors=return_vectors)
        else:
            page = await list_page(self._vectors, info, query, vectors=return_vectors)
        if not return_presigned_urls:
            return page
        sign = self._links.of_documents
        if not group_by:
            return replace(page, items=await sign(info.namespace_id, page.items))
        groups = [{**group, "documents": await sign(info.namespace_id, group["documents"])} for group in page.items]
        return replace(page, items=groups)

    async def create(self, scope: Scope, collection: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Store a document as given, with `vectors` (by vector name) or `features[].vectors`; nothing is embedded."""
        info = await self._info(scope, collection)
        id = str(body.get("document_id") or random("doc", 24))
        stored = created(info, body, id, timestamp(self._clock.now()))
        point = Point(point_id(info.namespace_id, id), vectors_of(info, body), stored)
        async with self._signatures.changing(info):
            try:
                await self._vectors.upsert(info.vector_collection, [point])
            except NotFoundError as error:
                raise not_provisioned(info.namespace_id) from error
        return render(stored)

    async def update(self, scope: Scope, collection: str, document_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the user fields of a document; its vectors and lineage stay."""
        info = await self._info(scope, collection)
        refuse_reserved(body, allowed=RESERVED)
        point = await self._point(info, document_id, with_vectors=True)
        system = {name: point.payload[name] for name in ("document_id", "collection_id")}
        stored = {**user_fields(body), **system, "_internal": self._edited(point)}
        async with self._signatures.changing(info):
            await self._vectors.upsert(info.vector_collection, [Point(point.id, point.vectors, stored)])
        return render(stored)

    async def patch(self, scope: Scope, collection: str, document_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Merge user fields into a document; a dotted name sets a nested field."""
        info = await self._info(scope, collection)
        changes = changes_of(body)
        point = await self._point(info, document_id)
        async with self._signatures.changing(info):
            stored = await self._merge(info, point, changes)
        return render(stored)

    async def delete(self, scope: Scope, collection: str, document_id: str) -> dict[str, Any]:
        """Delete one document."""
        info = await self._info(scope, collection)
        point = await self._point(info, document_id)
        async with self._signatures.changing(info):
            await self._vectors.delete_points(info.vector_collection, [point.id])
        return {"success": True, "message": f"Deleted document {document_id}"}

    async def batch_update(self, scope: Scope, collection: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Change documents by id (`updates`) or all that match (`filters` with `update_data`)."""
        info = await self._info(scope, collection)
        updates = body.get("updates")
        if (updates is None) == (body.get("update_data") is None):
            raise SpecError("send either 'updates', or 'filters' with 'update_data'", code="invalid_update")
        if updates is None:
            done = await self.bulk_update(scope, collection, body)
            return {
                "updated_count": done["updated_count"],
                "failed_count": 0,
                "results": [],
                "message": done["message"],
            }
        limited(updates, "updates")
        results = []
        async with self._signatures.changing(info):
            for entry in updates:
                id = str(entry.get("document_id", "")) if isinstance(entry, Mapping) else ""
                try:
                    if not isinstance(entry, Mapping):
                        raise SpecError("an update is {document_id, update_data}")
                    expect(entry, {"update_data": OBJECT})
                    await self._merge(info, await self._point(info, id), changes_of(entry.get("update_data") or {}))
                    results.append({"document_id": id, "success": True, "error": None})
                except MixpeekError as error:
                    results.append({"document_id": id, "success": False, "error": error.message})
        updated = sum(bool(item["success"]) for item in results)
        return {
            "updated_count": updated,
            "failed_count": len(results) - updated,
            "results": results,
            "message": f"Updated {updated} of {len(results)} documents",
        }

    async def batch_delete(self, scope: Scope, collection: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Delete documents by id (`document_ids`) or all that match `filters`."""
        info = await self._info(scope, collection)
        ids = body.get("document_ids")
        filters = parse(body.get("filters"))
        if (ids is None) == (filters is None):
            raise SpecError("send either 'document_ids' or 'filters'", code="invalid_delete")
        results: list[dict[str, Any]] = []
        if ids is not None:
            expect(body, {"document_ids": TEXTS})
            limited(ids, "document_ids")
            found = await self._points(info, ids)
            for id in ids:
                error = None if id in found else f"there is no document {id!r} in this collection"
                results.append({"document_id": id, "success": id in found, "error": error})
            points = [point.id for point in found.values()]
        else:
            points = [point.id async for point in stream(self._vectors, select(self._vectors, info, filters))]
        async with self._signatures.changing(info):
            for start in range(0, len(points), _WRITE):
                await self._vectors.delete_points(info.vector_collection, points[start : start + _WRITE])
        return {
            "deleted_count": len(points),
            "failed_count": sum(not item["success"] for item in results),
            "results": results,
            "message": f"Deleted {len(points)} documents",
        }

    async def bulk_update(self, scope: Scope, collection: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Merge the same `update_data` into every document that matches `filters` (all without filters)."""
        info = await self._info(scope, collection)
        expect(body, {"update_data": OBJECT})
        changes = changes_of(body.get("update_data") or {})
        chosen = select(self._vectors, info, parse(body.get("filters")))
        points = [point async for point in stream(self._vectors, chosen)]
        async with self._signatures.changing(info):
            for point in points:
                await self._merge(info, point, changes)
        return {"updated_count": len(points), "message": f"Updated {len(points)} documents"}

    async def count(self, scope: Scope, collection: str, filters: Any = None) -> dict[str, Any]:
        """Return how many documents match a wire filter."""
        info = await self._info(scope, collection)
        return {
            "collection_id": info.id,
            "count": await count(self._vectors, select(self._vectors, info, parse(filters))),
        }

    async def distinct(
        self, scope: Scope, collection: str, field: str, *, filters: Any = None, limit: int = 100
    ) -> dict[str, Any]:
        """Return the values of a field with their counts, most frequent first; each member of a list counts."""
        info = await self._info(scope, collection)
        found: dict[tuple[int, Any], tuple[Any, int]] = {}
        async for point in stream(self._vectors, select(self._vectors, info, parse(filters))):
            value = resolve(point.payload, field)
            for item in value if isinstance(value, list) else [value]:
                if item is not MISSING and item is not None:
                    key = aggregation.order(item)
                    found[key] = (item, found.get(key, (item, 0))[1] + 1)
        ranked = [found[key] for key in sorted(found, key=lambda key: (-found[key][1], key))]
        values = [{"value": value, "count": number} for value, number in ranked[:limit]]
        return {"field": field, "values": values, "total_distinct": len(ranked)}

    async def aggregate(self, scope: Scope, collection: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Group and aggregate documents."""
        info = await self._info(scope, collection)
        wanted = aggregation.parse_request(body)
        chosen = select(self._vectors, info, parse(body.get("filters")))

        async def rows() -> AsyncIterator[Mapping[str, Any]]:
            async for point in stream(self._vectors, chosen):
                yield point.payload

        return await aggregation.run(wanted, rows())

    async def statistics(self, scope: Scope, collection: str) -> dict[str, Any]:
        """Return how many documents there are, and the types and most common values of each field."""
        info = await self._info(scope, collection)
        documents, fields = 0, FieldStatistics()
        async for point in stream(self._vectors, select(self._vectors, info, None)):
            documents += 1
            fields.add(user_fields(point.payload))
        return {"document_count": documents, "fields": fields.answer()}

    async def features(self, scope: Scope, collection: str) -> dict[str, Any]:
        """Return the features of a collection, as `GET /v1/collections/{id}/features` lists them."""
        info = await self._info(scope, collection)
        return {
            "features": [
                {
                    "feature_address": feature.uri,
                    "feature_uri": feature.uri,
                    "feature_extractor_name": feature.extractor,
                    "version": feature.version,
                    "primary": number == 0,
                    "vector_index": {
                        "name": feature.index.name,
                        "description": feature.index.description,
                        "type": feature.index.type,
                        "dimensions": feature.index.dimensions,
                        "distance": feature.index.distance,
                        "datatype": feature.index.datatype,
                        "inference_name": feature.index.inference_model or None,
                    },
                }
                for number, feature in enumerate(info.features)
            ]
        }

    async def lineage(self, scope: Scope, collection: str, document_id: str) -> dict[str, Any]:
        """Return the steps from the root object to a document."""
        info = await self._info(scope, collection)
        point = await self._point(info, document_id)
        above = dict(point.payload["_internal"].get("lineage") or {})
        chain = list(above.pop("chain", None) or ())
        path = above.pop("path", None)
        return {
            "document_id": document_id,
            "collection_id": info.id,
            "depth": len(chain),
            "total_steps": len(chain),
            "lineage_path": path,
            "lineage": {**above, "lineage_chain": chain},
        }

    async def _info(self, scope: Scope, collection: str) -> CollectionInfo:
        return await self._directory.collection(namespace_of(scope), collection)

    async def _point(self, info: CollectionInfo, document_id: str, *, with_vectors: bool = False) -> Point:
        found = await self._points(info, [document_id], with_vectors=with_vectors)
        if document_id not in found:
            raise NotFoundError(f"collection {info.name!r} has no document {document_id!r}")
        return found[document_id]

    async def _points(
        self, info: CollectionInfo, ids: Sequence[str], *, with_vectors: bool = False
    ) -> dict[str, Point]:
        wanted = [point_id(info.namespace_id, id) for id in ids]
        try:
            points = await self._vectors.get(info.vector_collection, wanted, with_vectors=with_vectors)
        except NotFoundError:
            if await self._vectors.describe(info.vector_collection) is not None:
                raise
            return {}  # nothing is stored before the namespace is provisioned
        return {
            str(point.payload["document_id"]): point
            for point in points
            if point.payload.get("collection_id") == info.id
        }

    async def _merge(self, info: CollectionInfo, point: Point, changes: Mapping[str, Any]) -> dict[str, Any]:
        stored = dict(point.payload)
        for path, value in changes.items():
            assign(stored, path, value)
        stored["_internal"] = self._edited(point)
        tops = {path.split(".")[0] for path in changes} | {"_internal"}
        changed = {name: stored[name] for name in tops}
        await self._vectors.set_payload(info.vector_collection, [point.id], changed)
        return stored

    def _edited(self, point: Point) -> dict[str, Any]:
        now = timestamp(self._clock.now())
        return {**point.payload["_internal"], "updated_at": now, "edited_at": now}
