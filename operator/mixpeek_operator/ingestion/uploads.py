"""Uploads: a signed link for the bytes, then a confirmation that checks them and makes the object."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from typing import Any

from mixpeek_operator.core.clock import Clock, timestamp
from mixpeek_operator.core.directory import BucketInfo, Directory
from mixpeek_operator.core.errors import ConflictError, MixpeekError, NotFoundError, Place, Problem, SpecError
from mixpeek_operator.core.filters import all_of, equals
from mixpeek_operator.core.ids import random
from mixpeek_operator.core.listing import ListPage, ListQuery
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.core.shapes import FLAG, OBJECT, TEXT, expect
from mixpeek_operator.core.shapes import problems as shape_problems
from mixpeek_operator.ingestion.content import kind_of
from mixpeek_operator.ingestion.objects import Objects
from mixpeek_operator.ingestion.records import list_records, namespace_of, scan
from mixpeek_operator.ingestion.schema import validate
from mixpeek_operator.ingestion.tasks import Tasks, TaskStatus
from mixpeek_operator.ports.blobs import BlobInfo, BlobStore
from mixpeek_operator.ports.metadata import MetadataStore, Record

TABLE = "uploads"
MAX_BATCH = 100
_PREFIX = "upl"
_MIME = re.compile(r"^[\w.+-]+/[\w.+*-]+(\s*;.*)?$")
_SHAPE = {
    "metadata": OBJECT,
    "object_metadata": OBJECT,
    "blob_property": TEXT,
    "blob_type": TEXT,
    "file_hash": TEXT,
    "create_object_on_confirm": FLAG,
    "skip_duplicates": FLAG,
}


def is_upload(key: str) -> bool:
    """Whether a file was announced as an upload; objects' own files and archives have other keys."""
    parts = key.split("/")
    return len(parts) == 4 and parts[2].startswith(f"{_PREFIX}_")


class Uploads:
    """Files on their way into a bucket. One that is never confirmed ends as FAILED and leaves nothing behind."""

    def __init__(
        self,
        metadata: MetadataStore,
        blobs: BlobStore,
        directory: Directory,
        objects: Objects,
        tasks: Tasks,
        clock: Clock,
        *,
        max_bytes: int = 5 * 1024**3,
        expiry_s: int = 3600,
    ) -> None:
        """`expiry_s` is the life of a link when the client names none."""
        self._metadata = metadata
        self._blobs = blobs
        self._directory = directory
        self._objects = objects
        self._tasks = tasks
        self._clock = clock
        self._max_bytes = max_bytes
        self._expiry_s = expiry_s

    async def create(self, scope: Scope, bucket: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Announce a file and return the link that takes its bytes with one PUT.

        With `file_hash` of a file that the bucket has, the answer is that upload, `is_duplicate` and without link.
        """
        info = await self._directory.bucket(namespace_of(scope), bucket)
        record = self._checked(info, body)
        if record["file_hash"] and record["skip_duplicates"]:
            duplicate = await self._duplicate(info, record["file_hash"])
            if duplicate is not None:
                return duplicate
        record["presigned_url"] = await self._blobs.upload_url(
            record["s3_key"], content_type=record["content_type"], expires_s=record["presigned_url_expiration"]
        )
        await self._metadata.put(TABLE, info.namespace_id, record["upload_id"], record, if_version=0)
        answer = _render(record)
        if headers := self._blobs.upload_headers:
            answer["presigned_headers"] = dict(headers)
            named = ", ".join(f"{name}: {value}" for name, value in headers.items())
            answer["message"] = f"The PUT to presigned_url has to carry {named}"
        return answer

    async def create_many(self, scope: Scope, bucket: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Announce up to 100 files; a mistake in one refuses all."""
        entries = body.get("uploads")
        if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_BATCH:
            raise SpecError(f"'uploads' is a list of 1 to {MAX_BATCH} uploads", code="invalid_uploads")
        expect(body, {"shared_metadata": OBJECT, "shared_object_metadata": OBJECT})
        info = await self._directory.bucket(namespace_of(scope), bucket)
        merged = []
        problems: list[Problem] = []
        for index, entry in enumerate(entries):
            whole = dict(entry) if isinstance(entry, Mapping) else {}
            wrong = shape_problems(whole, _SHAPE)
            if wrong:
                problems += [
                    Problem(item.code, f"uploads[{index}]: {item.message}", location=("uploads", index, *item.location))
                    for item in wrong
                ]
                continue
            whole["metadata"] = {**(body.get("shared_metadata") or {}), **(whole.get("metadata") or {})}
            shared = {**(body.get("shared_object_metadata") or {}), **(whole.get("object_metadata") or {})}
            whole["object_metadata"] = shared or None
            try:
                self._checked(info, whole)
            except SpecError as error:
                problems += [
                    Problem(item.code, f"uploads[{index}]: {item.message}", location=("uploads", index, *item.location))
                    for item in error.problems
                ]
            merged.append(whole)
        if problems:
            raise SpecError.of(problems)
        made = [await self.create(scope, bucket, entry) for entry in merged]
        return {"uploads": made, "total": len(made)}

    async def get(
        self, scope: Scope, bucket: str, upload_id: str, *, return_presigned_urls: bool = False
    ) -> dict[str, Any]:
        """Return an upload; of a confirmed one, `presigned_url` is a download link when asked for."""
        info = await self._directory.bucket(namespace_of(scope), bucket)
        record = await self._record(info, upload_id)
        answer = _render(record.body)
        if return_presigned_urls and record.body["status"] == "COMPLETED":
            answer["presigned_url"] = await self._blobs.download_url(record.body["s3_key"], expires_s=self._expiry_s)
        return answer

    async def list(self, scope: Scope, bucket: str, query: ListQuery) -> ListPage:
        """Return a page of uploads, newest first unless sorted."""
        info = await self._directory.bucket(namespace_of(scope), bucket)
        order = query.sort or (("created_at", "desc"),)
        return await list_records(
            self._metadata,
            TABLE,
            info.namespace_id,
            ListQuery(query.limit, query.offset, query.cursor, query.search, query.filters, order, query.include_total),
            base=equals("bucket_id", info.id),
            name=f"uploads/{info.id}",
            render=_render,
        )

    async def stats(self, scope: Scope, bucket: str) -> dict[str, Any]:
        """Return how many uploads a bucket has, by status, and their size in bytes."""
        info = await self._directory.bucket(namespace_of(scope), bucket)
        sizes: list[int] = []
        statuses: Counter[str] = Counter()
        async for record in scan(self._metadata, TABLE, info.namespace_id, equals("bucket_id", info.id)):
            sizes.append(int(record.body.get("file_size_bytes") or 0))
            statuses[str(record.body["status"])] += 1
        return {
            "total_uploads": len(sizes),
            "total_size_bytes": sum(sizes),
            "uploads_by_status": dict(statuses),
            "avg_file_size_bytes": sum(sizes) / len(sizes) if sizes else 0.0,
            "unique_buckets": 1 if sizes else 0,
        }

    async def delete(self, scope: Scope, bucket: str, upload_id: str, *, delete_s3_object: bool = True) -> None:
        """Forget an upload and, unless an object uses it, its file."""
        info = await self._directory.bucket(namespace_of(scope), bucket)
        record = await self._record(info, upload_id)
        if delete_s3_object and not record.body.get("object_id"):
            await self._blobs.delete(record.body["s3_key"])
        await self._metadata.delete(TABLE, info.namespace_id, upload_id)

    async def confirm(
        self, scope: Scope, bucket: str, upload_id: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Check the bytes and make the object; confirmed before, return the same answer again.

        ConflictError without bytes or after the link expired; SpecError for a wrong size, hash or ETag, after
        which the wrong bytes are removed and the file may be PUT again.
        """
        given = dict(body or {})
        info = await self._directory.bucket(namespace_of(scope), bucket)
        record = await self._record(info, upload_id)
        upload = dict(record.body)
        if upload["status"] == "COMPLETED":
            if upload["create_object_on_confirm"] and not upload["object_id"]:
                await self._object(scope, info, record, upload)
            return _confirmation(upload, "The upload was confirmed before")
        if upload["status"] != "PENDING":
            raise ConflictError(f"upload {upload_id} is {upload['status']}: {upload['message']}")
        if self._clock.now() > datetime.fromisoformat(upload["expires_at"]):
            await self._expire(info.namespace_id, record)
            raise ConflictError(f"upload {upload_id} expired at {upload['expires_at']}; create another")
        stored = await self._blobs.head(upload["s3_key"])
        if stored is None:
            raise ConflictError(f"upload {upload_id} has no bytes yet; PUT the file to its presigned_url, then confirm")
        digest = stored.sha256 or await self._digest(upload["s3_key"], "sha256")
        problems = await self._mismatches(upload, given, stored, digest)
        if problems:
            await self._blobs.delete(upload["s3_key"])
            raise SpecError.of(problems)
        now = timestamp(self._clock.now())
        upload |= {
            "status": "COMPLETED",
            "state": "COMPLETED",
            "file_size_bytes": stored.size,
            "file_hash": digest,
            "etag": str(given.get("etag") or digest).strip('"'),
            "verified_at": now,
            "completed_at": now,
            "presigned_url": None,
        }
        await self._metadata.put(TABLE, info.namespace_id, upload_id, upload, if_version=record.version)
        if upload["create_object_on_confirm"]:
            upload["object_id"] = await self._object(scope, info, record, upload)
        return _confirmation(upload, "The upload is confirmed")

    async def confirm_many(self, scope: Scope, bucket: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Confirm up to 100 uploads; what fails is told in the task's outputs, the others are confirmed."""
        entries = body.get("confirmations")
        if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_BATCH:
            raise SpecError(f"'confirmations' is a list of 1 to {MAX_BATCH} entries with upload_id", code="invalid")
        await self._directory.bucket(namespace_of(scope), bucket)
        outputs: list[dict[str, Any]] = []
        for entry in entries:
            upload_id = str(entry.get("upload_id", "")) if isinstance(entry, Mapping) else ""
            try:
                done = await self.confirm(scope, bucket, upload_id, entry if isinstance(entry, Mapping) else {})
                outputs.append({"upload_id": upload_id, "status": done["status"], "object_id": done["object_id"]})
            except MixpeekError as error:
                outputs.append({"upload_id": upload_id, "status": "FAILED", "error": error.message})
        failed = sum(item["status"] == "FAILED" for item in outputs)
        status = TaskStatus.COMPLETED
        if failed:
            status = TaskStatus.FAILED if failed == len(outputs) else TaskStatus.COMPLETED_WITH_ERRORS
        task = await self._tasks.create(
            scope,
            "api_buckets_uploads_batch_confirm",
            status=status.value,
            inputs=[item["upload_id"] for item in outputs],
            outputs=outputs,
            error=f"{failed} of {len(outputs)} uploads could not be confirmed" if failed else None,
        )
        return {
            "task_id": task["task_id"],
            "status": status.value,
            "confirmations_count": len(outputs),
            "task": task,
            "message": f"Confirmed {len(outputs) - failed} of {len(outputs)} uploads",
        }

    async def admit(self, key: str) -> None:
        """Raise ConflictError when the upload that a link's `key` belongs to no longer waits for its bytes.

        After a confirmation the checked bytes must stay as they are, and after a deletion there is nothing to fill.
        """
        namespace_id, *_, upload_id, _filename = key.split("/")
        record = await self._metadata.get(TABLE, namespace_id, upload_id)
        if record is None:
            raise ConflictError("the upload of this link was deleted; ask for a new one", code="upload_closed")
        if record.body["status"] != "PENDING":
            message = f"upload {upload_id} is {record.body['status']}; ask for a new one to send another file"
            raise ConflictError(message, code="upload_closed")

    async def expire(self) -> int:
        """Fail uploads of every namespace whose link expired unconfirmed, remove their bytes, say how many."""
        count = 0
        while True:
            claimed = await self._metadata.claim(
                TABLE, states=("PENDING",), owner="expiry", lease_s=60.0, now=self._clock.now().timestamp()
            )
            if claimed is None:
                return count
            await self._expire(*claimed)
            count += 1

    async def _expire(self, namespace_id: str, record: Record) -> None:
        upload = {**record.body, "status": "FAILED", "state": "FAILED", "presigned_url": None}
        upload["message"] = f"never confirmed; the link expired at {upload['expires_at']}"
        try:
            await self._metadata.put(TABLE, namespace_id, record.id, upload, if_version=record.version)
        except ConflictError:
            return  # confirmed or expired by another in the meantime
        await self._blobs.delete(upload["s3_key"])

    async def _record(self, info: BucketInfo, upload_id: str) -> Record:
        record = await self._metadata.get(TABLE, info.namespace_id, upload_id)
        if record is None or record.body["bucket_id"] != info.id:
            raise NotFoundError(f"bucket {info.name!r} has no upload {upload_id!r}")
        return record

    async def _duplicate(self, info: BucketInfo, digest: str) -> dict[str, Any] | None:
        wanted = all_of(equals("bucket_id", info.id), equals("file_hash", digest), equals("status", "COMPLETED"))
        found = await self._metadata.find(TABLE, info.namespace_id, filter=wanted, limit=1)
        if not found:
            return None
        answer = _render(found[0].body)
        return {
            **answer,
            "is_duplicate": True,
            "duplicate_of_upload_id": found[0].id,
            "message": "The bucket has this file; no upload is needed",
        }

    async def _mismatches(
        self, upload: Mapping[str, Any], given: Mapping[str, Any], stored: BlobInfo, digest: str
    ) -> Sequence[Problem]:
        problems = []
        for source, expected in (("announced", upload["file_size_bytes"]), ("confirmed", given.get("file_size_bytes"))):
            if expected is not None and expected != stored.size:
                message = f"the file has {stored.size} bytes, {expected} were {source}; PUT it again"
                problems.append(Problem("size_mismatch", message, location=("file_size_bytes",)))
        wanted = upload["file_hash"]
        if wanted and str(wanted).lower() != digest:
            message = f"the file's sha256 is {digest}, {wanted} was announced; PUT it again"
            problems.append(Problem("hash_mismatch", message, location=("file_hash",)))
        etag = str(given.get("etag") or "").strip().removeprefix("W/").strip('"').lower()
        if etag and etag != digest:
            actual = await self._digest(upload["s3_key"], "md5") if len(etag) == 32 else digest
            if etag != actual:
                message = f"the file's ETag is {actual}, {etag} was given; PUT it again"
                problems.append(Problem("etag_mismatch", message, location=("etag",)))
        if stored.size > self._max_bytes:
            message = f"the file has {stored.size} bytes, at most {self._max_bytes} are taken"
            problems.append(Problem("too_large", message))
        return problems

    async def _digest(self, key: str, algorithm: str) -> str:
        hasher = hashlib.new(algorithm, usedforsecurity=False)
        async for chunk in self._blobs.stream(key):
            hasher.update(chunk)
        return hasher.hexdigest()

    async def _object(self, scope: Scope, info: BucketInfo, record: Record, upload: dict[str, Any]) -> str:
        """Make the object; when it is refused, the upload is as if it had not been confirmed."""
        body = {
            "metadata": upload["object_metadata"] or {},
            "blobs": [
                {"property": upload["blob_property"], "type": upload["blob_type"], "upload_id": upload["upload_id"]}
            ],
            "idempotency_key": f"upload:{upload['upload_id']}",
        }
        try:
            made = await self._objects.create(scope, info.id, body)
        except MixpeekError:
            await self._metadata.put(TABLE, info.namespace_id, record.id, record.body)
            raise
        upload["object_id"] = made["object_id"]
        await self._metadata.put(TABLE, info.namespace_id, record.id, upload)
        return str(made["object_id"])

    def _checked(self, info: BucketInfo, body: Mapping[str, Any]) -> dict[str, Any]:
        problems = shape_problems(body, _SHAPE)
        if problems:
            raise SpecError.of(problems)

        def refuse(field: str, message: str) -> None:
            problems.append(Problem("invalid_upload", message, Place(path=field), location=(field,)))

        filename = body.get("filename")
        if not isinstance(filename, str) or not 1 <= len(filename) <= 255 or not filename.isprintable():
            refuse("filename", "needs a file name of 1 to 255 printable characters")
            filename = "file"
        elif "/" in filename or "\\" in filename or filename in (".", ".."):
            refuse("filename", f"{filename!r} holds a path; send the name alone")
        content_type = body.get("content_type")
        if not isinstance(content_type, str) or not _MIME.match(content_type):
            refuse("content_type", "needs a MIME type such as video/mp4")
            content_type = "application/octet-stream"
        size = body.get("file_size_bytes")
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            refuse("file_size_bytes", "must be a positive whole number")
        elif isinstance(size, int) and size > self._max_bytes:
            refuse("file_size_bytes", f"{size} is over the limit of {self._max_bytes} bytes")
        expires_s = body.get("presigned_url_expiration") or self._expiry_s
        if not isinstance(expires_s, int) or isinstance(expires_s, bool) or not 1 <= expires_s <= 86400:
            refuse("presigned_url_expiration", "must be 1 to 86400 seconds")
            expires_s = self._expiry_s
        digest = body.get("file_hash")
        if digest is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", str(digest)):
            refuse("file_hash", "must be a SHA-256 in hexadecimal (64 digits)")
        create = body.get("create_object_on_confirm")
        create = True if create is None else bool(create)
        name = body.get("blob_property") or PurePosixPath(filename).stem
        kind = str(
            body.get("blob_type") or info.properties.get(name, {}).get("type") or kind_of(content_type, filename)
        )
        if create:
            metadata = body.get("object_metadata") or {}
            checked = validate(info.properties, {}, metadata=metadata, blob_properties={name: kind.lower()})
            problems += checked.problems
        if problems:
            raise SpecError.of(problems)
        now = self._clock.now()
        expires = now + timedelta(seconds=expires_s)
        upload_id = random(_PREFIX, 16)
        return {
            "upload_id": upload_id,
            "bucket_id": info.id,
            "filename": filename,
            "content_type": content_type,
            "file_size_bytes": size,
            "presigned_url": None,
            "presigned_url_expiration": expires_s,
            "s3_key": f"{info.namespace_id}/{info.id}/{upload_id}/{filename}",
            "status": "PENDING",
            "state": "PENDING",
            "lease_until": expires.timestamp(),
            "metadata": dict(body.get("metadata") or {}),
            "create_object_on_confirm": create,
            "object_metadata": body.get("object_metadata"),
            "blob_property": name,
            "blob_type": kind.lower(),
            "file_hash": None if digest is None else str(digest).lower(),
            "skip_duplicates": body.get("skip_duplicates") is not False,
            "is_duplicate": False,
            "duplicate_of_upload_id": None,
            "message": None,
            "created_at": timestamp(now),
            "expires_at": timestamp(expires),
            "completed_at": None,
            "verified_at": None,
            "etag": None,
            "object_id": None,
            "task_id": None,
        }


def _render(upload: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in upload.items() if name not in ("state", "lease_until", "lease_owner")}


def _confirmation(upload: Mapping[str, Any], message: str) -> dict[str, Any]:
    kept = ("upload_id", "status", "etag", "file_size_bytes", "file_hash", "verified_at", "completed_at", "object_id")
    return {**{name: upload[name] for name in kept}, "task_id": None, "message": message}
