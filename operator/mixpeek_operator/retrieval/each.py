"""Calling something once for each document: several calls at a time, answers in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE: Final = 8
"""Calls under way at a time when a stage does not say."""


async def each(items: Sequence[T], call: Callable[[T], Awaitable[R]], *, at_once: int = AT_ONCE) -> list[R]:
    """Return `call` of every item, in order, with at most `at_once` calls under way.

    The first failure cancels the calls under way, starts no further one, and is raised as it is.
    """
    waiting = iter(enumerate(items))
    answers: dict[int, R] = {}

    async def work() -> None:
        for position, item in waiting:
            answers[position] = await call(item)

    workers = [asyncio.create_task(work()) for _ in range(min(at_once, len(items)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [answers[position] for position in range(len(items))]
