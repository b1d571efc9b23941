"""The Ray job of one run: reads pieces from the mailbox, runs them on Ray Data, writes the answers.

Run as `python -m mixpeek_operator.extraction.ray.job --run <prefix>` by `jobs.RayJobRunner`; where the blob store and
the models are comes from `MIXPEEK_*` variables.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from functools import partial

import structlog

from mixpeek_operator.core import logging
from mixpeek_operator.core.errors import MixpeekError
from mixpeek_operator.core.settings import Settings
from mixpeek_operator.extraction.ray import process, wire
from mixpeek_operator.extraction.ray.data import RayDataRunner
from mixpeek_operator.extraction.ray.mailbox import END, Control, Mailbox
from mixpeek_operator.extraction.registry import ExtractorRegistry
from mixpeek_operator.ports.compute import SourceRow

_log = structlog.get_logger(__name__)
_POLL_S = 0.1
_SLOWEST_POLL_S = 1.0
_IDLE_S = 600.0
"""Seconds without a piece after which the server is taken for dead and its run for given up."""


class Job:
    """One run; over when the last piece is answered, the run is cleared, or nobody feeds it."""

    def __init__(self, mailbox: Mailbox, runner: RayDataRunner) -> None:
        self._mailbox = mailbox
        self._runner = runner
        self._under_way: deque[tuple[str, int]] = deque()

    async def run(self) -> None:
        """Answer every piece. An error that ends the run is the answer to the piece it met."""
        control = await self._mailbox.control()
        if control is None:
            return
        work = control.work
        results = self._runner.run(
            extractor=work.extractor,
            version=work.version,
            parameters=work.parameters,
            namespace_id=work.namespace_id,
            rows=self._rows(control),
        )
        try:
            async for block in results:
                await self._answer(wire.answer(block))
        except MixpeekError as error:
            _log.error("the run failed", error=str(error))
            if not self._under_way:
                # It met no piece yet; whoever waits for the first one is told.
                self._under_way.append((control.epoch, 0))
            await self._answer(wire.failed(error))

    async def _answer(self, answer: bytes) -> None:
        epoch, number = self._under_way.popleft()
        await self._mailbox.put(epoch, "out", number, answer)

    async def _rows(self, control: Control) -> AsyncIterator[Sequence[SourceRow]]:
        epoch, number = control.epoch, 0
        poll_s, fed = _POLL_S, time.monotonic()
        while True:
            piece = await self._mailbox.get(epoch, "in", number)
            if piece == END:
                return
            if piece is not None:
                self._under_way.append((epoch, number))
                yield wire.rows_of(piece)
                number += 1
                poll_s, fed = _POLL_S, time.monotonic()
                continue
            current = await self._mailbox.control()
            if current is None:
                return
            if current.epoch != epoch:
                epoch, number = current.epoch, 0
                continue
            if time.monotonic() - fed > _IDLE_S:
                _log.warning("nobody feeds this run; giving it up")
                await self._mailbox.clear()
                return
            await asyncio.sleep(poll_s)
            poll_s = min(poll_s * 1.5, _SLOWEST_POLL_S)


async def _main(prefix: str) -> None:
    settings = Settings()
    blobs = process.open_blobs(settings)
    try:
        models = process.Models.of(settings)
        registry = ExtractorRegistry(models.registry())
        runner = RayDataRunner(registry, partial(process.runner, models), workers=process.workers(settings), ahead=16)
        await Job(Mailbox(blobs, prefix), runner).run()
    finally:
        await blobs.close()


def main() -> None:
    """Run the job that the command line names."""
    import ray

    parser = argparse.ArgumentParser(description="Runs an extractor over the pieces of one run.")
    parser.add_argument("--run", required=True, help="Prefix of the run in the blob store.")
    prefix = parser.parse_args().run
    logging.configure("info", "console")
    ray.init(namespace=prefix.partition("/")[0], log_to_driver=False)
    try:
        asyncio.run(_main(prefix))
    except MixpeekError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
