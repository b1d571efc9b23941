"""One streaming execution of Ray Data that is fed while it runs.

Ray Data reads from data that is there; ours arrives block by block. So its one read task asks an actor, the feed,
for piece after piece. Only what is under way is held: a piece leaves the feed once its answer is here.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mixpeek_operator.core.errors import UnavailableError
from mixpeek_operator.core.ids import random
from mixpeek_operator.extraction.ray.worker import Parts, Work, Worker

if TYPE_CHECKING:
    import pyarrow as pa

_PIECE, _ANSWER = "piece", "answer"
_RETRIES = 2
"""Times that Ray gives a piece to another worker after its own died."""


@dataclass(frozen=True, slots=True)
class Workers:
    """The actors of one run: how many, and what each reserves of the cluster."""

    least: int = 1
    most: int = 2
    cpus: float = 1.0
    gpus: float = 0.0
    environment: Mapping[str, Any] = field(default_factory=dict)
    """Ray's runtime environment of the actors."""


class DataStream:
    """Answers pieces in the order they were sent, until it is closed. Made and used on one event loop."""

    def __init__(self, work: Work, parts: Parts, workers: Workers) -> None:
        self._name = f"{work.namespace_id}-{work.extractor}-{random('run', 8)}"
        self._work = work
        self._parts = parts
        self._workers = workers
        self._loop = asyncio.get_running_loop()
        self._answers: asyncio.Queue[bytes | UnavailableError] = asyncio.Queue()
        self._lock = threading.Lock()
        self._feed: Any = None
        self._waiting: deque[bytes] = deque()
        """What is sent before the feed is there."""
        self._sent = 0
        self._closed = False
        threading.Thread(target=self._execute, name=self._name, daemon=True).start()

    def send(self, piece: bytes) -> None:
        """Queue a piece; without effect once closed."""
        with self._lock:
            if self._feed is None:
                self._waiting.append(piece)
            elif not self._closed:
                self._put(piece)

    async def answer(self) -> bytes:
        """The answer to the next piece. Raises UnavailableError when the workers are lost."""
        found = await self._answers.get()
        if isinstance(found, UnavailableError):
            raise found
        return found

    async def close(self, *, finished: bool) -> None:
        """Let the workers go once they have done what they are at; its answers are given up."""
        with self._lock:
            self._closed = True
            if self._feed is not None:
                self._feed.stop.remote()

    def _put(self, piece: bytes) -> None:
        self._feed.put.remote(self._sent, piece)
        self._sent += 1

    def _execute(self) -> None:
        import ray

        try:
            for number, answer in enumerate(self._run()):
                self._feed.drop.remote(number)
                self._post(answer)
        except Exception as error:
            self._post(UnavailableError(f"the Ray workers of {self._work.extractor} were lost: {_last_line(error)}"))
        finally:
            if self._feed is not None and ray.is_initialized():
                ray.kill(self._feed)

    def _run(self) -> Iterator[bytes]:
        import ray
        from ray.data import ActorPoolStrategy, DataContext

        if not ray.is_initialized():
            raise UnavailableError("this server is not connected to a Ray cluster")
        feed = ray.remote(num_cpus=0, max_concurrency=100)(Feed).options(name=f"{self._name}-feed").remote()
        with self._lock:
            self._feed = feed
            if self._closed:
                return
            while self._waiting:
                self._put(self._waiting.popleft())
        context = DataContext()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        # Every piece is a block of its own and goes on at once, instead of waiting for a block to fill.
        context.target_max_block_size = 1
        with DataContext.current(context):
            dataset = ray.data.read_datasource(source(feed), override_num_blocks=1, num_cpus=0).map_batches(
                Extract,
                fn_constructor_args=(self._work, self._parts),
                batch_size=1,
                batch_format="pyarrow",
                compute=ActorPoolStrategy(min_size=self._workers.least, max_size=self._workers.most),
                num_cpus=self._workers.cpus,
                num_gpus=self._workers.gpus,
                runtime_env=dict(self._workers.environment) or None,
                ray_remote_args_fn=_retries,
            )
            dataset.set_name(self._name)
            for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                yield from batch.column(_ANSWER).to_pylist()

    def _post(self, answer: bytes | UnavailableError) -> None:
        with self._lock:
            if not self._closed:
                self._loop.call_soon_threadsafe(self._answers.put_nowait, answer)


class Feed:
    """The actor that holds pieces until they are answered."""

    def __init__(self) -> None:
        self._pieces: dict[int, bytes] = {}
        self._changed = asyncio.Condition()
        self._dropped = 0
        self._stopped = False

    async def put(self, number: int, piece: bytes) -> None:
        async with self._changed:
            self._pieces[number] = piece
            self._changed.notify_all()

    async def get(self, number: int) -> bytes | None:
        """The piece, once it is there, None once stopped.

        Empty for one that was answered, which only a read that Ray repeats asks for; nobody looks at its answer.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: number in self._pieces or number < self._dropped or self._stopped)
        return None if self._stopped else self._pieces.get(number, b"")

    async def drop(self, number: int) -> None:
        self._pieces.pop(number, None)
        self._dropped = number + 1

    async def stop(self) -> None:
        async with self._changed:
            self._stopped = True
            self._changed.notify_all()


class Extract:
    """The actor of Ray Data that answers pieces."""

    def __init__(self, work: Work, parts: Parts) -> None:
        self._worker = Worker(work, parts)

    def __call__(self, batch: pa.Table) -> pa.Table:
        import pyarrow as pa

        answers = [self._worker.answer(piece) for piece in batch.column(_PIECE).to_pylist()]
        return pa.table({_ANSWER: pa.array(answers, pa.large_binary())})


def source(feed: Any) -> Any:
    """The data source whose one task reads from the feed until it stops."""
    import pyarrow as pa
    import ray
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    def read() -> Iterator[pa.Table]:
        number = 0
        while (piece := ray.get(feed.get.remote(number))) is not None:
            yield pa.table({_PIECE: pa.array([piece], pa.large_binary())})
            number += 1

    class FeedSource(Datasource):  # type: ignore[misc]  # ray's types are not read
        def get_name(self) -> str:
            return "Feed"

        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, parallelism: int, **_: Any) -> list[ReadTask]:
            return [ReadTask(read, BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None))]

    return FeedSource()


def _retries() -> dict[str, Any]:
    # By this way alone: Ray 2.60 has no argument for it yet, and its own number is without end.
    return {"max_task_retries": _RETRIES}


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1][:300] if lines else type(error).__name__
