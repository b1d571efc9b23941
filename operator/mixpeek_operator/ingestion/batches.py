"""Batches: which objects go through which collections, from draft to done. The worker does the walking."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mixpeek_operator.core.clock import Clock, timestamp
from mixpeek_operator.core.directory import BucketInfo, Directory
from mixpeek_operator.core.errors import ConflictError, NotFoundError, SpecError
from mixpeek_operator.core.filters import Compare, Operator, all_of, equals
from mixpeek_operator.core.listing import ListPage, ListQuery
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.core.shapes import COUNT, OBJECT, TEXT, TEXTS, expect
from mixpeek_operator.ingestion.batch_queue import BatchQueue, batch_write
from mixpeek_operator.ingestion.batch_records import (
    BATCHES,
    ITEMS,
    ITEMS_PER_RECORD,
    SHOWN_FAILURES,
    audit_of,
    check_strategy,
    failures_of,
    item_id,
    item_writes,
    new_batch,
    render_batch,
)
from mixpeek_operator.ingestion.objects import Objects
from mixpeek_operator.ingestion.records import list_records, namespace_of, scan
from mixpeek_operator.ingestion.tasks import OPEN, TaskStatus, cancel_batch
from mixpeek_operator.ingestion.triggers import TriggerSources, triggered
from mixpeek_operator.ports.metadata import MetadataStore, Record, Write
from mixpeek_operator.ports.vectors import VectorStore

_Ids = list[str]
_CREATE_SHAPE = {
    "batch_name": TEXT,
    "metadata": OBJECT,
    "collection_ids": TEXTS,
    "object_ids": TEXTS,
    "dedup_strategy": TEXT,
    "limit": COUNT,
}


class Batches:
    """Batches of a bucket's objects (or, from a trigger, of a collection's documents)."""

    def __init__(
        self,
        metadata: MetadataStore,
        vectors: VectorStore,
        directory: Directory,
        objects: Objects,
        clock: Clock,
        *,
        on_submit: Callable[[], None] | None = None,
    ) -> None:
        """`on_submit` wakes a worker of this process; without it one finds the batch by polling."""
        self._metadata = metadata
        self._triggers = TriggerSources(directory, objects, vectors)
        self._directory = directory
        self._objects = objects
        self._clock = clock
        self._queue = BatchQueue(metadata, directory, clock, on_submit=on_submit)

    async def create(self, scope: Scope, bucket: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make a batch of `object_ids` or of the objects that match `filters`; DRAFT, or submitted when
        `auto_submit` is true. Raises NotFoundError for ids that are no objects of the bucket."""
        info = await self._directory.bucket(namespace_of(scope), bucket)
        expect(body, _CREATE_SHAPE)
        batch = new_batch(
            organization=scope.organization,
            namespace_id=info.namespace_id,
            bucket_id=info.id,
            root=info.id,
            type="BUCKET",
            now=self._now(),
        )
        batch["dedup_strategy"] = check_strategy(body.get("dedup_strategy"))
        batch["batch_name"] = body.get("batch_name")
        batch["metadata"] = dict(body.get("metadata") or {})
        batch["requested_collections"] = [
            (await self._directory.collection(info.namespace_id, str(id))).id for id in body.get("collection_ids") or ()
        ]
        ids = await self._chosen(info, body)
        await self._insert(batch, ids)
        if body.get("auto_submit") or body.get("trigger_processing"):
            await self.submit(scope, bucket, str(batch["batch_id"]))
        return await self.get(scope, bucket, str(batch["batch_id"]))

    async def process(self, scope: Scope, bucket: str, object_ids: Sequence[str]) -> dict[str, Any]:
        """Make a batch of objects, submit it, and return its task (`auto_process`)."""
        batch = await self.create(scope, bucket, {"object_ids": list(object_ids)})
        return await self.submit(scope, bucket, batch["batch_id"])

    async def get(self, scope: Scope, bucket: str | None, batch_id: str) -> dict[str, Any]:
        """Return a batch with its progress; `bucket` None finds it in any bucket of the namespace."""
        return await self._shown(await self._record(scope, bucket, batch_id))

    async def audit(self, scope: Scope, bucket: str, batch_id: str) -> dict[str, Any]:
        """Return the accounts of a batch: nothing it was given may be missing from them."""
        return audit_of((await self._record(scope, bucket, batch_id)).body)

    async def list(
        self,
        scope: Scope,
        bucket: str | None,
        query: ListQuery,
        *,
        status: str | None = None,
        collection_id: str | None = None,
    ) -> ListPage:
        """Return a page of batches, newest first unless sorted."""
        namespace_id = namespace_of(scope)
        expect({"status": status, "collection_id": collection_id}, {"status": TEXT, "collection_id": TEXT})
        if status is not None and status not in set(TaskStatus):
            raise SpecError(f"unknown status {status!r}; use one of {', '.join(TaskStatus)}", code="unknown_status")
        bucket_id = (await self._directory.bucket(namespace_id, bucket)).id if bucket else None
        base = all_of(
            equals("bucket_id", bucket_id) if bucket_id else None,
            equals("status", status) if status else None,
            Compare("collection_ids", Operator.CONTAINS, collection_id) if collection_id else None,
        )
        sorted_query = query if query.sort else _newest_first(query)
        page = await list_records(
            self._metadata,
            BATCHES,
            namespace_id,
            sorted_query,
            base=base,
            name=f"batches/{bucket_id}/{status}/{collection_id}",
            render=dict,
        )
        return ListPage([await self._shown_body(item) for item in page.items], page.total, page.next_cursor)

    async def add_objects(self, scope: Scope, bucket: str, batch_id: str, object_ids: Sequence[str]) -> dict[str, Any]:
        """Add objects to a DRAFT batch; those it already has are not added again."""
        expect({"object_ids": object_ids}, {"object_ids": TEXTS})
        if not object_ids:
            raise SpecError("send at least one object id", code="empty")
        for _ in range(4):
            record = await self._record(scope, bucket, batch_id)
            batch = dict(record.body)
            if batch["status"] != "DRAFT":
                raise ConflictError(f"batch {batch_id} is {batch['status']}; objects are added while it is DRAFT")
            present = await self._items(batch, 0)
            new = await self._objects.known_ids(str(batch["namespace_id"]), str(batch["bucket_id"]), object_ids)
            have = set(present)
            new = [id for id in new if id not in have]
            start = len(present)
            tail = present[start - start % ITEMS_PER_RECORD :]
            batch |= {"item_count": start + len(new), "updated_at": self._now()}
            writes = [batch_write(batch, record.version), *item_writes(batch, 0, new, start=start, tail=tail)]
            try:
                await self._metadata.transact(writes)
            except ConflictError:
                continue
            return await self._shown_body(batch)
        raise ConflictError(f"batch {batch_id} is being changed by others; try again")

    async def patch(self, scope: Scope, bucket: str, batch_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Change `metadata` (merged) or `batch_name`."""
        expect(body, {"metadata": OBJECT, "batch_name": TEXT})
        if body.get("metadata") is None and body.get("batch_name") is None:
            raise SpecError("the update is empty; send metadata or batch_name", code="empty_update")

        def change(batch: dict[str, Any]) -> dict[str, Any]:
            batch["metadata"] = {**batch["metadata"], **(body.get("metadata") or {})}
            batch["batch_name"] = body.get("batch_name") or batch["batch_name"]
            return batch

        return await self._shown_body(await self._change(scope, bucket, batch_id, change))

    async def delete(self, scope: Scope, bucket: str | None, batch_id: str) -> dict[str, Any]:
        """Delete a batch that is not being worked on. Its documents stay; they belong to the collections."""
        record = await self._record(scope, bucket, batch_id)
        if record.body["status"] in OPEN:
            raise ConflictError(f"batch {batch_id} is {record.body['status']}; cancel it first")
        namespace_id = str(record.body["namespace_id"])
        await self._metadata.delete(BATCHES, namespace_id, batch_id)
        await self._metadata.delete_where(ITEMS, namespace_id, equals("batch_id", batch_id))
        return {"success": True, "message": f"Deleted batch {batch_id}"}

    async def submit(
        self, scope: Scope, bucket: str | None, batch_id: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Queue a DRAFT batch and return its task; submitted before, return the same task again.

        Raises SpecError for an empty batch and ConflictError when no collection reads the bucket.
        """
        expect(body or {}, {"collection_ids": TEXTS})
        wanted = (body or {}).get("collection_ids") or []
        for _ in range(4):
            record = await self._record(scope, bucket, batch_id)
            batch = dict(record.body)
            if batch["status"] != "DRAFT":
                return await self._queue.task(batch)
            if not batch["item_count"]:
                raise SpecError(f"batch {batch_id} has no objects; add some first", code="empty_batch")
            only = [
                (await self._directory.collection(str(batch["namespace_id"]), str(id))).id for id in wanted
            ] or batch["requested_collections"]
            batch = await self._queue.planned(batch, only)
            try:
                return await self._queue.put(scope, batch, record.version)
            except ConflictError:
                continue
        raise ConflictError(f"batch {batch_id} is being changed by others; try again")

    async def cancel(self, scope: Scope, bucket: str | None, batch_id: str) -> dict[str, Any]:
        """Stop a batch and return its task. What was written stays; nothing is written after this."""
        record = await self._record(scope, bucket, batch_id)
        await cancel_batch(self._metadata, str(record.body["namespace_id"]), batch_id, self._now())
        return await self._queue.task(dict((await self._record(scope, bucket, batch_id)).body))

    async def retry(
        self, scope: Scope, bucket: str | None, batch_id: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Process again what failed, or, when the batch itself failed or was canceled, what it did not finish.

        `retry_mode` transient_only (default) takes failures of a backend or network; all takes every failure.
        """
        options = dict(body or {})
        mode = options.get("retry_mode") or "transient_only"
        if mode not in ("transient_only", "all"):
            raise SpecError(f"unknown retry_mode {mode!r}; use transient_only or all", code="unknown_mode")
        record = await self._record(scope, bucket, batch_id)
        batch = dict(record.body)
        if batch["status"] in (*OPEN, "DRAFT"):
            raise ConflictError(f"batch {batch_id} is {batch['status']}; only a batch that ended can be retried")
        namespace_id = str(batch["namespace_id"])
        failures = [
            item
            async for item in scan(self._metadata, ITEMS, namespace_id, failures_of(batch_id))
            if _retried(item.body, mode, options)
        ]
        unfinished = batch["cursor"]["step"] < len(batch["steps"]) or any(step["error"] for step in batch["steps"])
        roots = dict.fromkeys(str(item.body["root_id"]) for item in failures)
        ids = await self._items(batch, 0) if unfinished else list(roots)
        answer = {"batch_id": batch_id, "task_id": batch["task_id"], "retried_count": len(failures), "retry_mode": mode}
        if not ids:
            return {**answer, "status": batch["status"], "message": "Nothing to retry"}
        batch = await self._queue.planned(batch, batch["requested_collections"])
        batch |= {"pass": batch["pass"] + 1, "pass_items": len(ids), "failure_reason": None, "completed_at": None}
        gone = [Write(ITEMS, namespace_id, item.id, None) for item in failures]
        await self._queue.put(scope, batch, record.version, [*item_writes(batch, batch["pass"], ids), *gone])
        return {**answer, "status": "PENDING", "message": f"Retrying {len(ids)} objects"}

    async def failed_documents(
        self,
        scope: Scope,
        bucket: str,
        batch_id: str,
        *,
        tier_num: int | None = None,
        collection_id: str | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> dict[str, Any]:
        """Return what failed, of one tier or collection when asked."""
        record = await self._record(scope, bucket, batch_id)
        namespace_id = str(record.body["namespace_id"])
        filter = failures_of(batch_id, tier_num=tier_num, collection_id=collection_id)
        found = await self._metadata.find(ITEMS, namespace_id, filter=filter, limit=limit, offset=offset)
        shown = [{key: item.body[key] for key in item.body if key not in ("kind", "root_id")} for item in found]
        total = await self._metadata.count(ITEMS, namespace_id, filter)
        return {
            "batch_id": batch_id,
            "failed_documents": shown,
            "total": total,
            "total_count": total,
            "limit": limit,
            "offset": offset,
        }

    async def logs(self, scope: Scope, bucket: str, batch_id: str, *, tier_num: int | None = None) -> dict[str, Any]:
        """Return what happened, tier by tier."""
        batch = (await self._record(scope, bucket, batch_id)).body
        lines = [line for line in batch["log"] if tier_num is None or line["tier_num"] == tier_num]
        tiers = [
            {
                "tier_num": tier["tier_num"],
                "task_id": batch["task_id"],
                "status": tier["status"],
                "logs": "\n".join(
                    f"{line['timestamp']} {line['message']}" for line in lines if line["tier_num"] == tier["tier_num"]
                ),
            }
            for tier in batch["tier_tasks"]
            if tier_num is None or tier["tier_num"] == tier_num
        ]
        return {"batch_id": batch_id, "status": batch["status"], "entries": lines, "tiers": tiers}

    async def trigger_collection(
        self, scope: Scope, collection: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Process a collection's sources through it and what it feeds: one batch per source, submitted.

        `include_buckets`, `include_collections`, `object_ids` and `source_filters` narrow the sources.
        """
        info = await self._directory.collection(namespace_of(scope), collection)
        tasks: list[dict[str, Any]] = []
        batches: list[Mapping[str, Any]] = []
        async for batch, ids in self._triggers.drafts(scope, info, dict(body or {}), self._now()):
            await self._insert(batch, ids)
            tasks.append(await self.submit(scope, None, str(batch["batch_id"])))
            batches.append((await self._record(scope, None, str(batch["batch_id"]))).body)
        return triggered(info, batches, tasks)

    def _now(self) -> str:
        return timestamp(self._clock.now())

    async def _record(self, scope: Scope, bucket: str | None, batch_id: str) -> Record:
        namespace_id = namespace_of(scope)
        record = await self._metadata.get(BATCHES, namespace_id, batch_id)
        if record is not None and bucket is not None:
            info = await self._directory.bucket(namespace_id, bucket)
            record = record if record.body["bucket_id"] == info.id else None
        if record is None:
            raise NotFoundError(f"there is no batch {batch_id!r}" + (f" in bucket {bucket!r}" if bucket else ""))
        return record

    async def _insert(self, batch: dict[str, Any], ids: Sequence[str]) -> None:
        batch["item_count"] = len(ids)
        await self._metadata.transact([batch_write(batch, 0), *item_writes(batch, 0, ids)])

    async def _chosen(self, info: BucketInfo, body: Mapping[str, Any]) -> Sequence[str]:
        ids = body.get("object_ids")
        if ids is not None:
            if not isinstance(ids, list) or not all(isinstance(id, str) for id in ids):
                raise SpecError("'object_ids' is a list of object ids", code="wrong_type")
            return await self._objects.known_ids(info.namespace_id, info.id, ids)
        if body.get("filters"):
            return await self._objects.find_ids(info.namespace_id, info.id, body["filters"], body.get("limit"))
        return []

    async def _items(self, batch: Mapping[str, Any], number: int) -> _Ids:
        count = int(batch["item_count"] if number == 0 else batch["pass_items"])
        indexes = range((count + ITEMS_PER_RECORD - 1) // ITEMS_PER_RECORD)
        ids = [item_id(str(batch["batch_id"]), number, index) for index in indexes]
        records = await self._metadata.get_many(ITEMS, str(batch["namespace_id"]), ids)
        return [str(id) for record in records for id in record.body["ids"]]

    async def _change(
        self, scope: Scope, bucket: str, batch_id: str, change: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> dict[str, Any]:
        for _ in range(8):
            record = await self._record(scope, bucket, batch_id)
            batch = change({**record.body, "updated_at": self._now()})
            try:
                await self._metadata.transact([batch_write(batch, record.version)])
            except ConflictError:
                continue
            return batch
        raise ConflictError(f"batch {batch_id} is being written by its worker; try again")

    async def _shown(self, record: Record) -> dict[str, Any]:
        return await self._shown_body(record.body)

    async def _shown_body(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        failures: list[Record] = []
        if batch["counters"]["failed"] or batch["failed_object_count"]:
            filter = failures_of(str(batch["batch_id"]))
            namespace_id = str(batch["namespace_id"])
            failures = await self._metadata.find(ITEMS, namespace_id, filter=filter, limit=SHOWN_FAILURES)
        return render_batch(batch, await self._items(batch, 0), [item.body for item in failures])


def _newest_first(query: ListQuery) -> ListQuery:
    order = (("created_at", "desc"),)
    return ListQuery(query.limit, query.offset, query.cursor, query.search, query.filters, order, query.include_total)


def _retried(failure: Mapping[str, Any], mode: str, options: Mapping[str, Any]) -> bool:
    tiers = options.get("tier_nums")
    if tiers and failure["tier_num"] not in tiers:
        return False
    if failure["retry_count"] >= int(options.get("max_retry_count") or 3):
        return False
    return mode == "all" or bool(failure.get("transient"))
