"""Reads and acts for an extractor."""

from __future__ import annotations

from mixpeek_operator.core.lifecycle import Backends, Step, Subject
from mixpeek_operator.kinds.extractor.plan import Have, blob_key, on_own_machines
from mixpeek_operator.ports.machines import ClusterState


class ExtractorClient:
    """Looks at the archive that an extractor's owner uploaded, and at what serves it."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    async def observe(self, subject: Subject) -> Have:
        """The stored archive, and the Ray cluster of a realtime extractor's namespace."""
        key = blob_key(subject)
        archive = None if key is None else await self._backends.blobs.head(key)
        return Have(archive, await self._cluster(subject))

    async def _cluster(self, subject: Subject) -> ClusterState | None:
        machines = self._backends.machines
        if machines is None or not subject.spec.get("realtime") or not on_own_machines(subject):
            return None
        return await machines.observe(subject.resource.metadata.organization, subject.namespace_id)

    async def act(self, subject: Subject, step: Step) -> None:
        """There is no step."""
        raise TypeError(f"no such step: {step!r}")

    async def forget(self, subject: Subject) -> None:
        """Nothing of it is cached."""
