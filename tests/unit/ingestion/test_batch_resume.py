"""Killed anywhere, a batch completes, and each document exists exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

TEXTS = [f"first {number}\nsecond {number}" if number % 3 else f"only {number}" for number in range(40)] + ["bad"]
SEGMENTS = sum(len(text.splitlines()) for text in TEXTS[:-1])


class Killed(BaseException):
    """The process is gone: whatever is called after this does not happen."""


def kill_after(world: Any, calls: int) -> None:
    """Let the world's stores take `calls` more calls, then none."""
    left = calls
    transact = type(world.metadata).transact

    def count(_: str = "") -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    async def counted(writes: Any) -> Any:
        count()
        result = await transact(world.metadata, writes)
        count()
        return result

    world.vectors.fail = count
    world.metadata.transact = counted


def revive(world: Any) -> None:
    world.vectors.fail = None
    del world.metadata.transact
    world.clock.shift += timedelta(seconds=60)


def expect_every_document_once(world: Any, ids: list[str]) -> None:
    for collection in ("col_chunks", "col_words"):
        stored = world.stored(collection)
        assert len(stored) == SEGMENTS
        assert {item["_internal"]["lineage"]["root_object_id"] for item in stored.values()} == set(ids[:-1])


async def killed_again_and_again(world: Any, kills: list[int]) -> None:
    bucket = world.bucket()
    chunks = world.directory.add("chunks", bucket.id)
    world.directory.add("words", chunks.id, input_mappings={"text": "text"})
    ids = await world.fill(bucket.id, TEXTS)
    batch_id = await world.submit(bucket.id, ids)
    for calls in kills:
        kill_after(world, calls)
        with contextlib.suppress(Killed):
            await world.worker(block_rows=16).run_until_idle()
        revive(world)
    await world.worker(block_rows=16).run_until_idle()
    batch = await world.batches.get(world.scope, bucket.id, batch_id)
    assert batch["status"] == "COMPLETED_WITH_ERRORS"
    assert batch["progress"]["objects_extracted"] == len(TEXTS) - 1 + SEGMENTS
    assert batch["documents_written"] == 2 * SEGMENTS
    assert [item["object_id"] for item in batch["failed_objects"]] == [ids[-1]]
    expect_every_document_once(world, ids)
    await world.close()


@settings(max_examples=40, deadline=None)
@given(kills=st.lists(st.integers(0, 60), min_size=1, max_size=6))
def test_kill_anywhere(make_world: Callable[[Path], Any], kills: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(killed_again_and_again(make_world(Path(folder)), kills))


async def canceled_again_and_again(world: Any, delays: list[int]) -> None:
    bucket = world.bucket()
    chunks = world.directory.add("chunks", bucket.id)
    world.directory.add("words", chunks.id, input_mappings={"text": "text"})
    ids = await world.fill(bucket.id, TEXTS)
    batch_id = await world.submit(bucket.id, ids)
    for delay in delays:
        stop = asyncio.Event()
        running = asyncio.create_task(world.worker(block_rows=16).run(stop))
        await asyncio.sleep(delay / 1000)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    await world.worker(block_rows=16).run_until_idle()
    batch = await world.batches.get(world.scope, bucket.id, batch_id)
    assert batch["status"] == "COMPLETED_WITH_ERRORS"
    assert batch["node_death_resubmit_count"] == 0
    assert [item["object_id"] for item in batch["failed_objects"]] == [ids[-1]]
    expect_every_document_once(world, ids)
    await world.close()


@settings(max_examples=8, deadline=None)
@given(delays=st.lists(st.integers(0, 80), min_size=1, max_size=5))
def test_stop_anywhere(make_world: Callable[[Path], Any], delays: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(canceled_again_and_again(make_world(Path(folder)), delays))
