"""Scores by vectors that are stored already, where the model that reranks is the one that embedded the documents.

A stored vector counts only for a document whose text is still the one it was made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from mixpeek_operator.core import ids
from mixpeek_operator.extraction.scoring import cosines
from mixpeek_operator.retrieval.stage import Context, Documents

_EXTRACTOR: Final = "text_extractor"
_TEXT: Final = "text"
"""Field of its documents that holds what was embedded."""


async def known(
    model: str, query: str, documents: Documents, texts: Sequence[str], context: Context
) -> dict[int, float]:
    """Return the scores, by position, of the documents that have a vector of this model; none for another model.

    Raises ModelUnavailableError as scoring does.
    """
    names = {
        feature.index.name
        for collection in context.collections
        for feature in collection.features
        if feature.extractor == _EXTRACTOR and feature.index.type == "dense"
    }
    if len(names) != 1:
        return {}
    [name], namespace_id = names, context.namespace.id
    identity = await context.inference.identity(model, namespace_id=namespace_id)
    own = {
        collection.id
        for collection in context.collections
        if (await context.embedders.of(namespace_id, collection.id)).get(name) == identity
    }
    if not own:
        return {}
    places = {ids.point_id(namespace_id, str(item.get("document_id"))): at for at, item in enumerate(documents)}
    points = await context.vectors.get(context.namespace.vector_collection, list(places), with_vectors=True)
    vectors: dict[int, Any] = {}
    for point in points:
        at, vector = places[point.id], point.vectors.get(name)
        whole = point.payload.get("collection_id") in own and point.payload.get(_TEXT) == texts[at]
        if whole and isinstance(vector, list):
            vectors[at] = vector
    if not vectors:
        return {}
    [asked] = await context.inference.embed(model, [query], purpose="query", namespace_id=namespace_id)
    return dict(zip(vectors, cosines(asked, list(vectors.values())), strict=True))
