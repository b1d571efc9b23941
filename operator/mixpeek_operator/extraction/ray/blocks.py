"""Blocks of rows on their way through workers elsewhere: cut into pieces, answered in order, bounded in number."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from mixpeek_operator.core.errors import UnavailableError
from mixpeek_operator.extraction.ray import wire
from mixpeek_operator.ports.compute import RowFailure, Segment, SourceRow

_log = structlog.get_logger(__name__)


class Stream(Protocol):
    """Answers pieces in the order they were sent."""

    def send(self, piece: bytes) -> None:
        """Queue a piece; without effect once closed."""
        ...

    async def answer(self) -> bytes:
        """The answer to the next piece. Raises UnavailableError when it will not come."""
        ...

    async def close(self, *, finished: bool) -> None:
        """Let the workers go; `finished` when every piece was answered and no more will be sent."""
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """How blocks are cut and how many are under way."""

    ahead: int
    """Blocks read before the consumer has taken the first of them."""
    piece_rows: int
    piece_bytes: int
    open_bytes: int = 256 * 1024 * 1024
    """Size of pieces without an answer from which on no further block is read."""
    attempts: int = 1
    """Streams that may be lost in a row without one answer in between."""


async def through(
    start: Callable[[], Stream], rows: AsyncIterator[Sequence[SourceRow]], bounds: Bounds
) -> AsyncGenerator[Sequence[Segment | RowFailure], None]:
    """Yield one block of results per block of rows, in order, from the stream that `start` makes when needed.

    What a lost stream left open is sent through a new one.
    """
    blocks = _Blocks(start, bounds)
    reading = asyncio.create_task(blocks.read(aiter(rows)))
    finished = False
    try:
        while (block := await blocks.next()) is not None:
            yield block
        finished = True
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        if blocks.stream is not None:
            await blocks.stream.close(finished=finished)


class _Blocks:
    def __init__(self, start: Callable[[], Stream], bounds: Bounds) -> None:
        self.stream: Stream | None = None
        self._start = start
        self._bounds = bounds
        self._slots = asyncio.Semaphore(bounds.ahead)
        self._counts: asyncio.Queue[int | Exception | None] = asyncio.Queue()
        """Per block its number of pieces; then why reading failed, or None at the end."""
        self._open: deque[bytes] = deque()
        """Pieces without an answer, in order."""
        self._open_bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._taken = False

    async def read(self, source: AsyncIterator[Sequence[SourceRow]]) -> None:
        """Send the source's blocks, no more than the slots allow."""
        try:
            while True:
                await self._slots.acquire()
                await self._room.wait()
                try:
                    rows = await anext(source)
                except StopAsyncIteration:
                    break
                count = 0
                for piece in wire.pieces(rows, max_rows=self._bounds.piece_rows, max_bytes=self._bounds.piece_bytes):
                    self._send(piece)
                    count += 1
                self._counts.put_nowait(count)
            self._counts.put_nowait(None)
        except Exception as error:
            self._counts.put_nowait(error)

    async def next(self) -> list[Segment | RowFailure] | None:
        """The results of the next block, None after the last. Raises what ended the run."""
        if self._taken:
            self._slots.release()
        count = await self._counts.get()
        if count is None:
            return None
        if isinstance(count, Exception):
            raise count
        self._taken = True
        results: list[Segment | RowFailure] = []
        for _ in range(count):
            results += wire.results_of(await self._answer())
            self._weigh(-len(self._open.popleft()))
        return results

    def _send(self, piece: bytes) -> None:
        self._open.append(piece)
        self._weigh(len(piece))
        if self.stream is None:
            self.stream = self._start()
        self.stream.send(piece)

    def _weigh(self, change: int) -> None:
        self._open_bytes += change
        if self._open_bytes > self._bounds.open_bytes:
            self._room.clear()
        else:
            self._room.set()

    async def _answer(self) -> bytes:
        for attempt in range(1, self._bounds.attempts + 1):
            assert self.stream is not None, "a piece was sent"
            try:
                return await self.stream.answer()
            except UnavailableError as error:
                if attempt == self._bounds.attempts:
                    raise
                _log.warning("running again what lost its workers", error=str(error))
            await self.stream.close(finished=False)
            self.stream = self._start()
            for piece in self._open:
                self.stream.send(piece)
        raise AssertionError("the last attempt returns or raises")
