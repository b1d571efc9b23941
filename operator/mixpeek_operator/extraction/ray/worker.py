"""What a worker process of Ray holds: one extractor with its models, loaded once and used for piece after piece."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from mixpeek_operator.core.errors import InternalError, MixpeekError, UnavailableError
from mixpeek_operator.extraction.ray import wire
from mixpeek_operator.extraction.runner import InProcessRunner, Run

_log = structlog.get_logger(__name__)

Parts = Callable[[], InProcessRunner]
"""Makes the runner of a worker process, with its models; a function of a module, since its name travels."""


@dataclass(frozen=True, slots=True)
class Work:
    """One run of one extractor."""

    extractor: str
    version: str
    parameters: Mapping[str, Any]
    namespace_id: str


class Worker:
    """Answers pieces of rows, one at a time. An error is an answer, so that only a death is a failure to Ray."""

    def __init__(self, work: Work, parts: Parts) -> None:
        self._work = work
        self._parts = parts
        self._run: Run | None = None
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="mixpeek-inference", daemon=True).start()

    def answer(self, piece: bytes) -> bytes:
        """Return the packed results of a piece, or the packed error that ends the run; nothing for nothing."""
        if not piece:
            return b""
        try:
            if self._run is None:
                self._run = asyncio.run_coroutine_threadsafe(self._prepare(), self._loop).result()
            return wire.answer(self._run.block(wire.rows_of(piece)))
        except MixpeekError as error:
            return wire.failed(error)
        except MemoryError:
            return wire.failed(UnavailableError("a Ray worker has not enough memory; give it more, or smaller objects"))
        except Exception as error:
            _log.exception("extracting failed", extractor=self._work.extractor)
            return wire.failed(InternalError(f"{self._work.extractor} failed in a Ray worker: {error!r:.500}"))

    async def _prepare(self) -> Run:
        work = self._work
        return self._parts().prepare(work.extractor, work.version, work.parameters, work.namespace_id)
