"""Records kept in memory are never older than what a writer was told."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from mixpeek_operator.adapters.sqlite_metadata import SqliteMetadata
from mixpeek_operator.core.filters import equals
from mixpeek_operator.ports.metadata import Write


@pytest.mark.parametrize("seed", range(5))
async def test_no_read_is_older_than_a_write_that_ended_before_it(tmp_path: Path, seed: int) -> None:
    """Writers, cancelled ones among them, readers and deleters at once; each read is compared with what was known
    when it began."""
    store = SqliteMetadata(tmp_path / "m.db", remembered=("t",))
    dice = random.Random(seed)
    acknowledged = {"a": 0, "b": 0}
    number = 0

    async def write(id: str) -> None:
        nonlocal number
        number += 1
        mine = number
        await store.transact([Write("t", "n", id, {"number": mine})])
        acknowledged[id] = max(acknowledged[id], mine)

    async def read() -> None:
        before = dict(acknowledged)
        found = {record.id: record.body["number"] for record in await store.get_many("t", "n", ["a", "b", "c"])}
        for id, least in before.items():
            assert found.get(id, 0) >= least

    async def abandon(id: str) -> None:
        task = asyncio.create_task(write(id))
        for _ in range(dice.randrange(3)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def act() -> None:
        for _ in range(60):
            kind = dice.randrange(5)
            if kind == 0:
                await write(dice.choice("ab"))
            elif kind == 1:
                await abandon(dice.choice("ab"))
            else:
                await read()

    await asyncio.gather(*(act() for _ in range(4)))
    await store.close()


async def test_what_is_deleted_or_claimed_is_not_remembered(tmp_path: Path) -> None:
    store = SqliteMetadata(tmp_path / "m.db", remembered=("t",))
    await store.put("t", "n", "a", {"k": 1, "state": "new"})
    assert [item.body["k"] for item in await store.get_many("t", "n", ["a", "z"])] == [1]
    await store.claim("t", states=["new"], owner="me", lease_s=1, now=1.0)
    assert (await store.get_many("t", "n", ["a"]))[0].body["lease_owner"] == "me"
    await store.delete_where("t", "n", equals("k", 1))
    assert await store.get_many("t", "n", ["a"]) == []
    await store.put("t", "n", "a", {"k": 2})
    assert [item.body["k"] for item in await store.get_many("t", "n", ["a"])] == [2]
    await store.delete("t", "n", "a")
    assert await store.get_many("t", "n", ["a"]) == []
    await store.close()
