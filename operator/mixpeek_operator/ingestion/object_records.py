"""How an object is kept: what a client sends taken apart, its identity, and the hash of its content. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from mixpeek_operator.core.directory import BucketInfo
from mixpeek_operator.core.errors import (
    AlreadyExistsError,
    BadRequestError,
    ConflictError,
    MixpeekError,
    NotFoundError,
    Problem,
)
from mixpeek_operator.ingestion.blobs import BlobRequest, StoredBlobs, blob_size, read_requests
from mixpeek_operator.ingestion.schema import SYSTEM_FIELDS

_OPTIONS = frozenset(
    {
        "blobs",
        "canonicalize_source",
        "consistency",
        "document_count",
        "edges",
        "force_remirror",
        "idempotency_key",
        "key_prefix",
        "metadata",
        "skip_duplicates",
        "source_details",
    }
)
OWN = _OPTIONS | SYSTEM_FIELDS
"""Names in a record that are no user fields."""

_POLICIES = ("insert", "update", "upsert")


@dataclass(slots=True)
class Draft:
    """One object on its way into the store."""

    id: str
    body: dict[str, Any]
    requests: list[BlobRequest]
    unique: bool
    stored: StoredBlobs | None = None


def split(
    info: BucketInfo, body: Mapping[str, Any], problems: list[Problem]
) -> tuple[dict[str, Any], dict[str, Any], list[BlobRequest]]:
    """Part a body into user fields, metadata and blobs.

    A file-typed property given at the root is a blob. A property that carries a system name lives in metadata,
    where it cannot hide the system's value.
    """
    raw = body.get("metadata")
    metadata: dict[str, Any] = {}
    own = dict(body)
    if isinstance(raw, Mapping):
        metadata = dict(raw)
    elif raw is not None:
        problems.append(Problem("wrong_type", f"'metadata' must be an object, got {type(raw).__name__}"))
    entries = list(own["blobs"]) if isinstance(own.get("blobs"), list) else own.get("blobs")
    fields: dict[str, Any] = {}
    for name, value in own.items():
        declared = str(info.properties.get(name, {}).get("type", ""))
        if declared in ("image", "audio", "video", "pdf", "excel") and isinstance(value, str):
            entries = [*(entries or []), {"property": name, "type": declared, "data": value}]
        elif name in OWN:
            if name in info.properties and name in SYSTEM_FIELDS:
                metadata.setdefault(name, value)
        elif name.startswith("_"):
            problems.append(Problem("unknown_property", f"{name!r}: names that begin with _ are reserved"))
        else:
            fields[name] = value
    return fields, metadata, read_requests(entries, info, problems)


def identity_of(info: BucketInfo, values: Mapping[str, Any], problems: list[Problem]) -> tuple[str, ...]:
    """Return the values of the unique key as text, sorted by field; what is missing is a problem."""
    parts = []
    for name in sorted((info.unique_key or {})["fields"]):
        value = values.get(name)
        if value is None or value == "" or isinstance(value, list | Mapping):
            message = f"{name!r} is part of the bucket's unique key and needs a single value"
            problems.append(Problem("missing", message, location=(name,)))
        parts.append(f"{name}={orjson.dumps(value, default=str).decode()}")
    return tuple(parts)


def policy_of(info: BucketInfo, policy: str | None) -> str:
    """Return the insertion policy: the call's, the bucket's, or upsert."""
    chosen = policy or (info.unique_key or {}).get("default_policy") or "upsert"
    if chosen not in _POLICIES:
        raise BadRequestError(f"policy {chosen!r} is unknown; use one of {', '.join(_POLICIES)}")
    return str(chosen)


def refusal(info: BucketInfo, draft: Draft, old: Mapping[str, Any] | None, policy: str) -> MixpeekError | None:
    """Return why the policy does not allow to store this object, None when it does."""
    identity = draft.body["_unique"]
    if old is not None and old["_unique"] != identity:
        return ConflictError(f"object {draft.id} stands for another key; change one of the key's values")
    if not identity:
        return None
    if old is not None and policy == "insert":
        return AlreadyExistsError(f"bucket {info.name!r} has an object with {', '.join(identity)}: {draft.id}")
    if old is None and policy == "update":
        return NotFoundError(f"bucket {info.name!r} has no object with {', '.join(identity)}")
    return None


def seal(body: dict[str, Any]) -> None:
    """Stamp a record with the hash of what a document can be made of, and with its size."""
    content: dict[str, Any] = {
        name: value
        for name, value in body.items()
        if name == "metadata" or (name not in OWN and not name.startswith("_"))
    }
    content["blobs"] = [
        [
            blob["property"],
            (blob.get("details") or {}).get("hash") or blob["properties"].get("data"),
            blob.get("metadata"),
        ]
        for blob in body["blobs"]
    ]
    packed = orjson.dumps(content, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    body["_hash"] = hashlib.sha256(packed).hexdigest()[:32]
    body["_size"] = len(packed) + blob_size(body["blobs"])


def own_keys(blobs: Sequence[Mapping[str, Any]], object_id: str) -> Sequence[str]:
    """Files that belong to this object alone; an upload's file belongs to the upload."""
    keys = [str(blob["properties"].get("key", "")) for blob in blobs]
    return [key for key in keys if f"/{object_id}/" in key]
