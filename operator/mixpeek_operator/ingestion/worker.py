"""The worker: takes submitted batches by lease, one task each, until told to stop.

A batch whose worker died is free again when its lease ends; the next worker goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from mixpeek_operator.core.clock import Clock
from mixpeek_operator.core.directory import Directory
from mixpeek_operator.core.errors import MixpeekError
from mixpeek_operator.core.ids import random
from mixpeek_operator.ingestion.batch_records import BATCHES, MAX_RESUBMITS, MAX_RETRIES
from mixpeek_operator.ingestion.batch_run import BatchRun, log_id
from mixpeek_operator.ingestion.lease import HeldBatch, StoppedError
from mixpeek_operator.ingestion.signatures import Signatures
from mixpeek_operator.ingestion.sources import SourceReader
from mixpeek_operator.ingestion.tasks import OPEN
from mixpeek_operator.ports.blobs import BlobStore
from mixpeek_operator.ports.compute import Runner
from mixpeek_operator.ports.metadata import MetadataStore, Record
from mixpeek_operator.ports.vectors import VectorStore

_log = structlog.get_logger(__name__)
_CHORES_EVERY_S = 30.0


class Worker:
    """Processes batches of all namespaces."""

    def __init__(
        self,
        metadata: MetadataStore,
        vectors: VectorStore,
        blobs: BlobStore,
        directory: Directory,
        runner: Runner,
        signatures: Signatures,
        clock: Clock,
        *,
        concurrency: int = 2,
        lease_s: float = 10.0,
        poll_s: float = 0.5,
        backoff_s: float = 2.0,
        block_rows: int = 256,
        chores: Sequence[Callable[[], Awaitable[object]]] = (),
    ) -> None:
        """`lease_s` is how long a dead worker's batch waits; `chores` run now and then beside the batches."""
        self._metadata = metadata
        self._vectors = vectors
        self._directory = directory
        self._runner = runner
        self._signatures = signatures
        self._clock = clock
        self._concurrency = concurrency
        self._lease_s = lease_s
        self._poll_s = poll_s
        self._backoff_s = backoff_s
        self._block_rows = block_rows
        self._chores = tuple(chores)
        self._reader = SourceReader(metadata, vectors, blobs)
        self._name = random("worker", 8)
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look for work now instead of at the next poll."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Process batches until `stop` is set; running ones are then handed back, to be gone on with later."""
        active: set[asyncio.Task[None]] = set()
        housekeeping = asyncio.create_task(self._housekeep())
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                self._wake.clear()
                while len(active) < self._concurrency and (taken := await self._next()) is not None:
                    active.add(taken)
                waking = asyncio.create_task(self._wake.wait())
                try:
                    await asyncio.wait(
                        {stopping, waking, *active}, timeout=self._poll_s, return_when=asyncio.FIRST_COMPLETED
                    )
                finally:
                    waking.cancel()
                active = {task for task in active if not task.done()}
        finally:
            # A task that never ran could not hand its batch back, so each gets to its first await.
            await asyncio.sleep(0)
            housekeeping.cancel()
            stopping.cancel()
            for task in active:
                task.cancel()
            await asyncio.gather(housekeeping, stopping, *active, return_exceptions=True)

    async def run_until_idle(self) -> int:
        """Process what is queued, one batch after the other, and return how many there were."""
        count = 0
        while (task := await self._next()) is not None:
            try:
                await task
            finally:
                if not task.done():
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
            count += 1
        return count

    async def _next(self) -> asyncio.Task[None] | None:
        owner = f"{self._name}/{random('lease', 8)}"
        now = self._clock.now().timestamp()
        claim = self._metadata.claim(BATCHES, states=OPEN, owner=owner, lease_s=self._lease_s, now=now)
        claiming = asyncio.ensure_future(claim)
        try:
            claimed = await asyncio.shield(claiming)
        except MixpeekError as error:
            _log.warning("looking for batches failed", error=str(error))
            return None
        except asyncio.CancelledError:
            # The store may grant the claim all the same; nobody would work on it until the lease ends.
            await self._unclaim(claiming, owner)
            raise
        return None if claimed is None else asyncio.create_task(self._work(claimed[1], owner))

    async def _unclaim(self, claiming: asyncio.Future[tuple[str, Record] | None], owner: str) -> None:
        await asyncio.wait({claiming})
        if claiming.cancelled() or claiming.exception() is not None:
            return
        if (claimed := claiming.result()) is not None:
            held = HeldBatch(self._metadata, self._clock, claimed[1], owner=owner, lease_s=self._lease_s)
            await self._hand_back(held)

    async def _work(self, record: Record, owner: str) -> None:
        held = HeldBatch(self._metadata, self._clock, record, owner=owner, lease_s=self._lease_s)
        run = BatchRun(
            held,
            metadata=self._metadata,
            vectors=self._vectors,
            directory=self._directory,
            runner=self._runner,
            reader=self._reader,
            signatures=self._signatures,
            block_rows=self._block_rows,
        )
        walking = asyncio.create_task(self._walk(held, run))
        beating = asyncio.create_task(held.beat())
        try:
            await asyncio.wait({walking, beating}, return_when=asyncio.FIRST_COMPLETED)
            if not walking.done():
                walking.cancel()
            await walking
            _log.debug("worked on a batch", batch_id=held.id)
        except StoppedError as reason:
            _log.info("stopped working on a batch", batch_id=held.id, reason=str(reason))
        except asyncio.CancelledError:
            if not beating.done():
                beating.cancel()
                walking.cancel()
                await asyncio.gather(walking, beating, return_exceptions=True)
                await self._hand_back(held)
                raise
            _log.info("stopped working on a batch", batch_id=held.id, reason=str(_reason(beating)))
        except MixpeekError as error:
            _log.warning("a batch could not be stored; it is taken up again", batch_id=held.id, error=str(error))
        finally:
            for task in (walking, beating):
                task.cancel()
            await asyncio.gather(walking, beating, return_exceptions=True)

    async def _walk(self, held: HeldBatch, run: BatchRun) -> None:
        body = held.body
        if body["state"] == "IN_PROGRESS":
            counter = "deploy_resubmit_count" if body.get("released") else "node_death_resubmit_count"
            body[counter] += 1
            _log.info("taking up a batch again", batch_id=held.id, position=body["cursor"])
            if body[counter] > MAX_RESUBMITS:
                await run.fail(f"its worker died {MAX_RESUBMITS} times at the same place", "infrastructure")
                return
        try:
            await run.walk()
        except MixpeekError as error:
            if body["retry_count"] >= MAX_RETRIES:
                await run.fail(f"{error.message} (gave up after {MAX_RETRIES} attempts)", "infrastructure")
                return
            body["retry_count"] += 1
            _log.warning("a batch waits for a backend", batch_id=held.id, error=str(error))
            await held.postpone(self._backoff_s * 2 ** body["retry_count"], error.message)
        except StoppedError:
            raise
        except Exception as error:
            id = log_id()
            _log.exception("processing a batch failed", batch_id=held.id, log_id=id)
            await run.fail(
                f"internal error {id} ({type(error).__name__}); the server's log has the details", "pipeline"
            )

    async def _hand_back(self, held: HeldBatch) -> None:
        """Free a batch at shutdown, so that the next worker need not wait for the lease to end."""
        try:
            await asyncio.wait_for(held.hand_back(), timeout=self._lease_s)
        except (MixpeekError, TimeoutError) as error:
            _log.warning("a batch could not be handed back; its lease will end", batch_id=held.id, error=str(error))

    async def _housekeep(self) -> None:
        while self._chores:
            for chore in self._chores:
                try:
                    await chore()
                except MixpeekError as error:
                    _log.warning("housekeeping failed", error=str(error))
            await asyncio.sleep(_CHORES_EVERY_S)


def _reason(task: asyncio.Task[None]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None
