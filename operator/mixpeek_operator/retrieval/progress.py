"""The progress of an execution as a stream of events, each a JSON object."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson

from mixpeek_operator.core.errors import MixpeekError
from mixpeek_operator.retrieval.execute import Watch

_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY


async def stream(run: Callable[[Watch], Awaitable[bytes]]) -> AsyncIterator[bytes]:
    """Yield the events of an execution; the last one holds the answer that `run` returns, or its error.

    stage_start and stage_complete (or stage_error) of every stage, then execution_complete or execution_error.
    Who stops listening stops the execution.
    """
    events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    task = asyncio.ensure_future(run(events.put_nowait))
    task.add_done_callback(lambda _: events.put_nowait(None))
    try:
        while (event := await events.get()) is not None:
            yield orjson.dumps(event, option=_OPTIONS)
        try:
            answer = task.result()
        except MixpeekError as error:
            failed = {"message": error.message, "type": error.type, "code": error.code}
            yield orjson.dumps({"event_type": "execution_error", "error": failed})
        else:
            yield b'{"event_type":"execution_complete",' + answer[1:]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
