"""Reads and acts for a bucket."""

from __future__ import annotations

from mixpeek_operator.core.filters import equals
from mixpeek_operator.core.lifecycle import Backends, Step, Subject
from mixpeek_operator.kinds.bucket.plan import DeleteFiles, DeleteRecords, Have

TABLES = ("objects", "uploads", "batches", "batch_items")
"""Tables whose records name their bucket."""


class BucketClient:
    """Through the ports, what a bucket holds."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    async def observe(self, subject: Subject) -> Have:
        """How many records there are; the storage of its files has to answer."""
        await self._backends.blobs.health()
        records: dict[str, int] = {}
        if subject.namespace_id:
            for table in TABLES if subject.resource.deleting else TABLES[:1]:
                records[table] = await self._backends.metadata.count(
                    table, subject.namespace_id, equals("bucket_id", subject.id)
                )
        return Have(subject.namespace_id, subject.id, records)

    async def act(self, subject: Subject, step: Step) -> None:
        """Carry out one step."""
        match step:
            case DeleteFiles():
                await self._backends.blobs.delete_prefix(step.prefix)
            case DeleteRecords():
                wanted = equals("bucket_id", step.bucket_id)
                for table in step.tables:
                    await self._backends.metadata.delete_where(table, step.namespace_id, wanted)
            case _:
                raise TypeError(f"no such step: {step!r}")

    async def forget(self, subject: Subject) -> None:
        """Nothing of it is cached."""
