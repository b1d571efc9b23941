"""History of executions, written behind the answers so that it never adds to their latency."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final

import structlog

from mixpeek_operator.core.errors import MixpeekError, NotFoundError
from mixpeek_operator.core.filters import Filter, all_of, equals
from mixpeek_operator.core.listing import ListPage, ListQuery
from mixpeek_operator.ports.metadata import MetadataStore, Write
from mixpeek_operator.retrieval import pagination

TABLE: Final = "executions"
_QUEUE: Final = 10_000
_BATCH: Final = 1000
_AT_ONCE: Final = 20
_GATHER_S: Final = 0.25
"""Longest time a record waits to be written; the most history that a killed process loses."""

Made = Callable[[], Mapping[str, Any]]
"""Makes a record, behind the answer."""
_log = structlog.get_logger(__name__)


class History:
    """Records of executions. `close` writes what is still waiting."""

    def __init__(self, metadata: MetadataStore) -> None:
        self._metadata = metadata
        self._queue: asyncio.Queue[tuple[str, str, Made]] = asyncio.Queue(_QUEUE)
        self._writer: asyncio.Task[None] | None = None
        self._dropped = 0
        self._wanted = asyncio.Event()

    def add(self, namespace_id: str, execution_id: str, record: Made) -> None:
        """Take a record, to be made and written soon.

        When more wait than memory should hold, it is dropped and counted.
        """
        try:
            self._queue.put_nowait((namespace_id, execution_id, record))
        except asyncio.QueueFull:
            self._dropped += 1
            _log.warning("execution_history_dropped", dropped=self._dropped)
            return
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write(), name="execution-history")

    async def flush(self) -> None:
        """Return when everything taken so far is written."""
        if self._writer is not None and not self._writer.done():
            self._wanted.set()
            try:
                await self._queue.join()
            finally:
                self._wanted.clear()

    async def close(self) -> None:
        await self.flush()
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
            self._writer = None

    async def find(self, namespace_id: str, retriever_id: str | None, query: ListQuery) -> ListPage:
        """Return executions, newest first unless sorted; of one retriever, or of all with None.

        Raises BadRequestError for a cursor of another list.
        """
        await self.flush()
        scope: Filter | None = None if retriever_id is None else equals("retriever_id", retriever_id)
        condition = all_of(scope, query.filters)
        same = pagination.query_hash([namespace_id, retriever_id, repr(query.filters), list(query.sort)])
        offset = query.offset if query.cursor is None else pagination.decode(query.cursor, "list", same)["o"]
        records = await self._metadata.find(
            TABLE,
            namespace_id,
            filter=condition,
            sort=query.sort or (("created_at", "desc"),),
            limit=query.limit,
            offset=offset,
        )
        total = await self._metadata.count(TABLE, namespace_id, condition)
        end = offset + len(records)
        cursor = pagination.encode({"o": end}, "list", same) if end < total and records else None
        return ListPage([dict(record.body) for record in records], total, cursor)

    async def get(self, namespace_id: str, execution_id: str) -> dict[str, Any]:
        """Return one execution. Raises NotFoundError."""
        await self.flush()
        record = await self._metadata.get(TABLE, namespace_id, execution_id)
        if record is None:
            raise NotFoundError(f"there is no execution {execution_id!r} in this namespace", code="execution_not_found")
        return dict(record.body)

    async def _write(self) -> None:
        while True:
            taken = [await self._queue.get()]
            while len(taken) < _BATCH and not self._queue.empty():
                taken.append(self._queue.get_nowait())
            try:
                await self._metadata.transact([write async for write in _made(taken)])
            except MixpeekError as error:
                # History is not worth failing a search for; the store's own health check reports the outage.
                _log.warning("execution_history_not_written", count=len(taken), reason=error.message)
            finally:
                for _ in taken:
                    self._queue.task_done()
            # Gathering for a moment makes one transaction of many answers, unless somebody wants to read them.
            with contextlib.suppress(TimeoutError):
                # Not wait_for: before Python 3.12 it can swallow the cancellation of `close`.
                async with asyncio.timeout(_GATHER_S):
                    await self._wanted.wait()


async def _made(taken: Sequence[tuple[str, str, Made]]) -> AsyncIterator[Write]:
    """Make the records, a few at a time: requests wait for all that is done at once."""
    for number, (namespace_id, id, made) in enumerate(taken):
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
        yield Write(TABLE, namespace_id, id, made(), if_version=0)
