"""What an answer adds to its documents on request: vectors, and links to the files they were made of."""

from __future__ import annotations

from typing import Any

from mixpeek_operator.core import ids
from mixpeek_operator.core.links import Links
from mixpeek_operator.ports.vectors import SparseVector, VectorStore
from mixpeek_operator.retrieval.compile import Pipeline
from mixpeek_operator.retrieval.stage import Documents


async def with_vectors(store: VectorStore, pipeline: Pipeline, documents: Documents) -> Documents:
    """Return the documents, each that is stored with its `vectors` by name."""
    namespace = pipeline.namespace
    point_ids = [ids.point_id(namespace.id, str(document.get("document_id"))) for document in documents]
    points = await store.get(namespace.vector_collection, point_ids, with_vectors=True)
    vectors = {point.id: {name: _plain(vector) for name, vector in point.vectors.items()} for point in points}
    return [
        {**document, "vectors": vectors[id]} if id in vectors else document
        for document, id in zip(documents, point_ids, strict=True)
    ]


async def with_links(store: VectorStore, links: Links, pipeline: Pipeline, documents: Documents) -> Documents:
    """Return the documents with signed links to the files of the objects they were made of."""
    namespace = pipeline.namespace
    # A stage may have reshaped a document; what it was made of is then read again.
    bare = [str(item["document_id"]) for item in documents if "_internal" not in item and "document_id" in item]
    internals: dict[str, dict[str, Any]] = {}
    if bare:
        own = {collection.id for collection in pipeline.collections}
        points = await store.get(
            namespace.vector_collection, [ids.point_id(namespace.id, id) for id in dict.fromkeys(bare)]
        )
        internals = {
            str(point.payload["document_id"]): point.payload["_internal"]
            for point in points
            if point.payload.get("collection_id") in own
        }
    return await links.of_documents(namespace.id, documents, internals)


def _plain(vector: Any) -> Any:
    if isinstance(vector, SparseVector):
        return {"indices": list(vector.indices), "values": list(vector.values)}
    return list(vector)
