"""Running an extractor on Ray Data: pieces of rows stream through actors that hold the model.

A piece whose worker dies is given to another one by Ray; when all of Ray's own retries are used up, what is still
open runs again on fresh workers.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from mixpeek_operator.extraction.ray.blocks import Bounds, through
from mixpeek_operator.extraction.ray.stream import DataStream, Workers
from mixpeek_operator.extraction.ray.worker import Parts, Work
from mixpeek_operator.extraction.registry import ExtractorRegistry
from mixpeek_operator.ports.compute import RowFailure, Segment, SourceRow

PIECE_ROWS = 64
"""Rows of a call of a worker: a block becomes several, so that several workers share it."""
PIECE_BYTES = 16 * 1024 * 1024
_ATTEMPTS = 3


class RayDataRunner:
    """Serves `ports.compute.Runner` on the cluster that this process is connected to.

    `parts` makes the runner of a worker process, `ahead` bounds the blocks under way.
    """

    def __init__(
        self, registry: ExtractorRegistry, parts: Parts, *, workers: Workers | None = None, ahead: int = 4
    ) -> None:
        self._registry = registry
        self._parts = parts
        self._workers = workers or Workers()
        self._bounds = Bounds(ahead, PIECE_ROWS, PIECE_BYTES, attempts=_ATTEMPTS)

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
        """Yield one block of results per block of rows, in order; a row's results stay together."""
        self._registry.vector_indexes(extractor, version, parameters)
        work = Work(extractor, version, dict(parameters), namespace_id)
        blocks = through(lambda: DataStream(work, self._parts, self._workers), rows, self._bounds)
        async with contextlib.aclosing(blocks):
            async for block in blocks:
                yield block
