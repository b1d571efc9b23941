"""A long run of this server: its record while we hold it, and the loop that finds records to run.

A record says in `state` how far it is. Who runs it holds it under a lease and renews that with every write; the version
fences off a holder that was too slow. A run reads only, so one whose process died is simply begun again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final, Protocol

import structlog

from mixpeek_operator.core.clock import Clock, timestamp
from mixpeek_operator.core.errors import ConflictError, MixpeekError
from mixpeek_operator.core.ids import random
from mixpeek_operator.ingestion.batch_run import log_id
from mixpeek_operator.ports.metadata import MetadataStore, Record

MAX_ATTEMPTS: Final = 3
"""Times a run is begun before it counts as failed: it may be what ends the process."""
PRIVATE: Final = ("state", "attempts", "lease_owner", "lease_until")
"""Fields of a record that are ours alone."""

_log = structlog.get_logger(__name__)


class StoppedError(Exception):
    """The record was deleted, or another process holds it now. Not an error to anyone."""


class HeldRun:
    """A claimed record."""

    def __init__(self, metadata: MetadataStore, clock: Clock, table: str, record: Record, lease_s: float) -> None:
        self.id = record.id
        self.body: dict[str, Any] = dict(record.body)
        self._metadata = metadata
        self._clock = clock
        self._table = table
        self._version = record.version
        self._lease_s = lease_s
        self._lock = asyncio.Lock()

    def now(self) -> str:
        """The time, as records hold it."""
        return timestamp(self._clock.now())

    async def save(self, *, release: bool = False, **changes: Any) -> None:
        """Write changes and renew the lease, or give it up. Raises StoppedError when the record is not ours."""
        async with self._lock:
            body = {**self.body, **changes, "updated_at": self.now()}
            body["lease_until"] = 0 if release else self._clock.now().timestamp() + self._lease_s
            try:
                stored = await self._metadata.put(
                    self._table, str(body["namespace_id"]), self.id, body, if_version=self._version
                )
            except ConflictError as error:
                raise StoppedError(self.id) from error
            self.body, self._version = body, stored.version

    async def beat(self) -> None:
        """Renew the lease until canceled or stopped."""
        while True:
            await asyncio.sleep(self._lease_s / 3)
            try:
                await self.save()
            except MixpeekError as error:
                _log.warning("renewing the lease of a run failed", id=self.id, error=str(error))


class Job(Protocol):
    """A kind of run."""

    @property
    def table(self) -> str: ...

    @property
    def open(self) -> Sequence[str]:
        """States of a record that is not at its end."""
        ...

    async def run(self, held: HeldRun) -> None:
        """Work to the end and save the result. A MixpeekError is what its user can do something about."""
        ...

    async def fail(self, held: HeldRun, reason: str) -> None:
        """Save that it failed."""
        ...


class Runs:
    """Runs what waits, one record after the other."""

    def __init__(
        self,
        metadata: MetadataStore,
        clock: Clock,
        jobs: Sequence[Job],
        *,
        lease_s: float = 60.0,
        poll_s: float = 5.0,
    ) -> None:
        self._metadata = metadata
        self._clock = clock
        self._jobs = tuple(jobs)
        self._lease_s = lease_s
        self._poll_s = poll_s
        self._owner = random("runs", 8)
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look for work now instead of at the next poll."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Run what waits until `stop` is set; what is running is then freed for the next process."""
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                self._wake.clear()
                working = asyncio.create_task(self.once())
                await asyncio.wait({stopping, working}, return_when=asyncio.FIRST_COMPLETED)
                if not working.done():
                    working.cancel()
                    await asyncio.gather(working, return_exceptions=True)
                elif not working.result():
                    waking = asyncio.create_task(self._wake.wait())
                    await asyncio.wait({stopping, waking}, timeout=self._poll_s, return_when=asyncio.FIRST_COMPLETED)
                    waking.cancel()
        finally:
            stopping.cancel()

    async def once(self) -> bool:
        """Run one record of each kind to its end, if there is one; whether there was any."""
        any_ran = False
        for job in self._jobs:
            try:
                claimed = await self._metadata.claim(
                    job.table,
                    states=job.open,
                    owner=f"{self._owner}/{random('lease', 8)}",
                    lease_s=self._lease_s,
                    now=self._clock.now().timestamp(),
                )
            except MixpeekError as error:
                _log.warning("looking for runs failed", table=job.table, error=str(error))
                continue
            if claimed is not None:
                any_ran = True
                await self._work(job, HeldRun(self._metadata, self._clock, job.table, claimed[1], self._lease_s))
        return any_ran

    async def _work(self, job: Job, held: HeldRun) -> None:
        beating = asyncio.create_task(held.beat())
        working = asyncio.create_task(self._walk(job, held))
        try:
            # A beat ends only when the record is no longer ours.
            await asyncio.wait({beating, working}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                await working
        except StoppedError:
            _log.info("stopped a run", table=job.table, id=held.id)
        except MixpeekError as error:
            _log.warning("a run could not be stored; it is taken up again", id=held.id, error=str(error))
        except asyncio.CancelledError:
            beating.cancel()
            working.cancel()
            await asyncio.gather(beating, working, return_exceptions=True)
            with contextlib.suppress(StoppedError, MixpeekError):
                await held.save(release=True)
            raise
        finally:
            beating.cancel()
            working.cancel()
            await asyncio.gather(beating, working, return_exceptions=True)

    async def _walk(self, job: Job, held: HeldRun) -> None:
        attempts = int(held.body.get("attempts", 0)) + 1
        if attempts > MAX_ATTEMPTS:
            await job.fail(held, f"it was begun {MAX_ATTEMPTS} times and its process ended each time")
            return
        await held.save(attempts=attempts)
        try:
            await job.run(held)
        except MixpeekError as error:
            await job.fail(held, error.message)
        except StoppedError:
            raise
        except Exception as error:
            id = log_id()
            _log.exception("a run failed", table=job.table, id=held.id, log_id=id)
            await job.fail(held, f"internal error {id} ({type(error).__name__}); the server's log has the details")
