"""A batch while a worker holds it: every write renews the lease and is refused once the batch is another's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from mixpeek_operator.core.clock import Clock, timestamp
from mixpeek_operator.core.errors import ConflictError, MixpeekError
from mixpeek_operator.ingestion.batch_records import BATCHES, progress_of
from mixpeek_operator.ingestion.tasks import OPEN, task_write
from mixpeek_operator.ports.metadata import MetadataStore, Record, Write

_log = structlog.get_logger(__name__)
_USERS = ("metadata", "batch_name")
"""Fields that others may change while a worker holds the batch."""


class StoppedError(Exception):
    """The batch is no longer this worker's: canceled, deleted, or taken over. Not an error to anyone."""


class HeldBatch:
    """The record of a claimed batch. Its version is the fence: a stale holder's write is refused by the store."""

    def __init__(self, metadata: MetadataStore, clock: Clock, record: Record, *, owner: str, lease_s: float) -> None:
        self.body: dict[str, Any] = dict(record.body)
        self._version = record.version
        self._metadata = metadata
        self._clock = clock
        self._owner = owner
        self._lease_s = lease_s
        self._lock = asyncio.Lock()
        self._task: dict[str, Any] | None = None
        self._unsaved: list[Write] = []

    @property
    def namespace_id(self) -> str:
        return str(self.body["namespace_id"])

    @property
    def id(self) -> str:
        return str(self.body["batch_id"])

    def now(self) -> str:
        """The time, as records hold it."""
        return timestamp(self._clock.now())

    async def check(self) -> None:
        """Raise StoppedError when the batch is not this worker's any more."""
        async with self._lock:
            record = await self._metadata.get(BATCHES, self.namespace_id, self.id)
            if record is None or record.version != self._version:
                self._refresh(record)

    async def postpone(self, delay_s: float, reason: str) -> None:
        """Give the batch back to the queue; nobody takes it before `delay_s` have passed."""
        self.body |= {"status": "QUEUED", "state": "QUEUED", "status_message": reason}
        await self.save(free_after_s=delay_s)

    async def save(
        self,
        extra: Sequence[Write] = (),
        *,
        change: Callable[[], None] | None = None,
        release: bool = False,
        free_after_s: float = 0.0,
    ) -> None:
        """Write the batch, its task and `extra` in one transaction, and renew the lease (or give it up).

        `change` edits the batch just before; it and `extra` are stored together or not at all, also when this
        write fails and a later one succeeds.
        """
        async with self._lock:
            if change is not None:
                change()
            self._unsaved += extra
            for _ in range(16):
                lasts = free_after_s or self._lease_s
                self.body["updated_at"] = self.now()
                self.body["lease_owner"] = self._owner
                self.body["lease_until"] = 0 if release else self._clock.now().timestamp() + lasts
                writes = [Write(BATCHES, self.namespace_id, self.id, dict(self.body), self._version)]
                writes += await self._task_writes()
                try:
                    stored = await self._metadata.transact([*writes, *self._unsaved])
                except ConflictError:
                    self._refresh(await self._metadata.get(BATCHES, self.namespace_id, self.id))
                    continue
                assert stored[0] is not None
                self._version = stored[0].version
                self._unsaved = []
                return
            raise ConflictError(f"batch {self.id} is being changed too often by others")

    async def hand_back(self) -> None:
        """Free the batch as it is stored, for the next worker; what is only in memory is done again by it."""
        for _ in range(16):
            record = await self._metadata.get(BATCHES, self.namespace_id, self.id)
            if record is None or record.body.get("lease_owner") != self._owner or record.body["status"] not in OPEN:
                return
            body = {**record.body, "released": True, "lease_until": 0}
            try:
                await self._metadata.put(BATCHES, self.namespace_id, self.id, body, if_version=record.version)
            except ConflictError:
                continue
            return

    async def beat(self) -> None:
        """Renew the lease until canceled or stopped; a store that is away is tried again at the next beat."""
        while True:
            await asyncio.sleep(self._lease_s / 3)
            try:
                await self.save()
            except MixpeekError as error:
                _log.warning("renewing the lease of a batch failed", batch_id=self.id, error=str(error))

    def _refresh(self, record: Record | None) -> None:
        if record is None:
            raise StoppedError("the batch was deleted")
        if record.body["status"] not in OPEN:
            raise StoppedError(f"the batch is {record.body['status']}")
        if record.body.get("lease_owner") != self._owner:
            raise StoppedError("another worker took the batch")
        self.body |= {name: record.body[name] for name in _USERS}
        self._version = record.version

    async def _task_writes(self) -> list[Write]:
        organization = str(self.body["organization"])
        if self._task is None:
            record = await self._metadata.get("tasks", organization, str(self.body["task_id"]))
            self._task = dict(record.body) if record else {}
        if not self._task:
            return []
        self._task |= {
            "status": self.body["status"],
            "error": self.body["failure_reason"],
            "updated_at": self.body["updated_at"],
        }
        self._task["additional_data"] = {
            **self._task["additional_data"],
            "progress": progress_of(self.body),
            **({"error": self.body["failure_reason"]} if self.body["failure_reason"] else {}),
        }
        return [task_write(organization, dict(self._task))]
