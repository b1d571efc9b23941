"""Blobs of an object: taking in what a client sends, and what is kept of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mixpeek_operator.core.directory import BucketInfo
from mixpeek_operator.core.errors import MixpeekError, Problem, SpecError
from mixpeek_operator.core.ids import random
from mixpeek_operator.ingestion.content import Content, Link, Value, read
from mixpeek_operator.ingestion.fetch import Fetch
from mixpeek_operator.ports.blobs import BlobStore
from mixpeek_operator.ports.metadata import MetadataStore

INLINE_BYTES = 64 * 1024
"""Text up to this size stays in the object's record; a file of its own would cost more than it."""

_INLINE_MIME = ("text/", "application/json")
_WIRE_TYPE = {"json": "object", "gif": "image"}


@dataclass(slots=True)
class BlobRequest:
    """One entry of `blobs`, read but not stored."""

    property: str
    kind: str
    key_prefix: str | None
    metadata: Mapping[str, Any] | None
    content: Content | Link | Value | None
    upload_id: str | None = None
    checksum: str | None = None


@dataclass(slots=True)
class StoredBlobs:
    """Blobs as the object's record holds them, and the files written for them."""

    blobs: list[dict[str, Any]] = field(default_factory=list)
    written: list[str] = field(default_factory=list)


def read_requests(raw: Any, bucket: BucketInfo, problems: list[Problem]) -> list[BlobRequest]:
    """Return the entries of `blobs`; what is wrong with one is added to `problems`."""
    if raw is None:
        return []
    if not isinstance(raw, list):
        problems.append(Problem("invalid_blob", "'blobs' is a list of {property, type, data | upload_id}"))
        return []
    found = []
    for index, entry in enumerate(raw):
        request = _read(entry, index, bucket, problems)
        if request is not None:
            found.append(request)
    return found


def _read(entry: Any, index: int, bucket: BucketInfo, problems: list[Problem]) -> BlobRequest | None:
    where = f"blobs[{index}]"

    def refuse(message: str) -> None:
        problems.append(Problem("invalid_blob", f"{where}: {message}", location=("blobs", index)))

    if not isinstance(entry, Mapping):
        refuse(f"is an object with property, type and data or upload_id, not {type(entry).__name__}")
        return None
    name = entry.get("property")
    if not isinstance(name, str) or not name:
        refuse("needs 'property', a property of the bucket's schema")
        return None
    declared = bucket.properties.get(name, {}).get("type")
    kind = str(entry.get("type") or declared or "text").lower()
    data, upload_id = entry.get("data"), entry.get("upload_id")
    if (data is None) == (upload_id is None):
        refuse(f"{name!r} needs either 'data' or 'upload_id'")
        return None
    request = BlobRequest(name, kind, entry.get("key_prefix"), entry.get("metadata"), None)
    request.upload_id = None if upload_id is None else str(upload_id)
    request.checksum = entry.get("checksum")
    if upload_id is None:
        try:
            request.content = read(kind, data, where=f"{where} ({name})")
        except SpecError as error:
            problems.extend(error.problems)
            return None
    return request


class BlobIntake:
    """Stores the blobs of objects. Raises SpecError for a URL that cannot be fetched or an unconfirmed upload."""

    def __init__(self, blobs: BlobStore, metadata: MetadataStore, fetch: Fetch, *, concurrency: int = 8) -> None:
        self._blobs = blobs
        self._metadata = metadata
        self._fetch = fetch
        self._slots = asyncio.Semaphore(concurrency)

    async def store(
        self, namespace_id: str, bucket_id: str, object_id: str, requests: Sequence[BlobRequest]
    ) -> StoredBlobs:
        """Return the blobs as stored; when one fails, what was written for the others is removed."""
        stored = StoredBlobs()
        try:
            for request in requests:
                stored.blobs.append(await self._one(namespace_id, bucket_id, object_id, request, stored))
        except MixpeekError:
            await self.discard(stored.written)
            raise
        return stored

    async def discard(self, keys: Sequence[str]) -> None:
        """Remove files that no record refers to."""
        for key in keys:
            await self._blobs.delete(key)

    async def _one(
        self, namespace_id: str, bucket_id: str, object_id: str, request: BlobRequest, stored: StoredBlobs
    ) -> dict[str, Any]:
        if request.upload_id is not None:
            return await self._uploaded(namespace_id, bucket_id, request)
        content = request.content
        properties: dict[str, Any] = {}
        if isinstance(content, Link):
            async with self._slots:
                fetched = await self._fetch.fetch(content.url)
            properties["source_url"] = content.url
            content = Content(fetched.data, fetched.content_type or "application/octet-stream")
        blob = _blob(request)
        if isinstance(content, Value):
            blob["properties"] = {**properties, "data": content.value}
            return blob
        assert content is not None
        digest = hashlib.sha256(content.data).hexdigest()
        _check_hash(request, digest)
        text = _inline_text(content)
        if text is not None:
            properties["data"] = text
        else:
            key = f"{namespace_id}/{bucket_id}/{object_id}/{blob['blob_id']}"
            async with self._slots:
                await self._blobs.put(key, content.data, content_type=content.mime_type)
            stored.written.append(key)
            properties["key"] = key
        blob["properties"] = properties
        blob["details"] = _details(None, len(content.data), content.mime_type, digest)
        return blob

    async def _uploaded(self, namespace_id: str, bucket_id: str, request: BlobRequest) -> dict[str, Any]:
        record = await self._metadata.get("uploads", namespace_id, str(request.upload_id))
        if record is None or record.body.get("bucket_id") != bucket_id:
            raise _refused(f"blob {request.property!r}: there is no upload {request.upload_id!r} in this bucket")
        upload = record.body
        if upload["status"] != "COMPLETED":
            raise _refused(
                f"blob {request.property!r}: upload {request.upload_id!r} is {upload['status']}; "
                "PUT the file to its presigned_url and confirm it first"
            )
        digest = upload.get("file_hash")
        _check_hash(request, digest)
        blob = _blob(request)
        blob["properties"] = {"key": upload["s3_key"], "upload_id": request.upload_id}
        blob["details"] = _details(upload["filename"], upload.get("file_size_bytes"), upload["content_type"], digest)
        return blob


def wire_blobs(stored: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return stored blobs as an answer shows them."""
    return [dict(blob) for blob in stored]


def blob_size(stored: Sequence[Mapping[str, Any]]) -> int:
    """Return the bytes of an object's files and texts."""
    return sum(int((blob.get("details") or {}).get("size_bytes") or 0) for blob in stored)


def _blob(request: BlobRequest) -> dict[str, Any]:
    blob: dict[str, Any] = {
        "blob_id": random("blob", 10),
        "property": request.property,
        "key_prefix": request.key_prefix,
        "type": _WIRE_TYPE.get(request.kind, request.kind),
        "properties": {},
    }
    if request.metadata:
        blob["metadata"] = dict(request.metadata)
    return blob


def _details(filename: str | None, size: int | None, mime: str, digest: str | None) -> dict[str, Any]:
    return {"filename": filename, "size_bytes": size, "mime_type": mime, "hash": digest}


def _inline_text(content: Content) -> str | None:
    if len(content.data) > INLINE_BYTES or not content.mime_type.startswith(_INLINE_MIME):
        return None
    try:
        text = content.data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None  # kept as a file; reading it as text reports the byte that is not UTF-8
    return None if "\x00" in text else text


def _check_hash(request: BlobRequest, digest: str | None) -> None:
    if request.checksum and digest and request.checksum.lower().removeprefix("sha256:") != digest:
        raise _refused(f"blob {request.property!r}: the checksum does not match the data (sha256 is {digest})")


def _refused(message: str) -> SpecError:
    return SpecError.of([Problem("invalid_blob", message)])
