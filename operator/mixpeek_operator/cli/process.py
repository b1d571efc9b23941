"""What the programs that run have in common: their settings, their event loop and the signals that end them."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import signal
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from mixpeek_operator.core.errors import BadRequestError
from mixpeek_operator.core.settings import Settings

_COLLECT = (20_000, 20, 20)
"""Objects made, and younger generations looked through, before a generation of the heap is."""


def settings_of(**given: Any) -> Settings:
    """Return the settings of the environment and of the options given. BadRequestError lists what is wrong."""
    chosen = {name: value for name, value in given.items() if value is not None}
    try:
        return Settings(**chosen)
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_input=False, include_url=False):
            name = str(problem["loc"][0])
            source = f"--{name.replace('_', '-')}" if name in chosen else f"MIXPEEK_{name.upper()}"
            lines.append(f"{source}: {problem['msg']}")
        raise BadRequestError("; ".join(lines), code="setting_invalid") from None


def settle_collector() -> None:
    """Let the garbage collector leave alone what was loaded, and look less often at what comes.

    Every object from the API server is some hundred small ones that live for ever or die at once; with Python's own
    thresholds a tenth of the time goes into searching the whole heap for circles that are not there.
    """
    gc.freeze()
    gc.set_threshold(*_COLLECT)


def event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the faster event loop where there is one; it does not exist for every platform."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop


def signals() -> asyncio.Event:
    """Return an event that SIGINT and SIGTERM set; a second signal ends the process at once."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def received() -> None:
        stop.set()
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(each)

    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, received)
    return stop
