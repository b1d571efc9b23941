"""What a server and its Ray job hand each other in the blob store.

Below `<namespace id>/runs/<run>/` lie `control`, which names the work, the epoch and the Ray job, and for each epoch
its numbered pieces (`in`) and answers (`out`). A server that takes over a run begins a new epoch at piece 0; the job
goes over to it when it has nothing left to read. The last piece is empty.
"""

from __future__ import annotations

from dataclasses import dataclass

from mixpeek_operator.core.errors import NotFoundError
from mixpeek_operator.extraction.ray import wire
from mixpeek_operator.extraction.ray.worker import Work
from mixpeek_operator.ports.blobs import BlobStore

END = b""


@dataclass(frozen=True, slots=True)
class Control:
    """What a job has to do, for which epoch, and the job's submission id."""

    epoch: str
    work: Work
    job: str


class Mailbox:
    """One run's place in the blob store."""

    def __init__(self, blobs: BlobStore, prefix: str) -> None:
        self.prefix = prefix.rstrip("/")
        self._blobs = blobs

    async def write_control(self, control: Control) -> None:
        """Begin an epoch."""
        work = control.work
        fields = [work.extractor, work.version, dict(work.parameters), work.namespace_id]
        await self._blobs.put(f"{self.prefix}/control", wire.pack([control.epoch, control.job, *fields]))

    async def control(self) -> Control | None:
        """The epoch that counts, None when the run is over."""
        packed = await self._get("control")
        if packed is None:
            return None
        epoch, job, *work = wire.unpack(packed)
        return Control(epoch, Work(*work), job)

    async def put(self, epoch: str, box: str, number: int, data: bytes) -> None:
        """Write a piece (`in`) or an answer (`out`)."""
        await self._blobs.put(f"{self.prefix}/{_name(epoch, box, number)}", data)

    async def get(self, epoch: str, box: str, number: int) -> bytes | None:
        """Read one, None while it is not there."""
        return await self._get(_name(epoch, box, number))

    async def drop(self, epoch: str, number: int) -> None:
        """Remove a piece and its answer."""
        for box in ("in", "out"):
            await self._blobs.delete(f"{self.prefix}/{_name(epoch, box, number)}")

    async def clear(self) -> None:
        """Remove everything."""
        await self._blobs.delete_prefix(f"{self.prefix}/")

    async def _get(self, name: str) -> bytes | None:
        try:
            return await self._blobs.get(f"{self.prefix}/{name}")
        except NotFoundError:
            return None


def _name(epoch: str, box: str, number: int) -> str:
    return f"{epoch}/{box}/{number:08d}"
