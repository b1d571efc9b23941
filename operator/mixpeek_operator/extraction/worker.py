"""The one thread that owns torch: takes what waits, puts it together by length, and lets queries go first."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from mixpeek_operator.core.errors import UnavailableError

T = TypeVar("T")

WINDOW = 2048
"""Most texts sorted together: long enough to find others of the same length, short enough to stay in bounds."""
_PATIENCE_S = 2.0


class Encoder(Protocol):
    """A loaded model, used by one thread."""

    id: str

    def tokenize(self, texts: Sequence[str], purpose: str) -> list[list[int]]: ...
    def forward(self, batch: Sequence[Sequence[int]]) -> list[list[float]]: ...


@dataclass(slots=True, eq=False)
class _Job:
    """Texts of one call, filled in as their batches are done."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[list[list[float]]]
    encoder: Encoder
    texts: Sequence[str]
    purpose: str
    vectors: list[list[float]]
    taken: int = 0
    open: int = 0


@dataclass(slots=True, eq=False)
class _Call:
    """A function to run in the thread, such as loading a model."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    function: Callable[[], Any]


@dataclass(slots=True)
class _Item:
    job: _Job
    position: int
    ids: list[int] = field(default_factory=list)


class EncoderThread:
    """Runs jobs of all models. A batch holds texts of one model, at most `batch_size` of them and about
    `batch_tokens` tokens; between two batches of documents, waiting queries are served."""

    def __init__(self, *, batch_size: int, batch_tokens: int) -> None:
        self._batch_size = batch_size
        self._batch_tokens = batch_tokens
        self._wake = threading.Condition()
        self._calls: deque[_Call] = deque()
        self._queries: deque[_Job] = deque()
        self._documents: deque[_Job] = deque()
        self._closed = False
        self._thread: threading.Thread | None = None

    def embed(self, encoder: Encoder, texts: Sequence[str], purpose: str) -> asyncio.Future[list[list[float]]]:
        """Queue texts; the future holds their vectors in order."""
        loop = asyncio.get_running_loop()
        job = _Job(loop, loop.create_future(), encoder, texts, purpose, [[]] * len(texts), open=len(texts))
        self._put(self._queries if purpose == "query" else self._documents, job)
        return job.future

    def call(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Run `function` in the thread, before any waiting job."""
        loop = asyncio.get_running_loop()
        call = _Call(loop, loop.create_future(), function)
        self._put(self._calls, call)
        return call.future

    async def close(self) -> None:
        """Stop after the running batch; what waits fails with UnavailableError.

        A model that is being loaded cannot be broken off: the thread is left behind, to end with the process.
        """
        with self._wake:
            self._closed = True
            thread = self._thread
            self._wake.notify()
        if thread is not None:
            await asyncio.to_thread(thread.join, _PATIENCE_S)

    def _put(self, lane: deque[T], entry: T) -> None:
        with self._wake:
            if self._closed:
                raise _stopping()
            lane.append(entry)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="mixpeek-encoder", daemon=True)
                self._thread.start()
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._closed or self._calls or self._queries or self._documents):
                    self._wake.wait()
                if self._closed:
                    waiting: list[_Job | _Call] = [*self._calls, *self._queries, *self._documents]
                    break
            self._serve_calls()
            self._serve(self._queries)
            self._serve(self._documents)
        for entry in waiting:
            _fail(entry, _stopping())

    def _serve_calls(self) -> None:
        while self._calls:
            call = self._calls.popleft()
            try:
                result = call.function()
            except BaseException as error:
                _fail(call, error)
            else:
                _post(call.loop, _resolve, call.future, result)

    def _serve(self, lane: deque[_Job]) -> None:
        """Do one window of the lane; documents let queries in between their batches."""
        window = self._take(lane)
        if not window:
            return
        first = window[0].job
        try:
            tokens = first.encoder.tokenize([item.job.texts[item.position] for item in window], first.purpose)
        except BaseException as error:
            self._abandon(lane, window, error)
            return
        for item, ids in zip(window, tokens, strict=True):
            item.ids = ids
        window.sort(key=lambda item: len(item.ids), reverse=True)
        start = 0
        while start < len(window) and not self._closed:
            if lane is self._documents and self._queries:
                self._serve(self._queries)
            room = max(1, min(self._batch_size, self._batch_tokens // max(1, len(window[start].ids))))
            batch = [item for item in window[start : start + room] if not item.job.future.cancelled()]
            start += room
            if not batch:
                continue
            try:
                vectors = first.encoder.forward([item.ids for item in batch])
            except BaseException as error:
                self._abandon(lane, batch, error)
                continue
            for item, vector in zip(batch, vectors, strict=True):
                item.job.vectors[item.position] = vector
                item.job.open -= 1
                if item.job.open == 0:
                    _post(item.job.loop, _resolve, item.job.future, item.job.vectors)
        if self._closed:
            self._abandon(lane, window[start:], _stopping())

    def _take(self, lane: deque[_Job]) -> list[_Item]:
        """The next texts of the lane that one model embeds for one purpose."""
        window: list[_Item] = []
        while lane and len(window) < WINDOW:
            job = lane[0]
            if window and (job.encoder, job.purpose) != (window[0].job.encoder, window[0].job.purpose):
                break
            end = min(len(job.texts), job.taken + WINDOW - len(window))
            window.extend(_Item(job, position) for position in range(job.taken, end))
            job.taken = end
            if end == len(job.texts):
                lane.popleft()
        return window

    def _abandon(self, lane: deque[_Job], items: Sequence[_Item], error: BaseException) -> None:
        """Fail the jobs of these items, and forget what of them still waits."""
        for job in {item.job for item in items}:
            if lane and lane[0] is job:
                lane.popleft()
            _fail(job, error)


def _stopping() -> UnavailableError:
    return UnavailableError("the server is stopping; try again when it is up")


def _fail(entry: _Job | _Call, error: BaseException) -> None:
    _post(entry.loop, _reject, entry.future, error)


def _post(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: object) -> None:
    # A loop that was closed has nobody left to tell.
    if not loop.is_closed():
        loop.call_soon_threadsafe(function, *arguments)


def _resolve(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _reject(future: asyncio.Future[T], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
