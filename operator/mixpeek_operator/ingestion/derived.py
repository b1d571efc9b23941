"""Documents by the object they were made of: deleting and finding them across collections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from mixpeek_operator.core.directory import Directory
from mixpeek_operator.core.errors import NotFoundError
from mixpeek_operator.core.filters import Filter, all_of, one_of
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.ingestion.lineage import ROOT_OBJECT
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
        for start in range(0, len(object_ids), 500):
            chunk = list(object_ids[start : start + 500])
            points = [(point.id, str(point.payload["collection_id"])) async for point in self.of_objects(scope, chunk)]
            if points:
                await self._vectors.delete_points(collection, [id for id, _ in points])
            deleted += len(points)
            touched |= {collection_id for _, collection_id in points}
        for id in sorted(touched):
            try:
                await self._signatures.touch(await self._directory.collection(namespace_id, id))
            except NotFoundError:
                continue  # the collection itself is gone; nothing is cached over it any more
        return deleted

    async def _vector_collection(self, scope: Scope) -> str:
        info = await self._directory.namespace(scope.organization, namespace_of(scope))
        return info.vector_collection
