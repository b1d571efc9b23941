"""Handing a batch to the workers: its plan over the collections, its place in the queue, and the task that shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mixpeek_operator.core.clock import Clock, timestamp
from mixpeek_operator.core.directory import Directory
from mixpeek_operator.core.errors import ConflictError
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.ingestion.batch_records import (
    BATCHES,
    COUNTERS,
    progress_of,
    with_plan,
)
from mixpeek_operator.ingestion.tasks import render_task, task_record, task_write
from mixpeek_operator.ingestion.tiers import plan
from mixpeek_operator.ports.metadata import MetadataStore, Write

_TASK = "api_buckets_batches_process"


class BatchQueue:
    """Writes a batch and its task so that a worker takes it up."""

    def __init__(
        self,
        metadata: MetadataStore,
        directory: Directory,
        clock: Clock,
        *,
        on_submit: Callable[[], None] | None = None,
    ) -> None:
        """`on_submit` wakes a worker of this process; without it one finds the batch by polling."""
        self._metadata = metadata
        self._directory = directory
        self._clock = clock
        self._on_submit = on_submit

    async def planned(self, batch: dict[str, Any], only: Sequence[str]) -> dict[str, Any]:
        """Return the batch with its steps. Raises ConflictError when no enabled collection reads what it holds."""
        collections = await self._directory.collections(str(batch["namespace_id"]))
        tiers = plan(collections, root=str(batch["root"]), only=only)
        if not any(tiers):
            raise ConflictError(
                f"no enabled collection reads {batch['root']}; create one whose source is this "
                f"{'bucket' if batch['type'] == 'BUCKET' else 'collection'} first"
            )
        return with_plan(batch, tiers, {item.id: item for item in collections})

    async def put(
        self, scope: Scope, batch: dict[str, Any], version: int, extra: Sequence[Write] = ()
    ) -> dict[str, Any]:
        """Write the batch, its task and `extra`, and return the task. Raises ConflictError for a stale `version`."""
        now = timestamp(self._clock.now())
        old = await self._metadata.get("tasks", str(batch["organization"]), str(batch["task_id"]))
        task = dict(old.body) if old else task_record(scope, _TASK, now, inputs=[batch["batch_id"]])
        batch |= {
            "task_id": task["task_id"],
            "status": "PENDING",
            "state": "PENDING",
            "pass_items": batch["pass_items"] if batch["pass"] else batch["item_count"],
            "cursor": {"step": 0, "position": 0},
            "counters": batch["counters"] if batch["pass"] else dict.fromkeys(COUNTERS, 0),
            "retry_count": 0,
            "submitted_at": now,
            "updated_at": now,
            "lease_until": 0,
        }
        task |= {"status": "PENDING", "error": None, "updated_at": now}
        task["additional_data"] = {
            "batch_id": batch["batch_id"],
            "bucket_id": batch["bucket_id"],
            "namespace_id": batch["namespace_id"],
            "progress": progress_of(batch),
        }
        writes = [batch_write(batch, version), task_write(str(batch["organization"]), task), *extra]
        await self._metadata.transact(writes)
        if self._on_submit is not None:
            self._on_submit()
        return render_task(task)

    async def task(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return the task of a batch in wire shape."""
        record = await self._metadata.get("tasks", str(batch["organization"]), str(batch["task_id"]))
        if record is not None:
            return render_task(record.body)
        return {
            "task_id": batch["task_id"] or str(batch["batch_id"]),
            "task_type": _TASK,
            "status": batch["status"],
            "inputs": [batch["batch_id"]],
            "additional_data": {"batch_id": batch["batch_id"], "bucket_id": batch["bucket_id"]},
        }


def batch_write(batch: Mapping[str, Any], version: int | None) -> Write:
    """Return the write of a batch, on condition of its version."""
    return Write(BATCHES, str(batch["namespace_id"]), str(batch["batch_id"]), batch, version)
