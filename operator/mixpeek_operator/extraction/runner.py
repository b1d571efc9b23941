"""Running an extractor in this process: block by block, one block ahead of its consumer.

Only built-in archives run here. A row that fails is reported and the rest goes on; when no row can go on (a model
that cannot be loaded, a store that is away) the run itself fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from mixpeek_operator.core.catalog import VectorIndex
from mixpeek_operator.core.errors import RefusedError, SpecError, UnavailableError
from mixpeek_operator.extraction.archive import Archive
from mixpeek_operator.extraction.frames import Frames
from mixpeek_operator.extraction.registry import ExtractorRegistry
from mixpeek_operator.extraction.sdk import Container, PipelineStep, Processor
from mixpeek_operator.ports.compute import RowFailure, Segment, SourceRow
from mixpeek_operator.ports.inference import Inference
from mixpeek_operator.ports.vectors import Vector

if TYPE_CHECKING:
    import pandas as pd

_log = structlog.get_logger(__name__)

T = TypeVar("T")
Block = list[Segment | RowFailure]


class InProcessRunner:
    """Serves `ports.compute.Runner` with the archives of the registry, in threads of this process."""

    def __init__(self, registry: ExtractorRegistry, inference: Inference) -> None:
        self._registry = registry
        self._inference = inference

    async def run(
        self,
        *,
        extractor: str,
        version: str,
        parameters: Mapping[str, Any],
        namespace_id: str,
        rows: AsyncIterator[Sequence[SourceRow]],
        run_id: str | None = None,
    ) -> AsyncIterator[Sequence[Segment | RowFailure]]:
        """Yield one block of results per block of rows, in order; a row's results stay together.

        The next block is read and computed while the consumer works on this one, and no further one.
        """
        run = self.prepare(extractor, version, parameters, namespace_id)
        source = aiter(rows)
        ahead = asyncio.create_task(_next_block(source, run))
        try:
            while (block := await ahead) is not None:
                ahead = asyncio.create_task(_next_block(source, run))
                yield block
        finally:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)

    def prepare(self, extractor: str, version: str, parameters: Mapping[str, Any], namespace_id: str) -> Run:
        """Return the run of one extractor; call it on the event loop that inference runs on.

        Raises NotFoundError, SpecError and RefusedError for what cannot run here.
        """
        archive = self._registry.archive(extractor, version)
        if archive.source != "builtin":
            raise RefusedError(
                f"{extractor}@{version} is a custom extractor; its code runs on a Ray cluster only, never in "
                "this process"
            )
        indexes = self._registry.vector_indexes(extractor, version, parameters)
        inference = _blocking(self._inference, namespace_id)
        steps = archive.build_steps(self._registry.parameters(extractor, version, parameters), _Services(inference))
        return Run(archive, indexes, steps, inference.identity)


async def _next_block(source: AsyncIterator[Sequence[SourceRow]], run: Run) -> Block | None:
    try:
        rows = await anext(source)
    except StopAsyncIteration:
        return None
    return await asyncio.to_thread(run.block, rows)


class _BlockingInference:
    """Inference for processors: called from their thread, computed through the event loop."""

    def __init__(self, inference: Inference, loop: asyncio.AbstractEventLoop, namespace_id: str) -> None:
        self._inference = inference
        self._loop = loop
        self._namespace_id = namespace_id

    def embed(self, model: str, inputs: Sequence[str], *, purpose: str) -> list[Vector]:
        return self._result(self._inference.embed(model, inputs, purpose=purpose, namespace_id=self._namespace_id))

    def identity(self, model: str) -> str:
        return self._result(self._inference.identity(model, namespace_id=self._namespace_id))

    def _result(self, call: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed():
            call.close()
            raise UnavailableError("the server is stopping; the batch goes on when it is up")
        try:
            return asyncio.run_coroutine_threadsafe(call, self._loop).result()
        except CancelledError:
            raise UnavailableError("the server is stopping; the batch goes on when it is up") from None


class _Services:
    """`container` of `build_steps`."""

    def __init__(self, inference: _BlockingInference) -> None:
        self.inference = inference


def container(inference: Inference, namespace_id: str) -> Container:
    """The platform's services for an archive's code, which calls them from threads and never from this event loop."""
    return _Services(_blocking(inference, namespace_id))


def _blocking(inference: Inference, namespace_id: str) -> _BlockingInference:
    return _BlockingInference(inference, asyncio.get_running_loop(), namespace_id)


class Run:
    """One run of one extractor with fixed parameters; its methods are called in threads, one at a time."""

    def __init__(
        self,
        archive: Archive,
        indexes: Sequence[VectorIndex],
        steps: Sequence[PipelineStep],
        identity: Callable[[str], str],
    ) -> None:
        self._archive = archive
        self._identity = identity
        self._identities: dict[str, str] = {}
        self._indexes = indexes
        self._steps = steps
        self._processors: list[Processor] | None = None

    def block(self, rows: Sequence[SourceRow]) -> Block:
        """The segments and failures of a block, row by row in order."""
        results: list[list[Segment | RowFailure]] = [[] for _ in rows]
        ready: list[int] = []
        for position, row in enumerate(rows):
            failure = self._missing(row)
            if failure is None:
                ready.append(position)
            else:
                results[position] = [failure]
        size = self._archive.batch_size
        for start in range(0, len(ready), size):
            for position, made in self._process(rows, ready[start : start + size]):
                results[position] = made
        return [result for row in results for result in row]

    def _missing(self, row: SourceRow) -> RowFailure | None:
        required = self._archive.input_schema.get("required") or ()
        missing = [name for name in required if row.inputs.get(name) is None]
        if not missing:
            return None
        names = ", ".join(repr(name) for name in missing)
        return RowFailure(row.id, "MissingInput", f"{self._archive.name} needs {names}; the source has no such value")

    def _process(
        self, rows: Sequence[SourceRow], positions: Sequence[int]
    ) -> Iterator[tuple[int, list[Segment | RowFailure]]]:
        """Results by row position; a batch that raises is halved until the row that did it stands alone."""
        try:
            yield from self._batch(rows, positions)
        except (UnavailableError, MemoryError):
            raise
        except Exception as error:
            if len(positions) > 1:
                half = len(positions) // 2
                yield from self._process(rows, positions[:half])
                yield from self._process(rows, positions[half:])
                return
            row = rows[positions[0]]
            if not isinstance(error, SpecError):
                _log.warning("extracting a row failed", extractor=self._archive.name, source_id=row.id, exc_info=error)
            yield positions[0], [RowFailure(row.id, type(error).__name__, str(error)[:500])]

    def _batch(
        self, rows: Sequence[SourceRow], positions: Sequence[int]
    ) -> Iterator[tuple[int, list[Segment | RowFailure]]]:
        frames = Frames(self._archive, self._indexes, self._embedder)
        if self._processors is None:
            self._processors = [step.build() for step in self._steps]
        frame: pd.DataFrame = frames.of_rows(rows, positions)
        failures: dict[int, str] = {}
        for step, processor in zip(self._steps, self._processors, strict=True):
            frame = frames.apply(step.definition, processor, frame)
            frame = frames.take_out_failures(frame, failures)
        made: dict[int, list[Segment | RowFailure]] = {position: [] for position in positions}
        for position, segment in frames.segments(frame, rows):
            made[position].append(segment)
        for position, message in failures.items():
            kind, _, text = message.partition(": ")
            made[position] = [RowFailure(rows[position].id, kind, text)]
        # All results exist before the first is handed out: a batch succeeds or is halved, never both.
        yield from made.items()

    def _embedder(self, index: VectorIndex) -> str | None:
        """What makes the vectors of an index; asked for after they were made, when its model is loaded."""
        model = index.inference_model
        if model and model not in self._identities:
            self._identities[model] = self._identity(model)
        return self._identities.get(model)
