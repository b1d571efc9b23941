"""Reads and acts for a namespace."""

from __future__ import annotations

from mixpeek_operator.core import vectors
from mixpeek_operator.core.errors import InternalError
from mixpeek_operator.core.lifecycle import Backends, Step, Subject
from mixpeek_operator.kinds.namespace import compute
from mixpeek_operator.kinds.namespace.plan import (
    CreateVectorCollection,
    DeleteFiles,
    DeleteRecords,
    DropPayloadIndex,
    DropVectorCollection,
    EmptyCache,
    Have,
)
from mixpeek_operator.ports.machines import ClusterState, Machines

TABLES = (
    "objects", "uploads", "batches", "batch_items", "executions", "interactions", "signatures", "seeds",
    "datasets", "evaluations", "benchmarks",
)  # fmt: skip
"""Tables whose records belong to a namespace."""


class NamespaceClient:
    """Through the ports, everything that a namespace holds."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    async def observe(self, subject: Subject) -> Have:
        """The vector collection and the Ray cluster; with a deletion under way also what else there is.

        The cache has to answer as well: searches go on without it, but nobody should have to find that out by their
        speed.
        """
        await self._backends.cache.health()
        state = await self._backends.vectors.describe(subject.id)
        records: dict[str, int] = {}
        if subject.resource.deleting:
            for table in TABLES:
                records[table] = await self._backends.metadata.count(table, subject.id)
        return Have(
            subject.id,
            state,
            records,
            organization=subject.resource.metadata.organization,
            cluster=await self._cluster(subject),
        )

    async def _cluster(self, subject: Subject) -> ClusterState | None:
        machines = self._backends.machines
        if machines is None:
            return None
        wanted = None if subject.resource.deleting else compute.wanted(subject)
        return await machines.observe(subject.resource.metadata.organization, subject.id, wanted)

    async def act(self, subject: Subject, step: Step) -> None:
        """Carry out one step."""
        store = self._backends.vectors
        match step:
            case CreateVectorCollection():
                await store.create_collection(step.collection, step.vectors, labels=step.labels)
            case vectors.AddVector() | vectors.CreatePayloadIndex():
                await vectors.act(store, step)
            case DropPayloadIndex():
                await store.delete_payload_index(step.collection, step.field_name)
            case EmptyCache():
                await self._backends.cache.delete_prefix(step.namespace_id)
            case DeleteFiles():
                await self._backends.blobs.delete_prefix(step.prefix)
            case DeleteRecords():
                for table in step.tables:
                    await self._backends.metadata.delete_where(table, step.namespace_id)
            case DropVectorCollection():
                await store.delete_collection(step.collection)
            case compute.CreateCluster() | compute.UpdateCluster():
                await self._machines.apply(step.cluster)
            case compute.DeleteCluster():
                await self._machines.delete(step.organization, step.namespace_id)
            case _:
                raise TypeError(f"no such step: {step!r}")

    @property
    def _machines(self) -> Machines:
        if self._backends.machines is None:
            raise InternalError("a Ray cluster was planned where there can be none")
        return self._backends.machines

    async def forget(self, subject: Subject) -> None:
        """Everything cached for it."""
        if subject.namespace_id:
            await self._backends.cache.delete_prefix(subject.namespace_id)
