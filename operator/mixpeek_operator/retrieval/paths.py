"""Dotted paths into documents. `source_object_id` and the like are found in the lineage as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

ABSENT: Final = object()
"""What `read` returns for a path that leads nowhere."""

_LINEAGE: Final = frozenset(
    {
        "root_object_id",
        "root_bucket_id",
        "source_type",
        "source_object_id",
        "source_collection_id",
        "source_document_id",
    }
)


def read(document: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path, ABSENT when there is none; a digit reaches into a list."""
    value: Any = document
    if path in document:
        return document[path]
    for part in path.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isascii() and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return _lineage(document, path)
    return value


def column(documents: Sequence[Mapping[str, Any]], path: str) -> list[Any]:
    """Return what `read` does of each document."""
    try:
        return [document[path] for document in documents]
    except KeyError:
        return [read(document, path) for document in documents]


def write(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return the document with the value at a path; only the objects on the way are copied."""
    head, _, rest = path.partition(".")
    if rest:
        inner = document.get(head)
        value = write(inner if isinstance(inner, dict) else {}, rest, value)
    # Half the time of {**document, head: value}.
    written = document.copy()
    written[head] = value
    return written


def _lineage(document: Mapping[str, Any], path: str) -> Any:
    if path not in _LINEAGE:
        return ABSENT
    internal = document.get("_internal")
    lineage = internal.get("lineage") if isinstance(internal, Mapping) else None
    return lineage.get(path, ABSENT) if isinstance(lineage, Mapping) else ABSENT
