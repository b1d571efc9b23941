"""Vectors of the documents a stage has: fetched for these documents only, in one round trip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final

from mixpeek_operator.core import ids
from mixpeek_operator.core.directory import CollectionInfo, Feature
from mixpeek_operator.core.errors import ConflictError, NotEnabledError, SpecError
from mixpeek_operator.extraction import features
from mixpeek_operator.ports.vectors import Point, SparseVector
from mixpeek_operator.retrieval import paths
from mixpeek_operator.retrieval.late import Deferred, known
from mixpeek_operator.retrieval.stage import Compilation, Context, Documents

FIELD: Final = (
    "Which vectors: a feature URI, the name of a feature or vector index, or the dotted path of a list of numbers in "
    "the documents. The feature that was searched last when absent, else the collections' first."
)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One row for each document, in order."""

    rows: Any
    """Array of shape (documents, dimensions); zeros where there is no vector."""
    known: Any
    """Which documents have a vector."""

    def unit(self) -> Any:
        """The rows with length 1; a vector of length 0 stays."""
        import numpy as np

        lengths = np.linalg.norm(self.rows, axis=1, keepdims=True)
        return self.rows / np.where(lengths == 0.0, 1.0, lengths)


def check(field: Deferred[str] | str | None, compilation: Compilation, *, package: str = "numpy") -> None:
    """Raise NotEnabledError without `package`, SpecError for a feature that no collection offers."""
    if find_spec(package) is None:
        raise NotEnabledError(f"this stage needs {package}; install mixpeek-operator[models]")
    if not isinstance(field, Deferred) and compilation.collections:
        _vector_name(field, compilation.collections, ())


async def of(documents: Documents, field: Deferred[str] | str | None, context: Context, stage: str) -> Embeddings:
    """Return the documents' vectors; see `of_all`."""
    return (await of_all(documents, [field], context, stage))[0]


async def of_all(
    documents: Documents, fields: Sequence[Deferred[str] | str | None], context: Context, stage: str
) -> list[Embeddings]:
    """Return the documents' vectors for each of `fields`; how many have none becomes a warning.

    Raises SpecError for an unknown feature, a sparse one, and a list in a document that is no vector, ConflictError
    for vectors that different weights made.
    """
    names: list[tuple[str, bool]] = []
    for field in fields:
        wanted = None if field is None else known(field, context.names, "embedding_field")
        name = _vector_name(wanted, context.collections, context.searched)
        names.append((wanted or "", False) if name is None else (name, True))
    stored: dict[str, Any] = {}
    point_ids = [ids.point_id(context.namespace.id, str(document.get("document_id"))) for document in documents]
    if documents and any(is_stored for _, is_stored in names):
        points = await context.vectors.get(
            context.namespace.vector_collection, list(dict.fromkeys(point_ids)), with_vectors=True
        )
        await _same_weights(points, [name for name, is_stored in names if is_stored], context)
        stored = {point.id: point.vectors for point in points}
    found = []
    for name, is_stored in names:
        if is_stored:
            vectors = [stored.get(id, {}).get(name) for id in point_ids]
        else:
            vectors = [_of_document(document, name) for document in documents]
        missing = sum(vector is None for vector in vectors)
        if missing:
            context.warnings.append(f"{stage}: {missing} of {len(documents)} documents have no vector {name!r}")
        found.append(_array(vectors, name))
    return found


def _vector_name(field: str | None, collections: Sequence[CollectionInfo], searched: Sequence[str]) -> str | None:
    """Return the named vector that is meant, None for a path in the documents."""
    offered = [feature for collection in collections for feature in collection.features]
    if field is not None and field.startswith("mixpeek://"):
        return _dense(features.resolve(field, offered)).index.name
    dense = [feature for feature in offered if feature.index.type == "dense"]
    if field is None:
        name = next(iter(searched), None) or next((feature.index.name for feature in dense), None)
        if name is None:
            raise SpecError("the collections have no dense feature; give embedding_field", code="no_embeddings")
        return name
    last = field.rpartition(".")[2]
    for feature in offered:
        if last in (feature.index.name, feature.index.output):
            return _dense(feature).index.name
    return None


def _dense(feature: Feature) -> Feature:
    if feature.index.type != "dense":
        raise SpecError(f"{feature.uri} is sparse; vectors are compared by a dense feature", code="feature_not_dense")
    return feature


async def _same_weights(points: Sequence[Point], names: Sequence[str], context: Context) -> None:
    """Raise ConflictError when a vector of one collection's documents was made by other weights than another's."""
    made: dict[str, str] = {}
    for collection_id in dict.fromkeys(str(point.payload.get("collection_id")) for point in points):
        known = await context.embedders.of(context.namespace.id, collection_id)
        for name in names:
            if name in known and made.setdefault(name, known[name]) != known[name]:
                raise ConflictError(
                    f"documents of {collection_id} were embedded by {known[name]} ({name}) and others by "
                    f"{made[name]}; their vectors cannot be compared: use collections of the same model",
                    code="embedder_changed",
                )


def _of_document(document: dict[str, Any], path: str) -> list[float] | None:
    value = paths.read(document, path)
    if value is paths.ABSENT or value is None:
        return None
    numbers = isinstance(value, list) and all(
        isinstance(item, int | float) and not isinstance(item, bool) and math.isfinite(item) for item in value
    )
    if not numbers or not value:
        raise SpecError(f"{path!r} of document {document.get('document_id')} is no vector", code="vector_invalid")
    return list(value)


def _array(vectors: Sequence[Any], name: str) -> Embeddings:
    import numpy as np

    known = np.array([vector is not None and not isinstance(vector, SparseVector) for vector in vectors], dtype=bool)
    sizes = {len(vector) for vector, is_known in zip(vectors, known, strict=True) if is_known}
    if len(sizes) > 1:
        raise SpecError(f"the vectors {name!r} have different sizes: {sorted(sizes)}", code="vector_size")
    rows = np.zeros((len(vectors), max(sizes, default=1)), dtype=np.float64)
    if known.any():
        rows[known] = [vector for vector, is_known in zip(vectors, known, strict=True) if is_known]
    return Embeddings(rows, known)
