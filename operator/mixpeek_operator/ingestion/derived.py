"""Documents by the object they were made of: found, shown as a tree and deleted across collections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from mixpeek_operator.core.directory import Directory
from mixpeek_operator.core.errors import NotFoundError
from mixpeek_operator.core.filters import Filter, all_of, one_of
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.ingestion.lineage import ROOT_OBJECT, render
from mixpeek_operator.ingestion.records import namespace_of
from mixpeek_operator.ingestion.signatures import Signatures
from mixpeek_operator.ports.vectors import Point, VectorStore, scroll_all


class DerivedDocuments:
    """What was made of objects."""

    def __init__(self, vectors: VectorStore, directory: Directory, signatures: Signatures) -> None:
        self._vectors = vectors
        self._directory = directory
        self._signatures = signatures

    async def of_objects(
        self, scope: Scope, object_ids: Sequence[str], *, collection_ids: Sequence[str] = ()
    ) -> AsyncIterator[Point]:
        """Yield every document whose root is one of the objects, in the given collections or in all."""
        collection = await self._vector_collection(scope)
        if await self._vectors.describe(collection) is None:
            return
        wanted: Filter | None = one_of("collection_id", list(collection_ids)) if collection_ids else None
        filter = all_of(one_of(ROOT_OBJECT, list(object_ids)), wanted)
        async for point in scroll_all(self._vectors, collection, filter=filter):
            yield point

    async def delete_of_objects(self, scope: Scope, object_ids: Sequence[str]) -> int:
        """Delete the documents of objects everywhere, and say how many there were."""
        namespace_id = namespace_of(scope)
        collection = await self._vector_collection(scope)
        deleted = 0
        touched: set[str] = set()
        try:
            for start in range(0, len(object_ids), 500):
                chunk = list(object_ids[start : start + 500])
                found = [
                    (point.id, str(point.payload["collection_id"])) async for point in self.of_objects(scope, chunk)
                ]
                touched |= {collection_id for _, collection_id in found}
                if found:
                    await self._vectors.delete_points(collection, [id for id, _ in found])
                deleted += len(found)
        finally:
            for id in sorted(touched):
                try:
                    await self._signatures.touch(await self._directory.collection(namespace_id, id))
                except NotFoundError:
                    continue  # the collection itself is gone; nothing is cached over it any more
        return deleted

    async def of_object(self, scope: Scope, object_id: str, collection_ids: Sequence[str] = ()) -> dict[str, Any]:
        """Return every document made of an object, in any collection or in the given ones."""
        documents = [render(point.payload) for point in await self._made(scope, object_id, collection_ids)]
        counts: dict[str, int] = {}
        for document in documents:
            counts[document["collection_id"]] = counts.get(document["collection_id"], 0) + 1
        return {
            "object_id": object_id,
            "documents": documents,
            "total": len(documents),
            "total_count": len(documents),
            "collections": [{"collection_id": id, "document_count": counts[id]} for id in sorted(counts)],
        }

    async def decomposition_tree(
        self, scope: Scope, object_id: str, *, include_document_ids: bool = False
    ) -> dict[str, Any]:
        """Return the collections an object went through, nested as they feed each other."""
        nodes: dict[str, dict[str, Any]] = {}
        roots: list[dict[str, Any]] = []
        points = await self._made(scope, object_id, ())
        for point in points:
            above = point.payload["_internal"].get("lineage") or {}
            path = str(above.get("path") or point.payload["collection_id"])
            node = nodes.get(path)
            if node is None:
                node = nodes[path] = {
                    "collection_id": point.payload["collection_id"],
                    "lineage_path": path,
                    "feature_extractor_id": ((above.get("chain") or [{}])[-1]).get("feature_extractor_id"),
                    "document_count": 0,
                    "children": [],
                    **({"document_ids": []} if include_document_ids else {}),
                }
            node["document_count"] += 1
            if include_document_ids:
                node["document_ids"].append(point.payload["document_id"])
        for path in sorted(nodes):
            parent = nodes.get(path.rpartition("/")[0])
            (parent["children"] if parent else roots).append(nodes[path])
        internal = points[0].payload["_internal"] if points else {}
        return {
            "object_id": object_id,
            "root_object_id": object_id,
            "root_bucket_id": (internal.get("lineage") or {}).get("root_bucket_id"),
            "total_documents": len(points),
            "tree": roots,
        }

    async def _made(self, scope: Scope, object_id: str, collection_ids: Sequence[str]) -> Sequence[Point]:
        namespace_id = namespace_of(scope)
        ids = [(await self._directory.collection(namespace_id, id)).id for id in collection_ids]
        points = [point async for point in self.of_objects(scope, [object_id], collection_ids=ids)]
        return sorted(points, key=lambda point: _place(point.payload))

    async def _vector_collection(self, scope: Scope) -> str:
        info = await self._directory.namespace(scope.organization, namespace_of(scope))
        return info.vector_collection


def _place(stored: Mapping[str, Any]) -> tuple[str, str, int]:
    internal = stored["_internal"]
    path = str((internal.get("lineage") or {}).get("path") or "")
    return path, str(stored["collection_id"]), int(internal.get("segment") or 0)
