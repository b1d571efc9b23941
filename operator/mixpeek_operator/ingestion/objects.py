"""Objects of a bucket: validated, stored with their blobs, found again, deleted with what was made of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mixpeek_operator.core.clock import Clock, timestamp
from mixpeek_operator.core.directory import BucketInfo, Directory
from mixpeek_operator.core.errors import (
    AlreadyExistsError,
    ConflictError,
    MixpeekError,
    NotFoundError,
    Problem,
    SpecError,
)
from mixpeek_operator.core.filters import all_of, equals, parse
from mixpeek_operator.core.ids import derived, random
from mixpeek_operator.core.links import Links
from mixpeek_operator.core.listing import ListPage, ListQuery
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.ingestion import aggregate as aggregation
from mixpeek_operator.ingestion.blobs import BlobIntake, BlobRequest
from mixpeek_operator.ingestion.derived import DerivedDocuments
from mixpeek_operator.ingestion.object_records import OWN, Draft, identity_of, own_keys, policy_of, refusal, seal, split
from mixpeek_operator.ingestion.records import list_records, namespace_of, scan
from mixpeek_operator.ingestion.schema import validate
from mixpeek_operator.ports.blobs import BlobStore
from mixpeek_operator.ports.metadata import MetadataStore, Write

TABLE = "objects"
MAX_BATCH = 10_000
_Outcomes = list[dict[str, Any] | MixpeekError | None]
_Merged = tuple[dict[str, Any], list[BlobRequest]]


class Objects:
    """Raw objects; creating one does not process it."""

    def __init__(
        self,
        metadata: MetadataStore,
        blobs: BlobStore,
        directory: Directory,
        clock: Clock,
        intake: BlobIntake,
        documents: DerivedDocuments,
        links: Links,
    ) -> None:
        self._metadata = metadata
        self._blobs = blobs
        self._directory = directory
        self._clock = clock
        self._intake = intake
        self._documents = documents
        self._links = links

    async def create(
        self, scope: Scope, bucket: str, body: Mapping[str, Any], *, policy: str | None = None
    ) -> dict[str, Any]:
        """Store one object. With a unique key, `policy` insert | update | upsert (default: the bucket's, then
        upsert) decides what an existing key means. Raises SpecError with everything that is wrong."""
        info = await self._directory.bucket(namespace_of(scope), bucket)
        draft = self._draft(info, body)
        outcome = (await self._store(info, [draft], policy_of(info, policy)))[0]
        if isinstance(outcome, MixpeekError):
            raise outcome
        return _render(outcome)

    async def create_many(
        self, scope: Scope, bucket: str, bodies: Sequence[Any], *, policy: str | None = None
    ) -> dict[str, Any]:
        """Store many objects in one transaction; a bad one is listed under `failed` and the rest is stored."""
        if len(bodies) > MAX_BATCH:
            raise SpecError(f"one call takes at most {MAX_BATCH} objects, got {len(bodies)}", code="too_many")
        info = await self._directory.bucket(namespace_of(scope), bucket)
        chosen = policy_of(info, policy)
        drafts: list[Draft] = []
        positions: list[int] = []
        failed: list[dict[str, Any]] = []
        for index, body in enumerate(bodies):
            try:
                if not isinstance(body, Mapping):
                    raise SpecError(f"an object is a JSON object, not {type(body).__name__}", code="wrong_type")
                drafts.append(self._draft(info, body))
                positions.append(index)
            except MixpeekError as error:
                failed.append(_failure(index, error))
        succeeded = []
        for index, outcome in zip(positions, await self._store(info, drafts, chosen), strict=True):
            if isinstance(outcome, MixpeekError):
                failed.append(_failure(index, outcome))
            else:
                succeeded.append({**_render(outcome), "object_index": index})
        return {
            "succeeded": succeeded,
            "failed": sorted(failed, key=lambda item: item["object_index"]),
            "total_requested": len(bodies),
            "succeeded_count": len(succeeded),
            "failed_count": len(failed),
        }

    async def get(
        self, scope: Scope, bucket: str, object_id: str, *, return_presigned_urls: bool = False
    ) -> dict[str, Any]:
        """Return one object; with `return_presigned_urls` each file carries a download link."""
        info = await self._directory.bucket(namespace_of(scope), bucket)
        record = await self._record(info, object_id)
        answer = _render(record.body)
        return await self._linked(info, answer) if return_presigned_urls else answer

    async def exists(self, scope: Scope, object_id: str) -> bool:
        """Whether any bucket of the namespace has the object."""
        return await self._metadata.get(TABLE, namespace_of(scope), object_id) is not None

    async def list(
        self, scope: Scope, bucket: str, query: ListQuery, *, return_presigned_urls: bool = False
    ) -> ListPage:
        """Return a page of objects; filters address user fields by name, and `metadata.x` inside metadata."""
        info = await self._directory.bucket(namespace_of(scope), bucket)
        page = await list_records(
            self._metadata,
            TABLE,
            info.namespace_id,
            query,
            base=equals("bucket_id", info.id),
            name=f"objects/{info.id}",
            render=_render,
        )
        if not return_presigned_urls:
            return page
        return replace(page, items=[await self._linked(info, item) for item in page.items])

    async def update(self, scope: Scope, bucket: str, object_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Merge fields, metadata and blobs (by property) into an object; null removes a field.

        The result has to satisfy the schema. Fields of the unique key cannot change: they are the object's
        identity. Documents made of the old version stay until the next batch.
        """
        info = await self._directory.bucket(namespace_of(scope), bucket)
        if not set(body) - {"skip_duplicates"}:
            raise SpecError("the update is empty; send the fields to change", code="empty_update")
        for _ in range(4):
            record = await self._record(info, object_id)
            changed, requests = self._merged(info, record.body, body)
            stored = await self._intake.store(info.namespace_id, info.id, object_id, requests)
            old = {blob["property"]: blob for blob in record.body["blobs"]}
            replaced = {blob["property"] for blob in stored.blobs}
            changed["blobs"] = [blob for name, blob in old.items() if name not in replaced] + stored.blobs
            seal(changed)
            try:
                await self._metadata.put(TABLE, info.namespace_id, object_id, changed, if_version=record.version)
            except ConflictError:
                await self._intake.discard(stored.written)
                continue
            await self._intake.discard(own_keys([old[name] for name in replaced if name in old], object_id))
            return _render(changed)
        raise ConflictError(f"object {object_id} is being changed by others; try again")

    async def delete(self, scope: Scope, bucket: str, object_id: str) -> None:
        """Delete an object, its files, and every document made of it in any collection."""
        info = await self._directory.bucket(namespace_of(scope), bucket)
        await self._record(info, object_id)
        await self._documents.delete_of_objects(scope, [object_id])
        await self._blobs.delete_prefix(f"{info.namespace_id}/{info.id}/{object_id}/")
        await self._metadata.delete(TABLE, info.namespace_id, object_id)

    async def delete_many(self, scope: Scope, bucket: str, object_ids: Sequence[str]) -> dict[str, Any]:
        """Delete objects by id; ids that do not exist are listed under `not_found`."""
        info = await self._directory.bucket(namespace_of(scope), bucket)
        records = await self._metadata.get_many(TABLE, info.namespace_id, list(object_ids))
        present = [record.id for record in records if record.body["bucket_id"] == info.id]
        await self._documents.delete_of_objects(scope, present)
        for id in present:
            await self._blobs.delete_prefix(f"{info.namespace_id}/{info.id}/{id}/")
        await self._metadata.transact([Write(TABLE, info.namespace_id, id, None) for id in present])
        missing = [id for id in object_ids if id not in set(present)]
        return {"deleted_count": len(present), "not_found": missing}

    async def purge(self, namespace_id: str, bucket_id: str) -> None:
        """Remove everything a deleted bucket held; documents made of it stay with their collections."""
        for table in (TABLE, "uploads", "batches", "batch_items"):
            await self._metadata.delete_where(table, namespace_id, equals("bucket_id", bucket_id))
        await self._blobs.delete_prefix(f"{namespace_id}/{bucket_id}/")

    async def stats(self, namespace_id: str, bucket_id: str) -> dict[str, int]:
        """Return `object_count` and `total_size_bytes` of a bucket."""
        count, size = await self._metadata.total(TABLE, namespace_id, "_size", equals("bucket_id", bucket_id))
        return {"object_count": count, "total_size_bytes": int(size)}

    async def aggregate(self, scope: Scope, bucket: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Group and aggregate the objects of a bucket."""
        info = await self._directory.bucket(namespace_of(scope), bucket)
        wanted = aggregation.parse_request(body)
        filter = all_of(equals("bucket_id", info.id), parse(body.get("filters")))

        async def rows() -> AsyncIterator[Mapping[str, Any]]:
            async for record in scan(self._metadata, TABLE, info.namespace_id, filter):
                yield _render(record.body)

        return await aggregation.run(wanted, rows())

    async def find_ids(self, namespace_id: str, bucket_id: str, filters: Any, limit: int | None) -> Sequence[str]:
        """Return the ids of a bucket's objects that match a wire filter, in the order they were made."""
        filter = all_of(equals("bucket_id", bucket_id), parse(filters))
        found: list[str] = []
        async for record in scan(self._metadata, TABLE, namespace_id, filter):
            found.append(record.id)
            if limit is not None and len(found) >= limit:
                break
        return found

    async def known_ids(self, namespace_id: str, bucket_id: str, ids: Sequence[str]) -> Sequence[str]:
        """Return ids without repetition. Raises NotFoundError naming those that are no objects of the bucket."""
        unique = list(dict.fromkeys(ids))
        known: set[str] = set()
        for start in range(0, len(unique), 1000):
            records = await self._metadata.get_many(TABLE, namespace_id, unique[start : start + 1000])
            known |= {record.id for record in records if record.body["bucket_id"] == bucket_id}
        missing = [id for id in unique if id not in known]
        if missing:
            shown = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
            raise NotFoundError(f"not in this bucket: {shown}", details={"missing_object_ids": missing[:100]})
        return unique

    async def _linked(self, info: BucketInfo, answer: dict[str, Any]) -> dict[str, Any]:
        return {**answer, "blobs": await self._links.of_blobs(info.namespace_id, answer["blobs"])}

    async def _record(self, info: BucketInfo, object_id: str) -> Any:
        record = await self._metadata.get(TABLE, info.namespace_id, object_id)
        if record is None or record.body["bucket_id"] != info.id:
            raise NotFoundError(f"bucket {info.name!r} has no object {object_id!r}")
        return record

    def _draft(self, info: BucketInfo, body: Mapping[str, Any]) -> Draft:
        problems: list[Problem] = []
        fields, metadata, requests = split(info, body, problems)
        kinds = {request.property: request.kind for request in requests}
        checked = validate(info.properties, fields, metadata=metadata, blob_properties=kinds)
        checked.problems[:0] = problems
        unique = bool(info.unique_key and info.unique_key.get("fields"))
        identity = identity_of(info, {**checked.metadata, **checked.fields}, checked.problems) if unique else ()
        checked.raise_for_problems()
        now = timestamp(self._clock.now())
        record: dict[str, Any] = dict(checked.fields)
        if checked.metadata:
            record["metadata"] = checked.metadata
        key = body.get("idempotency_key")
        if unique:
            id = derived("obj", info.id, "unique", *identity, length=16)
        elif key:
            id = derived("obj", info.id, "idempotent", str(key), length=16)
        else:
            id = random("obj", 16)
        record |= {
            "object_id": id,
            "bucket_id": info.id,
            "key_prefix": body.get("key_prefix"),
            "blobs": [],
            "source_details": [{"type": "bucket", "source_id": info.id}],
            "status": "PENDING",
            "created_at": now,
            "updated_at": now,
            "_unique": list(identity),
        }
        return Draft(id, record, requests, unique or bool(key))

    async def _store(
        self, info: BucketInfo, drafts: Sequence[Draft], policy: str
    ) -> Sequence[dict[str, Any] | MixpeekError]:
        """Store drafts, one outcome each. Concurrent writers of the same key make this start over."""
        outcomes: _Outcomes = [None] * len(drafts)
        with_blobs = [index for index, draft in enumerate(drafts) if draft.requests]
        for start in range(0, len(with_blobs), 64):
            chunk = with_blobs[start : start + 64]
            results = await asyncio.gather(*(self._take_in(info, drafts[index]) for index in chunk))
            for index, error in zip(chunk, results, strict=True):
                outcomes[index] = error
        for _ in range(4):
            try:
                await self._write(info, drafts, policy, outcomes)
                return [
                    outcome if outcome is not None else draft.body
                    for outcome, draft in zip(outcomes, drafts, strict=True)
                ]
            except (ConflictError, AlreadyExistsError):
                continue
        raise ConflictError("objects with the same key are being written by others; try again")

    async def _take_in(self, info: BucketInfo, draft: Draft) -> MixpeekError | None:
        try:
            draft.stored = await self._intake.store(info.namespace_id, info.id, draft.id, draft.requests)
        except MixpeekError as error:
            return error
        draft.body["blobs"] = draft.stored.blobs
        return None

    async def _write(
        self,
        info: BucketInfo,
        drafts: Sequence[Draft],
        policy: str,
        outcomes: _Outcomes,
    ) -> None:
        keyed = [draft.id for draft in drafts if draft.unique]
        found = await self._metadata.get_many(TABLE, info.namespace_id, keyed) if keyed else []
        versions = {record.id: record.version for record in found}
        bodies = {record.id: record.body for record in found}
        writes: dict[str, Write] = {}
        unwanted: list[str] = []
        for index, draft in enumerate(drafts):
            if outcomes[index] is not None:
                continue
            old = bodies.get(draft.id) if draft.unique else None
            error = refusal(info, draft, old, policy)
            if error is not None:
                outcomes[index] = error
                unwanted += draft.stored.written if draft.stored else []
                continue
            if old is not None:
                draft.body["created_at"] = old["created_at"]
                unwanted += own_keys(old["blobs"], draft.id) if draft.id in versions else []
            seal(draft.body)
            expected = versions.get(draft.id, 0) if draft.unique else None
            writes[draft.id] = Write(TABLE, info.namespace_id, draft.id, draft.body, expected)
            bodies[draft.id] = draft.body
        if writes:
            await self._metadata.transact(list(writes.values()))
        await self._intake.discard(unwanted)

    def _merged(self, info: BucketInfo, old: Mapping[str, Any], body: Mapping[str, Any]) -> _Merged:
        problems: list[Problem] = []
        fields, metadata, requests = split(info, body, problems)
        before = {name: value for name, value in old.items() if name not in OWN and not name.startswith("_")}
        merged = {name: value for name, value in {**before, **fields}.items() if value is not None}
        inner = {**(old.get("metadata") or {}), **metadata}
        inner = {name: value for name, value in inner.items() if value is not None}
        kinds: dict[str, str | None] = {blob["property"]: None for blob in old["blobs"]}
        kinds |= {request.property: request.kind for request in requests}
        checked = validate(info.properties, merged, metadata=inner, blob_properties=kinds)
        checked.problems[:0] = problems
        if old.get("_unique"):
            identity = identity_of(info, {**checked.metadata, **checked.fields}, checked.problems)
            if list(identity) != old["_unique"]:
                named = ", ".join((info.unique_key or {})["fields"])
                checked.problems.append(
                    Problem("immutable", f"the unique key ({named}) cannot change; create another object")
                )
        checked.raise_for_problems()
        system = {name: value for name, value in old.items() if name in OWN or name.startswith("_")}
        record = {**checked.fields, **system, "status": "PENDING", "updated_at": timestamp(self._clock.now())}
        record.pop("metadata", None)
        if checked.metadata:
            record["metadata"] = checked.metadata
        if body.get("key_prefix") is not None:
            record["key_prefix"] = body["key_prefix"]
        return record, requests


def _failure(index: int, error: MixpeekError) -> dict[str, Any]:
    return {"object_index": index, "error": error.message, "error_type": error.type}


def _render(body: Mapping[str, Any]) -> dict[str, Any]:
    answer = {name: value for name, value in body.items() if not name.startswith("_")}
    answer["blobs"] = [{**blob, "properties": dict(blob["properties"])} for blob in body["blobs"]]
    return answer
