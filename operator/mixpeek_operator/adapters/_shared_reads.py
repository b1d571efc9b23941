"""Equal reads made once: what many ask at the same time is asked for one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedReads(Generic[T]):
    """Calls `read` with a key; who comes while it is under way shares the next call with all the others.

    That one begins after they asked, so nobody's answer is older than the question.
    """

    def __init__(self, read: Callable[[str], Awaitable[T]]) -> None:
        self._read = read
        self._under_way: dict[str, asyncio.Task[T]] = {}
        self._next: dict[str, asyncio.Task[T]] = {}

    async def __call__(self, key: str) -> T:
        """Return what `read` says of the key; raises what it raises."""
        shared = self._next.get(key)
        if shared is None:
            shared = self._next[key] = asyncio.create_task(self._call(key, self._under_way.get(key)))
            shared.add_done_callback(partial(self._ended, key))
        # One that gives up must not take the answer from the others.
        return await asyncio.shield(shared)

    async def _call(self, key: str, before: asyncio.Task[T] | None) -> T:
        if before is not None:
            await asyncio.wait([before])
        self._under_way[key] = self._next.pop(key)
        return await self._read(key)

    def _ended(self, key: str, task: asyncio.Task[T]) -> None:
        for tasks in (self._next, self._under_way):
            if tasks.get(key) is task:
                del tasks[key]
        if not task.cancelled():
            # Those who asked may all have given up; an error is then nobody's.
            task.exception()
