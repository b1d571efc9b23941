"""The operator as a process: its settings, its log, and the signals that end it."""

from __future__ import annotations

import asyncio
from typing import Any

from mixpeek_operator.cli.process import event_loop, settings_of, settle_collector, signals
from mixpeek_operator.controller import operate
from mixpeek_operator.core import logging
from mixpeek_operator.core.settings import Settings


def run(**given: Any) -> None:
    """Run one replica until a signal; a second signal ends the process at once.

    Raises BadRequestError for a wrong setting, SpecError when no cluster is configured.
    """
    settings = settings_of(resources="kubernetes", **given)
    logging.configure(settings.log_level, settings.log_format)
    settle_collector()
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        runner.run(_operate(settings))


async def _operate(settings: Settings) -> None:
    await operate(settings, signals())
