"""What a request says about a document: its fields and vectors, checked. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixpeek_operator.core.directory import CollectionInfo
from mixpeek_operator.core.errors import Place, Problem, SpecError
from mixpeek_operator.core.shapes import OBJECT, OBJECTS, TEXT, expect
from mixpeek_operator.ingestion.lineage import RESERVED
from mixpeek_operator.ports.vectors import SparseVector

MAX_BATCH = 1000
"""Entries of one batch request."""

_CREATE_OPTIONS = frozenset(
    {
        "content_hash",
        "document_schema_version",
        "features",
        "lineage_chain",
        "root_bucket_id",
        "source_collection_id",
        "source_document_id",
        "source_object_id",
        "source_type",
        "vectors",
    }
)

_CREATE_SHAPE = {
    "document_id": TEXT,
    "root_object_id": TEXT,
    "lineage_path": TEXT,
    "lineage_chain": OBJECTS,
    "features": OBJECTS,
    "vectors": OBJECT,
}

_MOST = 3.4028235e38
"""Vectors are stored as 32 bit numbers."""


def created(info: CollectionInfo, body: Mapping[str, Any], id: str, now: str) -> dict[str, Any]:
    """Return the payload of a document that is written by hand. Raises SpecError for what only the system writes."""
    expect(body, _CREATE_SHAPE)
    for feature in body.get("features") or ():
        expect(feature, {"payload": OBJECT, "vectors": OBJECT})
    refuse_reserved(body, allowed={"collection_id", "document_id", "root_object_id", "lineage_path"})
    lineage = {
        "root_object_id": body.get("root_object_id"),
        "root_bucket_id": body.get("root_bucket_id"),
        "source_type": body.get("source_type"),
        "source_object_id": body.get("source_object_id"),
        "source_collection_id": body.get("source_collection_id"),
        "source_document_id": body.get("source_document_id"),
        "path": body.get("lineage_path") or info.id,
        "chain": [dict(step) for step in body.get("lineage_chain") or ()],
    }
    fields = {name: value for name, value in body.items() if name not in RESERVED | _CREATE_OPTIONS}
    if fields.get("metadata") in ({}, None):
        fields.pop("metadata", None)
    for feature in body.get("features") or ():
        fields |= dict(feature.get("payload") or {})
    return {
        **fields,
        "document_id": id,
        "collection_id": info.id,
        "_internal": {
            "namespace_id": info.namespace_id,
            "document_id": id,
            "collection_id": info.id,
            "lineage": lineage,
            "created_at": now,
            "updated_at": now,
            "edited_at": now,
            "segment": 0,
            "segments": 1,
        },
    }


def changes_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields to change. Raises SpecError when there are none, or for one that only the system writes."""
    changes = {name: value for name, value in body.items() if name not in ("document_id", "collection_id")}
    if not changes:
        raise SpecError("the update is empty; send the fields to change", code="empty_update")
    refuse_reserved(changes, allowed=set())
    return changes


def refuse_reserved(body: Mapping[str, Any], *, allowed: set[str] | frozenset[str]) -> None:
    """Raise SpecError naming every field that only the system writes."""
    taken = [name for name in body if str(name).split(".")[0] in RESERVED - set(allowed)]
    if taken:
        raise SpecError.of(
            [
                Problem("immutable", f"{name!r} is written by the system only", Place(path=name), location=(name,))
                for name in taken
            ]
        )


def vectors_of(info: CollectionInfo, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return vectors by index name, given under it or under the output's name. Raises SpecError naming each mistake."""
    given: dict[str, Any] = dict(body.get("vectors") or {})
    for feature in body.get("features") or ():
        given |= dict(feature.get("vectors") or {})
    known = {item.index.name: item.index for item in info.features}
    known |= {item.index.output: item.index for item in info.features}
    problems = []
    found: dict[str, Any] = {}

    def refuse(code: str, name: str, message: str) -> None:
        problems.append(Problem(code, message, Place(path=f"vectors.{name}"), location=("vectors", name)))

    for name, value in given.items():
        index = known.get(name)
        if index is None:
            listed = ", ".join(sorted(item.index.name for item in info.features)) or "none"
            refuse("unknown_vector", name, f"unknown vector {name!r}; this collection has {listed}")
        elif isinstance(value, Mapping) and _sparse(value):
            found[index.name] = SparseVector(value.get("indices", []), value.get("values", []))
        elif not _numbers(value):
            refuse("wrong_type", name, f"vector {name!r} is a list of numbers or {{indices, values}}")
        elif index.dimensions is not None and len(value) != index.dimensions:
            message = f"vector {name!r} has {len(value)} numbers, {index.dimensions} are expected"
            refuse("vector_size", name, message)
        elif not all(abs(item) <= _MOST for item in value):
            refuse("vector_invalid", name, f"vector {name!r} holds a value that is not a finite 32 bit number")
        else:
            found[index.name] = [float(item) for item in value]
    if problems:
        raise SpecError.of(problems)
    return found


def _sparse(value: Mapping[str, Any]) -> bool:
    indices, values = value.get("indices", []), value.get("values", [])
    return _numbers(indices) and all(type(item) is int for item in indices) and _numbers(values)


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(x, int | float) and not isinstance(x, bool) for x in value)


def limited(entries: Any, name: str) -> None:
    """Raise SpecError unless this is a list of 1 to MAX_BATCH entries."""
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_BATCH:
        raise SpecError(f"'{name}' is a list of 1 to {MAX_BATCH} entries", code="invalid_batch")
