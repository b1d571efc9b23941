"""What a search looks for: text, a vector, a document or content, made into the vector of a feature."""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mixpeek_operator.core import ids
from mixpeek_operator.core.directory import CollectionInfo, Feature
from mixpeek_operator.core.errors import NotFoundError, SpecError
from mixpeek_operator.ports.vectors import SparseVector, Vector
from mixpeek_operator.retrieval.stage import Context

MODES: Final = ("text", "vector", "document", "content", "url", "image")


@dataclass(frozen=True, slots=True)
class Query:
    """A query as rendered for one execution."""

    mode: str
    value: Any


def read(body: Any) -> Query:
    """Return the query of a rendered body. Raises SpecError naming what is wrong."""
    if isinstance(body, list):
        return Query("vector", body)
    if body is None or isinstance(body, str):
        return Query("text", body)
    if not isinstance(body, Mapping):
        raise SpecError(
            f"a query is text or an object with input_mode and value, got {body!r:.60}", code="query_invalid"
        )
    if "indices" in body and "values" in body:
        return Query("vector", body)
    reference = body.get("document_ref")
    if reference is None and "document_id" in body:
        reference = body
    mode = body.get("input_mode")
    if mode is None:
        keys = {"text": "text", "vector": "vector", "embedding": "vector", "url": "content", "content": "content"}
        mode = "document" if reference is not None else next((keys[key] for key in keys if key in body), "text")
    if mode not in MODES:
        raise SpecError(f"unknown input_mode {mode!r}; use one of {', '.join(MODES)}", code="query_invalid")
    if mode == "document":
        value = reference if reference is not None else body.get("value")
        return Query("document", {"document_id": value} if isinstance(value, str) else value)
    value = body.get("value")
    for key in ("text", "vector", "embedding", "content", "url", "image", "base64"):
        value = body.get(key) if value is None else value
    if mode in ("url", "image", "content"):
        if isinstance(value, Mapping):
            value = value.get("url") or value.get("base64")
        return Query("content", value)
    if mode == "text" and isinstance(value, list):
        return Query("vector", value)
    return Query(mode, value)


def is_empty(query: Query) -> bool:
    """Whether there is nothing to search for."""
    if query.mode == "document":
        return not isinstance(query.value, Mapping) or not query.value.get("document_id")
    return query.value is None or (isinstance(query.value, str) and not query.value.strip()) or query.value == []


Wanted = tuple[Feature, tuple[CollectionInfo, ...], Query]
"""A feature, the collections that are searched by it, and what for."""


async def vectors_of(queries: Sequence[Wanted], context: Context) -> list[Vector]:
    """Return the vector of each query; texts for one model are embedded together, models run side by side.

    Raises ConflictError when other weights made it than those that made the vectors of a collection.
    """
    vectors: list[Vector | None] = [None] * len(queries)
    texts: dict[str, list[tuple[int, str]]] = {}
    waiting: list[Any] = []
    for index, (feature, holders, query) in enumerate(queries):
        if query.mode == "vector":
            vectors[index] = as_vector(query.value, feature)
        elif query.mode == "document":
            waiting.append(_of_document(index, feature, holders, query.value, context))
        else:
            text = _content_text(query.value, feature) if query.mode == "content" else query.value
            if not isinstance(text, str):
                raise SpecError(f"{feature.uri}: a text query must be text, got {text!r:.60}", code="query_invalid")
            texts.setdefault(feature.index.inference_model, []).append((index, text))
    waiting += [_embedded(model, entries, context) for model, entries in texts.items()]
    groups = [await waiting[0]] if len(waiting) == 1 else await asyncio.gather(*waiting)
    for group in groups:
        for index, vector in group:
            vectors[index] = vector
    # After embedding, when it is known without a further call what embedded.
    for model, entries in texts.items():
        identity = await context.inference.identity(model, namespace_id=context.namespace.id)
        for index, _ in entries:
            feature, holders, _ = queries[index]
            await context.embedders.check(holders, {feature.index.name: identity})
    return [vector for vector in vectors if vector is not None]


def as_vector(value: Any, feature: Feature) -> Vector:
    """Return a vector that fits the feature. Raises SpecError with the size it must have."""
    if feature.index.type == "sparse":
        return _sparse(value, feature)
    size = feature.index.dimensions
    if not isinstance(value, list) or not value:
        raise SpecError(f"{feature.uri}: a query vector is a list of {size} numbers", code="vector_invalid")
    if size is not None and len(value) != size:
        raise SpecError(
            f"{feature.uri}: the query vector has {len(value)} numbers, the feature has {size}", code="vector_size"
        )
    # A sum is finite only when every number is; strings and lists raise. Much cheaper than a check of each.
    try:
        finite = math.isfinite(math.fsum(value))
    except (TypeError, ValueError, OverflowError):
        finite = False
    if not finite:
        raise SpecError(f"{feature.uri}: a query vector holds finite numbers only", code="vector_invalid")
    return value


def random_vector(feature: Feature) -> Vector:
    """Return a direction for `on_empty: random`, the same for each run."""
    if feature.index.dimensions is None:
        raise SpecError(f"{feature.uri}: on_empty random needs a dense feature", code="query_invalid")
    source = random.Random(feature.uri)  # noqa: S311  no secret, only a direction
    return [source.gauss(0.0, 1.0) for _ in range(feature.index.dimensions)]


async def _embedded(model: str, entries: list[tuple[int, str]], context: Context) -> list[tuple[int, Vector]]:
    distinct = list(dict.fromkeys(text for _, text in entries))
    embedded = await context.inference.embed(model, distinct, purpose="query", namespace_id=context.namespace.id)
    by_text = dict(zip(distinct, embedded, strict=True))
    return [(index, by_text[text]) for index, text in entries]


async def _of_document(
    index: int,
    feature: Feature,
    holders: tuple[CollectionInfo, ...],
    reference: Mapping[str, Any],
    context: Context,
) -> list[tuple[int, Vector]]:
    document_id = str(reference["document_id"])
    point_id = ids.point_id(context.namespace.id, document_id)
    points = await context.vectors.get(context.namespace.vector_collection, [point_id], with_vectors=True)
    home = str(points[0].payload.get("collection_id")) if points else ""
    if home and all(collection.id != home for collection in context.collections):
        # What is kept of this depends on that collection too, which has to be known before what is read of it.
        await context.find_collection(home)
        points = await context.vectors.get(context.namespace.vector_collection, [point_id], with_vectors=True)
    wanted = reference.get("collection_id")
    if points and wanted:
        collection = await context.find_collection(str(wanted))
        points = [point for point in points if point.payload.get("collection_id") == collection.id]
    if not points:
        raise NotFoundError(f"there is no document {document_id!r} to search by", code="document_not_found")
    vector = points[0].vectors.get(feature.index.name)
    if vector is None:
        raise SpecError(f"the document {document_id!r} has no vector of {feature.uri}", code="vector_missing")
    made_by = await context.embedders.of(context.namespace.id, str(points[0].payload.get("collection_id")))
    if (identity := made_by.get(feature.index.name)) is not None:
        await context.embedders.check(holders, {feature.index.name: identity})
    return [(index, vector)]


def _content_text(value: Any, feature: Feature) -> str:
    """Text of content for a text feature. Raises SpecError for what cannot be embedded as text."""
    if not isinstance(value, str):
        raise SpecError(f"{feature.uri}: content is a data URI, base64 or text", code="query_invalid")
    if value.startswith(("http://", "https://", "s3://")):
        raise SpecError(
            f"{feature.uri}: the query's content is an address; send the content itself as a data URI",
            code="query_content_unsupported",
        )
    if not value.startswith("data:"):
        return value
    head, _, data = value.partition(",")
    if not head.startswith(("data:text/", "data:,", "data:;", "data:application/json")):
        raise SpecError(
            f"{feature.uri} embeds text and the query's content is {head[5:45]!r}", code="query_content_unsupported"
        )
    try:
        return base64.b64decode(data, validate=True).decode() if head.endswith(";base64") else data
    except (binascii.Error, ValueError):
        raise SpecError(f"{feature.uri}: the query's content is not valid base64 text", code="query_invalid") from None


def _sparse(value: Any, feature: Feature) -> SparseVector:
    if not isinstance(value, Mapping):
        raise SpecError(f"{feature.uri} is sparse: send {{indices: […], values: […]}} or text", code="vector_invalid")
    indices, values = value.get("indices"), value.get("values")
    if (
        not isinstance(indices, list)
        or not isinstance(values, list)
        or len(indices) != len(values)
        or len(set(map(str, indices))) != len(indices)
        or not all(isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 2**32 for item in indices)
        or not all(isinstance(item, int | float) and math.isfinite(item) for item in values)
    ):
        raise SpecError(
            f"{feature.uri}: a sparse vector has as many finite values as distinct indices", code="vector_invalid"
        )
    return SparseVector(indices, values)
