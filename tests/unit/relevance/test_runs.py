"""Runs survive what ends their process, give way when they are deleted, and tell their user why they failed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mixpeek_operator.adapters.sqlite_metadata import SqliteMetadata
from mixpeek_operator.core.clock import SystemClock
from mixpeek_operator.core.errors import NotFoundError
from mixpeek_operator.relevance.runs import MAX_ATTEMPTS, HeldRun, Runs

CLOCK = SystemClock()


class Work:
    """A kind of run that does what the test says."""

    table = "things"
    open = ("pending", "running")

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.error: Exception | None = None

    async def run(self, held: HeldRun) -> None:
        await held.save(state="running")
        self.begun.set()
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        await held.save(release=True, state="done")

    async def fail(self, held: HeldRun, reason: str) -> None:
        await held.save(release=True, state="failed", reason=reason)


@pytest.fixture
async def metadata(tmp_path: Path) -> AsyncIterator[SqliteMetadata]:
    store = SqliteMetadata(tmp_path / "m.db")
    await store.put("things", "ns_a", "t1", {"namespace_id": "ns_a", "state": "pending"})
    yield store
    await store.close()


async def stored(metadata: SqliteMetadata) -> dict[str, Any]:
    record = await metadata.get("things", "ns_a", "t1")
    assert record is not None
    return dict(record.body)


async def test_it_runs_to_its_end(metadata: SqliteMetadata) -> None:
    work = Work()
    work.go_on.set()
    runs = Runs(metadata, CLOCK, [work])
    assert await runs.once()
    assert (await stored(metadata))["state"] == "done"
    assert not await runs.once()


async def test_what_is_stopped_is_taken_up_at_once(metadata: SqliteMetadata) -> None:
    work, stop = Work(), asyncio.Event()
    running = asyncio.create_task(Runs(metadata, CLOCK, [work]).run(stop))
    await work.begun.wait()
    stop.set()
    await running
    body = await stored(metadata)
    assert (body["state"], body["lease_until"]) == ("running", 0)
    other = Work()
    other.go_on.set()
    assert await Runs(metadata, CLOCK, [other]).once()
    assert (await stored(metadata))["state"] == "done"


async def test_what_a_dead_process_held_is_taken_up_when_its_lease_ends(metadata: SqliteMetadata) -> None:
    claim = {"states": Work.open, "owner": "dead", "lease_s": 60.0}
    now = CLOCK.now().timestamp()
    assert await metadata.claim("things", now=now, **claim) is not None
    work = Work()
    work.go_on.set()
    assert not await Runs(metadata, CLOCK, [work]).once()
    body = await stored(metadata)
    await metadata.put("things", "ns_a", "t1", {**body, "lease_until": now - 1})
    assert await Runs(metadata, CLOCK, [work]).once()
    assert (await stored(metadata))["state"] == "done"


async def test_one_that_ends_every_process_fails(metadata: SqliteMetadata) -> None:
    await metadata.put("things", "ns_a", "t1", {**await stored(metadata), "attempts": MAX_ATTEMPTS})
    await Runs(metadata, CLOCK, [Work()]).once()
    body = await stored(metadata)
    assert body["state"] == "failed"
    assert "its process ended" in body["reason"]


@pytest.mark.parametrize(
    ("error", "said"), [(NotFoundError("there is no dataset"), "there is no dataset"), (ZeroDivisionError(), "log_")]
)
async def test_why_it_failed(metadata: SqliteMetadata, error: Exception, said: str) -> None:
    work = Work()
    work.error = error
    work.go_on.set()
    await Runs(metadata, CLOCK, [work]).once()
    body = await stored(metadata)
    assert body["state"] == "failed"
    assert said in body["reason"]


@pytest.mark.parametrize("taken", [False, True])
async def test_it_stops_when_the_record_is_not_its_own(metadata: SqliteMetadata, taken: bool) -> None:
    work = Work()
    running = asyncio.create_task(Runs(metadata, CLOCK, [work]).once())
    await work.begun.wait()
    if taken:
        await metadata.put("things", "ns_a", "t1", {**await stored(metadata), "lease_owner": "other"})
    else:
        await metadata.delete("things", "ns_a", "t1")
    work.go_on.set()
    await running
    record = await metadata.get("things", "ns_a", "t1")
    assert record is None or record.body["state"] == "running"
