from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpeek_operator.adapters._shared_reads import SharedReads
from mixpeek_operator.core.errors import UnavailableError


@settings(max_examples=60, deadline=None)
@given(delays=st.lists(st.integers(0, 6), min_size=1, max_size=30), takes=st.integers(1, 5))
def test_nobody_gets_an_answer_older_than_the_question(delays: list[int], takes: int) -> None:
    """Time is turns of the event loop; an answer is the number of the turn that its read began in."""

    async def main() -> None:
        turn = itertools.count()
        now, reads = 0, 0

        async def tick() -> None:
            nonlocal now
            while True:
                now = next(turn)
                await asyncio.sleep(0)

        async def read(key: str) -> tuple[str, int]:
            nonlocal reads
            reads += 1
            began = now
            for _ in range(takes):
                await asyncio.sleep(0)
            return key, began

        async def ask(delay: int) -> None:
            for _ in range(delay):
                await asyncio.sleep(0)
            asked = now
            key, began = await shared("a")
            assert key == "a"
            assert began >= asked

        shared = SharedReads(read)
        ticking = asyncio.create_task(tick())
        await asyncio.gather(*(ask(delay) for delay in delays))
        ticking.cancel()
        assert reads <= len(delays)

    asyncio.run(main())


async def test_a_hundred_at_once_are_two_reads_and_other_keys_do_not_wait() -> None:
    reads: list[str] = []
    open_ = asyncio.Event()

    async def read(key: str) -> int:
        reads.append(key)
        if key == "slow":
            await open_.wait()
        return len(reads)

    shared = SharedReads(read)
    first = asyncio.create_task(shared("slow"))
    await asyncio.sleep(0.01)
    rest = [asyncio.create_task(shared("slow")) for _ in range(100)]
    await asyncio.sleep(0.01)
    assert await shared("other") == 2
    open_.set()
    assert await first == 2
    assert set(await asyncio.gather(*rest)) == {3}
    assert reads == ["slow", "other", "slow"]
    assert await shared("slow") == 4


async def test_an_error_is_everybodys_and_the_next_one_asks_anew() -> None:
    errors = [UnavailableError("away")]

    async def read(key: str) -> str:
        await asyncio.sleep(0)
        if errors:
            raise errors.pop()
        return key

    shared = SharedReads(read)
    both = await asyncio.gather(shared("a"), shared("a"), return_exceptions=True)
    assert [str(error) for error in both] == ["away", "away"]
    assert await shared("a") == "a"


async def test_one_that_gives_up_takes_the_answer_from_nobody() -> None:
    go_on = asyncio.Event()

    async def read(key: str) -> str:
        await go_on.wait()
        return key

    shared = SharedReads(read)
    one, other = asyncio.create_task(shared("a")), asyncio.create_task(shared("a"))
    await asyncio.sleep(0.01)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    go_on.set()
    assert await other == "a"
