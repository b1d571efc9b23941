"""Blocks through a stream: in order, bounded, and once each, however often streams are lost."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpeek_operator.core.errors import UnavailableError
from mixpeek_operator.extraction.ray import wire
from mixpeek_operator.extraction.ray.blocks import Bounds, through
from mixpeek_operator.ports.compute import Segment, SourceRow


class Echo:
    """Answers each row with a segment; is lost instead of giving its `lost_at`-th answer."""

    def __init__(self, lost_at: int | None) -> None:
        self.pieces: deque[bytes] = deque()
        self.closed: bool | None = None
        self._lost_at = lost_at
        self._answers = 0

    def send(self, piece: bytes) -> None:
        self.pieces.append(piece)

    async def answer(self) -> bytes:
        await asyncio.sleep(0)
        if self._answers == self._lost_at:
            raise UnavailableError("lost")
        self._answers += 1
        return wire.answer([Segment(row.id, 0, row.inputs) for row in wire.rows_of(self.pieces.popleft())])

    async def close(self, *, finished: bool) -> None:
        assert self.closed is None, "closed once"
        self.closed = finished


class Streams:
    """Makes streams, each lost after as many answers as it is told."""

    def __init__(self, lives: Sequence[int]) -> None:
        self.made: list[Echo] = []
        self._lives = deque(lives)

    def __call__(self) -> Echo:
        self.made.append(Echo(self._lives.popleft() if self._lives else None))
        return self.made[-1]


async def blocks_of(sizes: Sequence[int], read: list[int]) -> AsyncIterator[list[SourceRow]]:
    for block, size in enumerate(sizes):
        read.append(block)
        yield [SourceRow(f"{block}-{number}", {}) for number in range(size)]


@settings(deadline=None)
@given(st.lists(st.integers(0, 7), max_size=8), st.lists(st.integers(0, 3), max_size=2), st.integers(1, 4))
def test_every_row_comes_once_in_its_block(sizes: list[int], lives: list[int], ahead: int) -> None:
    async def run() -> None:
        read: list[int] = []
        streams = Streams(lives)
        taken = 0
        found = []
        bounds = Bounds(ahead, piece_rows=3, piece_bytes=1000, attempts=3)
        async for block in through(streams, blocks_of(sizes, read), bounds):
            taken += 1
            found.append([item.source_id for item in block])
            await asyncio.sleep(0)
            assert len(read) <= taken + ahead
        assert found == [[f"{block}-{number}" for number in range(size)] for block, size in enumerate(sizes)]
        assert [stream.closed for stream in streams.made[:-1]] == [False] * len(streams.made[:-1])
        assert all(stream.closed for stream in streams.made[-1:])

    asyncio.run(run())


async def test_streams_that_are_lost_again_and_again_end_the_run() -> None:
    streams = Streams([1, 0, 0])
    results = through(streams, blocks_of([1, 1], []), Bounds(1, 3, 1000, attempts=2))
    assert await anext(results) == [Segment("0-0", 0, {})]
    with pytest.raises(UnavailableError, match="lost"):
        await anext(results)
    assert [stream.closed for stream in streams.made] == [False, False]


async def test_leaving_early_closes_the_stream() -> None:
    streams = Streams([])
    results = through(streams, blocks_of([1, 1, 1], []), Bounds(1, 3, 1000))
    await anext(results)
    await results.aclose()
    assert [stream.closed for stream in streams.made] == [False]


async def test_large_blocks_are_read_one_at_a_time_however_many_may_be_under_way() -> None:
    read: list[int] = []
    taken = 0
    async for _ in through(Streams([]), blocks_of([2] * 6, read), Bounds(4, 3, 1000, open_bytes=1)):
        taken += 1
        assert len(read) <= taken + 1
        for _ in range(10):
            await asyncio.sleep(0)
    assert taken == 6
