"""Running an extractor as a Ray job on a cluster that this process is not part of.

The job is submitted over HTTP; rows and results go through the blob store, piece by piece (`mailbox`). The job's id
derives from the run's, so a server that takes up a dead one's batch finds the job that still runs and goes on with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shlex
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any

import httpx
import structlog

from mixpeek_operator.core.errors import MixpeekError, UnavailableError
from mixpeek_operator.core.ids import random
from mixpeek_operator.extraction.ray import wire
from mixpeek_operator.extraction.ray.blocks import Bounds, through
from mixpeek_operator.extraction.ray.endpoints import Endpoints, FindEndpoints, shared_only
from mixpeek_operator.extraction.ray.job_api import ENDED, JobApi
from mixpeek_operator.extraction.ray.mailbox import END, Control, Mailbox
from mixpeek_operator.extraction.ray.worker import Work
from mixpeek_operator.extraction.registry import ExtractorRegistry
from mixpeek_operator.ports.blobs import BlobStore
from mixpeek_operator.ports.compute import RowFailure, Segment, SourceRow

_log = structlog.get_logger(__name__)

PIECE_ROWS = 1024
PIECE_BYTES = 16 * 1024 * 1024
_ATTEMPTS = 2
"""Jobs that may end without one answer in between."""
_POLL_S = 0.1
_SLOWEST_POLL_S = 1.0
_LOOK_AT_JOB_S = 3.0
"""Seconds without an answer after which we ask whether the job still runs."""
_CLOSE_S = 5.0
_END_S = 30.0
"""Seconds that a job gets to end by itself once all is answered."""


class RayJobRunner:
    """Serves `ports.compute.Runner` with one Ray job per run.

    `shared` is the cluster of every namespace for which `endpoints` knows no other; `environment` is the job's, with
    what it needs to reach the blob store and the models. At most `ahead` blocks are under way.
    """

    def __init__(
        self,
        registry: ExtractorRegistry,
        blobs: BlobStore,
        http: httpx.AsyncClient,
        shared: Endpoints | None,
        *,
        environment: Mapping[str, str],
        endpoints: FindEndpoints = shared_only,
        ahead: int = 8,
    ) -> None:
        self._registry = registry
        self._blobs = blobs
        self._http = http
        self._shared = shared
        self._environment = dict(environment)
        self._endpoints = endpoints
        self._bounds = Bounds(ahead, PIECE_ROWS, PIECE_BYTES, attempts=_ATTEMPTS)

    async def run(
        self,
        *,
        extractor: str,
        version: str,
        parameters: Mapping[str, Any],
        namespace_id: str,
        rows: AsyncIterator[Sequence[SourceRow]],
        run_id: str | None = None,
    ) -> AsyncIterator[Sequence[Segment | RowFailure]]:
        """Yield one block of results per block of rows, in order; a row's results stay together."""
        self._registry.vector_indexes(extractor, version, parameters)
        work = Work(extractor, version, dict(parameters), namespace_id)
        run = run_name(work, run_id or random("run"))
        cluster = self._endpoints(namespace_id) or self._shared
        if cluster is None:
            raise UnavailableError(f"{namespace_id} has no Ray cluster yet; its batches go on once it is up")
        api = JobApi(self._http, cluster)
        mailbox = Mailbox(self._blobs, f"{namespace_id}/runs/{run}")
        blocks = through(lambda: JobStream(api, mailbox, run, work, self._environment), rows, self._bounds)
        async with contextlib.aclosing(blocks):
            async for block in blocks:
                yield block


def run_name(work: Work, run_id: str) -> str:
    """How the ids of a run's jobs begin: with the namespace, and the same for the same run of the same work."""
    digest = hashlib.sha256(wire.pack([work.extractor, work.version, sorted(work.parameters.items())])).hexdigest()
    return f"{work.namespace_id}-{run_id}-{digest[:8]}"


class JobStream:
    """Answers pieces with the run's job, which is looked for, or else submitted, at once.

    A submitted job always has a new id: Ray frees the name of a job's supervisor some time after the job has ended, and
    fails another job of that id until then.
    """

    def __init__(self, api: JobApi, mailbox: Mailbox, run: str, work: Work, environment: Mapping[str, str]) -> None:
        self._api = api
        self._mailbox = mailbox
        self._work = work
        self._environment = environment
        self._epoch = random("epoch", 8)
        self._job = f"{run}-{self._epoch.removeprefix('epoch_')}"
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue()
        self._answered = 0
        self._sending = asyncio.create_task(self._feed())

    def send(self, piece: bytes) -> None:
        self._pieces.put_nowait(piece)

    async def answer(self) -> bytes:
        poll_s, looked = _POLL_S, asyncio.get_running_loop().time()
        while (found := await self._mailbox.get(self._epoch, "out", self._answered)) is None:
            if self._sending.done():
                self._sending.result()
            now = asyncio.get_running_loop().time()
            if now - looked > _LOOK_AT_JOB_S:
                looked = now
                await self._look()
            await asyncio.sleep(poll_s)
            poll_s = min(poll_s * 1.5, _SLOWEST_POLL_S)
        await self._mailbox.drop(self._epoch, self._answered)
        self._answered += 1
        return found

    async def close(self, *, finished: bool) -> None:
        """Have the job end and remove what is left; by itself when it has nothing left to do, else stopped."""
        if finished:
            self._pieces.put_nowait(END)
            await asyncio.gather(self._sending, return_exceptions=True)
        self._sending.cancel()
        await asyncio.gather(self._sending, return_exceptions=True)
        if not (finished and await self._within(_END_S, self._ended())):
            await self._within(_CLOSE_S, self._stop())
        # A job that could not be stopped finds its run cleared, and ends.
        await self._within(_CLOSE_S, self._mailbox.clear())

    async def _within(self, seconds: float, call: Coroutine[Any, Any, None]) -> bool:
        """Whether one thing of an orderly end was done in time; a server that stops must not wait for who is away."""
        try:
            async with asyncio.timeout(seconds):
                await call
        except (MixpeekError, TimeoutError) as error:
            _log.warning("a Ray job did not end in order", job=self._job, error=str(error) or type(error).__name__)
            return False
        return True

    async def _stop(self) -> None:
        await self._api.stop(self._job)
        await self._ended()

    async def _ended(self) -> None:
        while True:
            if not await self._runs(self._job):
                return
            await asyncio.sleep(_POLL_S)

    async def _runs(self, job: str) -> bool:
        found = await self._api.status(job)
        return found is not None and found[0] not in ENDED

    async def _feed(self) -> None:
        """Find or submit the job, then write pieces as they come, the last one empty."""
        before = await self._mailbox.control()
        under_way = before is not None and await self._runs(before.job)
        if before is not None and under_way:
            self._job = before.job
        await self._mailbox.write_control(Control(self._epoch, self._work, self._job))
        if not under_way:
            entrypoint = f"python -m mixpeek_operator.extraction.ray.job --run {shlex.quote(self._mailbox.prefix)}"
            metadata = {"namespace_id": self._work.namespace_id, "extractor": self._work.extractor}
            await self._api.submit(self._job, entrypoint, environment=self._environment, metadata=metadata)
        else:
            _log.info("going on with a Ray job that runs", job=self._job)
        number = 0
        while True:
            piece = await self._pieces.get()
            await self._mailbox.put(self._epoch, "in", number, piece)
            number += 1
            if piece == END:
                return

    async def _look(self) -> None:
        """Raise when no answer can be expected any more."""
        control = await self._mailbox.control()
        if control is None or control.epoch != self._epoch:
            raise UnavailableError(f"the Ray job {self._job} was given up, or another server has taken it over")
        if not self._sending.done() and self._answered == 0 and await self._api.status(self._job) is None:
            return  # not submitted yet
        found = await self._api.status(self._job)
        if found is None:
            raise UnavailableError(f"the Ray job {self._job} is gone; its cluster was restarted")
        if found[0] in ENDED and await self._mailbox.get(self._epoch, "out", self._answered) is None:
            raise UnavailableError(await self._post_mortem(*found))

    async def _post_mortem(self, status: str, message: str) -> str:
        told = await self._api.log(self._job) or message
        for name, value in self._environment.items():
            if value and not name.startswith("MIXPEEK_"):
                told = told.replace(value, "***")
        return f"the Ray job {self._job} ended as {status}: {told}"
