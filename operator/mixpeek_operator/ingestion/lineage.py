"""Where a document comes from, and the payload it is stored with. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mixpeek_operator.core.directory import CollectionInfo

RESERVED = frozenset({"document_id", "collection_id", "_internal", "root_object_id", "lineage_path"})
"""Fields of a document that only the system writes."""

ROOT_OBJECT = "_internal.lineage.root_object_id"
"""Path of the root object's id in a payload, for filters."""


@dataclass(frozen=True, slots=True)
class Source:
    """One input of a collection: an object, or a document of an upstream collection."""

    id: str
    kind: str
    """`bucket` or `collection`."""
    root_object_id: str | None
    root_bucket_id: str | None
    container_id: str
    """Id of the bucket or collection it lies in."""
    path: str
    """Materialized path to it: `bkt_…`, or `bkt_…/col_…`."""
    fingerprint: str
    """Changes when its content does."""
    fields: Mapping[str, Any]
    chain: tuple[Mapping[str, Any], ...] = ()
    blobs: tuple[Mapping[str, Any], ...] = ()
    vectors: Mapping[str, Any] = field(default_factory=dict)
    source_blobs: tuple[Mapping[str, Any], ...] = ()
    """Of a document: what it says about the blobs of the object it comes from."""


def fingerprint(source: Source, collection: CollectionInfo) -> str:
    """Return what decides whether documents of this source are up to date in this collection."""
    return hashlib.sha256(f"{source.fingerprint}\x1f{collection.config_signature}".encode()).hexdigest()[:32]


def extractor_id(collection: CollectionInfo) -> str:
    """Return `text_extractor_v1`."""
    return f"{collection.extractor}_{collection.version.replace('.', '_')}"


def payload(
    collection: CollectionInfo,
    source: Source,
    document_id: str,
    fields: Mapping[str, Any],
    internal: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the payload of a document: user fields at the root, everything of ours under `_internal`.

    `internal` adds to what lineage says: `created_at`, `segment`, `batch_id` and the like.
    """
    step = {
        "collection_id": collection.id,
        "feature_extractor_id": extractor_id(collection),
        "document_id": document_id,
        "timestamp": internal.get("updated_at"),
    }
    lineage = {
        "root_object_id": source.root_object_id,
        "root_bucket_id": source.root_bucket_id,
        "source_type": source.kind,
        "source_object_id": source.id if source.kind == "bucket" else None,
        "source_collection_id": source.container_id if source.kind == "collection" else None,
        "source_document_id": source.id if source.kind == "collection" else None,
        "path": f"{source.path}/{collection.id}",
        "chain": [*source.chain, step],
    }
    return {
        **{name: value for name, value in fields.items() if name not in RESERVED},
        "document_id": document_id,
        "collection_id": collection.id,
        "_internal": {
            "namespace_id": collection.namespace_id,
            "document_id": document_id,
            "collection_id": collection.id,
            "lineage": lineage,
            "source_blobs": [*source.source_blobs, *(_blob_reference(blob) for blob in source.blobs)],
            **internal,
        },
    }


def _blob_reference(blob: Mapping[str, Any]) -> dict[str, Any]:
    """A link back to a blob of the object, without its content; of a file also what a download wants to know."""
    properties, details = blob.get("properties") or {}, blob.get("details") or {}
    reference = {
        "blob_id": blob.get("blob_id"),
        "blob_property": blob.get("property"),
        "blob_type": blob.get("type"),
    }
    if "key" not in properties:
        return reference
    file = {name: details.get(name) for name in ("filename", "size_bytes", "mime_type", "hash")}
    file["source_url"] = properties.get("source_url")
    return {
        **reference,
        "key": properties["key"],
        **{name: value for name, value in file.items() if value is not None},
    }


def source_of_document(stored: Mapping[str, Any], vectors: Mapping[str, Any] | None = None) -> Source:
    """Return a stored document as the input of a downstream collection."""
    internal = stored.get("_internal") or {}
    above = internal.get("lineage") or {}
    collection_id = str(stored["collection_id"])
    version = f"{internal.get('fingerprint', '')}@{internal.get('edited_at', '')}"
    return Source(
        id=str(stored["document_id"]),
        kind="collection",
        root_object_id=above.get("root_object_id"),
        root_bucket_id=above.get("root_bucket_id"),
        container_id=collection_id,
        path=str(above.get("path") or collection_id),
        fingerprint=f"{version}#{internal.get('segment', 0)}",
        fields=user_fields(stored),
        chain=tuple(above.get("chain") or ()),
        vectors=vectors or {},
        source_blobs=tuple(internal.get("source_blobs") or ()),
    )


def user_fields(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a document that belong to the user."""
    return {name: value for name, value in stored.items() if name not in RESERVED}


def render(stored: Mapping[str, Any], *, vectors: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a document in wire shape: user fields, ids and lineage at the root, `_internal` beside them."""
    internal = dict(stored.get("_internal") or {})
    above = internal.get("lineage") or {}
    answer = {
        **user_fields(stored),
        "document_id": stored.get("document_id"),
        "collection_id": stored.get("collection_id"),
        "root_object_id": above.get("root_object_id"),
        "lineage_path": above.get("path"),
        "_internal": internal,
    }
    if vectors is not None:
        answer["vectors"] = {name: wire_vector(value) for name, value in vectors.items()}
    return answer


def wire_vector(value: Any) -> Any:
    """Return a vector as JSON: a list of numbers, or `{indices, values}` for a sparse one."""
    if hasattr(value, "indices") and hasattr(value, "values"):
        return {"indices": [int(item) for item in value.indices], "values": [float(item) for item in value.values]}
    return [float(item) for item in value]
