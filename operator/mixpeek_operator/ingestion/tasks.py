"""Tasks: the status of what runs for longer than a call. Kept per organization, as `/v1/tasks` names no namespace."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from mixpeek_operator.core.clock import Clock, timestamp
from mixpeek_operator.core.errors import ConflictError, NotFoundError, SpecError
from mixpeek_operator.core.filters import Filter, all_of, equals
from mixpeek_operator.core.ids import random
from mixpeek_operator.core.listing import ListPage, ListQuery
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.core.shapes import TEXT, expect
from mixpeek_operator.ingestion.records import list_records
from mixpeek_operator.ports.metadata import MetadataStore, Write

TABLE = "tasks"


class TaskStatus(StrEnum):
    """The public TaskStatusEnum."""

    PENDING = "PENDING"
    QUEUED = "QUEUED"
    IN_PROGRESS = "IN_PROGRESS"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    COMPLETED_WITH_ERRORS = "COMPLETED_WITH_ERRORS"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    INTERRUPTED = "INTERRUPTED"
    UNKNOWN = "UNKNOWN"
    SKIPPED = "SKIPPED"
    DRAFT = "DRAFT"
    ACTIVE = "ACTIVE"
    ARCHIVED = "ARCHIVED"
    SUSPENDED = "SUSPENDED"
    DEACTIVATED = "DEACTIVATED"


WAITING = (TaskStatus.PENDING.value, TaskStatus.QUEUED.value)
RUNNING = (TaskStatus.IN_PROGRESS.value, TaskStatus.PROCESSING.value)
OPEN = (*WAITING, *RUNNING)
"""Statuses from which a task still moves."""


def task_record(scope: Scope, task_type: str, now: str, **fields: Any) -> dict[str, Any]:
    """Return the record of a new task, PENDING."""
    return {
        "task_id": random("task"),
        "task_type": task_type,
        "status": TaskStatus.PENDING.value,
        "namespace_id": scope.namespace_id,
        "inputs": [],
        "outputs": [],
        "additional_data": {},
        "error": None,
        "created_at": now,
        "updated_at": now,
        **fields,
    }


def task_write(organization: str, body: Mapping[str, Any]) -> Write:
    """Return the write that stores a task record."""
    return Write(TABLE, organization, str(body["task_id"]), body)


def render_task(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a task in wire shape."""
    return {name: value for name, value in body.items() if not name.startswith("_")}


class Tasks:
    """Status of asynchronous work, and the way to stop it."""

    def __init__(self, metadata: MetadataStore, clock: Clock) -> None:
        self._metadata = metadata
        self._clock = clock

    async def create(self, scope: Scope, task_type: str, **fields: Any) -> dict[str, Any]:
        """Store a new task and return it."""
        body = task_record(scope, task_type, timestamp(self._clock.now()), **fields)
        await self._metadata.transact([task_write(scope.organization, body)])
        return render_task(body)

    async def update(self, scope: Scope, task_id: str, status: TaskStatus, **fields: Any) -> dict[str, Any]:
        """Move a task on; `additional_data` is merged."""
        record = await self._metadata.get(TABLE, scope.organization, task_id)
        if record is None:
            raise NotFoundError(f"there is no task {task_id!r}")
        extra = {**record.body.get("additional_data", {}), **fields.pop("additional_data", {})}
        body = {**record.body, **fields, "status": status.value, "additional_data": extra}
        body["updated_at"] = timestamp(self._clock.now())
        await self._metadata.put(TABLE, scope.organization, task_id, body)
        return render_task(body)

    async def get(self, scope: Scope, task_id: str) -> dict[str, Any]:
        """Return one task. Raises NotFoundError."""
        record = await self._metadata.get(TABLE, scope.organization, task_id)
        if record is None:
            raise NotFoundError(f"there is no task {task_id!r}; tasks of other organizations cannot be read")
        return render_task(record.body)

    async def list(
        self, scope: Scope, query: ListQuery, *, status: str | None = None, task_type: str | None = None
    ) -> ListPage:
        """Return a page of tasks, newest first unless sorted; only the namespace's own when the call names one."""
        expect({"status": status, "task_type": task_type}, {"status": TEXT, "task_type": TEXT})
        if status is not None and status not in set(TaskStatus):
            raise SpecError(f"unknown status {status!r}; use one of {', '.join(TaskStatus)}", code="unknown_status")
        base: Filter | None = all_of(
            equals("namespace_id", scope.namespace_id) if scope.namespace_id else None,
            equals("status", status) if status else None,
            equals("task_type", task_type) if task_type else None,
        )
        if not query.sort:
            query = ListQuery(
                query.limit,
                query.offset,
                query.cursor,
                query.search,
                query.filters,
                (("created_at", "desc"),),
                query.include_total,
            )
        return await list_records(
            self._metadata,
            TABLE,
            scope.organization,
            query,
            base=base,
            name=f"tasks/{scope.namespace_id}/{status}/{task_type}",
            render=render_task,
        )

    async def cancel(self, scope: Scope, task_id: str) -> bool:
        """Ask an open task to stop; harmless for one that ended or never was. Whether there was something to stop.

        The task of a batch stops with the batch, between two blocks of objects.
        """
        record = await self._metadata.get(TABLE, scope.organization, task_id)
        if record is None or record.body["status"] not in OPEN:
            return False
        now = timestamp(self._clock.now())
        batch_id = record.body.get("additional_data", {}).get("batch_id")
        if batch_id is not None:
            return await cancel_batch(self._metadata, str(record.body["namespace_id"]), str(batch_id), now)
        body = {**record.body, "status": TaskStatus.CANCELED.value, "updated_at": now}
        await self._metadata.put(TABLE, scope.organization, task_id, body, if_version=record.version)
        return True


async def cancel_batch(metadata: MetadataStore, namespace_id: str, batch_id: str, now: str) -> bool:
    """Stop an open batch: at once when nobody works on it, else its worker stops before its next write.

    The worker's writes carry the version of the batch it read, so after this none of them is accepted.
    """
    for _ in range(8):
        record = await metadata.get("batches", namespace_id, batch_id)
        if record is None or record.body["status"] not in (*OPEN, TaskStatus.DRAFT.value):
            return False
        canceled = TaskStatus.CANCELED.value
        body = {**record.body, "status": canceled, "state": canceled, "updated_at": now, "completed_at": now}
        body["tier_tasks"] = [
            {**tier, "status": canceled} if tier["status"] in OPEN else tier for tier in body.get("tier_tasks", [])
        ]
        writes = [Write("batches", namespace_id, batch_id, body, record.version)]
        task = await metadata.get(TABLE, str(body["organization"]), str(body.get("task_id")))
        if task is not None:
            writes.append(task_write(str(body["organization"]), {**task.body, "status": canceled, "updated_at": now}))
        try:
            await metadata.transact(writes)
        except ConflictError:
            continue
        return True
    raise ConflictError(f"batch {batch_id} is being written by others; try again")
