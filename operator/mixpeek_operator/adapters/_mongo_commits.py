"""Several writes as one on MongoDB: in a transaction of the server, or without, out of changes of one document each.

Without, a transaction has a record in `_transactions`. First every document it touches is locked: new ones are inserted
`hidden`, others keep their body and carry the one to come in `next`, or are `doomed`. Turning the record from
`pending` to `committed` is the moment at which all of it holds. Then the documents are unlocked and the record goes.
Whoever meets the lock of a process that died finishes or undoes its work, as the record says; every step may be done
twice and by several at once. A lock without a record is one that was undone.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from pymongo import DeleteOne, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError, PyMongoError

from mixpeek_operator.adapters._mongo_records import Change, Document, contents, fold, key_of, replacement
from mixpeek_operator.core.errors import UnavailableError
from mixpeek_operator.ports.metadata import Record, Write

DUPLICATE = 11000
FREE: Document = {"$exists": False}
STALE_S = 10.0
"""Seconds after which the pending transaction of another process is taken for dead."""
PATIENCE_S = 30.0
_LOCKED = ("lock", "next", "doomed", "hidden")

Collection = AsyncCollection[dict[str, Any]]
Open = Callable[[str], Awaitable[Collection]]
Answers = list[Record | None]


class Changed(Exception):
    """Other writers were in the way, nothing was done: to be tried again. `locks` gives the table of each lock met."""

    def __init__(self, locks: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.locks = locks or {}


class Commits:
    """`open` gives the collection of a table; `records` holds the transactions; `number` numbers new documents."""

    def __init__(self, open: Open, records: Collection, number: Callable[[], int]) -> None:
        self._open = open
        self._records = records
        self._number = number

    async def retry(self, attempt: Callable[[Sequence[Write]], Awaitable[Answers]], writes: Sequence[Write]) -> Answers:
        """Attempt all writes until nothing of others is in the way; UnavailableError when something stays."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await attempt(writes)
            except Changed as changed:
                for lock, table in changed.locks.items():
                    await self.settle(lock, table)
                if time.monotonic() > end:
                    held = f"{writes[0].table} {writes[0].id!r} is held by other writers; try again"
                    raise UnavailableError(held) from changed
            await pause()

    async def by_server(self, writes: Sequence[Write]) -> Answers:
        """Do all writes or none in a transaction of the server. Raises Changed, ConflictError, AlreadyExistsError.

        pymongo's own `with_transaction` would try for two minutes, or wait as long for a server that is away as for
        other writers.
        """
        client, settings = self._records.database.client, self._records
        await client.is_primary
        async with client.start_session() as session:
            await session.start_transaction(settings.read_concern, settings.write_concern, settings.read_preference)
            try:
                answers = await self._write(writes, session)
                await _finish(session)
            except PyMongoError as error:
                if error.has_error_label("TransientTransactionError"):
                    raise Changed from error
                raise
            return answers

    async def by_locks(self, writes: Sequence[Write]) -> Answers:
        """Do all writes or none without the server's help. Raises Changed, ConflictError, AlreadyExistsError."""
        changes, answers = await look(self._open, writes)
        if changes and not await self._commit(changes):
            raise Changed
        return answers

    async def settle(self, lock: str, table: str) -> bool:
        """Finish or undo the transaction behind a lock; False when it may still be running and has not committed."""
        record = await self._records.find_one({"_id": lock})
        if record is None:
            await self._undo(lock, [table])
        elif record["state"] == "committed":
            await self._apply(lock, record["tables"])
        elif record["state"] == "aborted" or await self._abort(lock, record["at"]):
            await self._undo(lock, record["tables"])
        else:
            return False
        return True

    async def sweep(self) -> None:
        """Settle what processes that died have left."""
        async for record in self._records.find({"at": {"$lt": time.time() - STALE_S}}):
            await self.settle(record["_id"], record["tables"][0])

    async def _write(self, writes: Sequence[Write], session: AsyncClientSession) -> Answers:
        """Do all writes within a transaction, which any exception aborts; Changed where reads are not isolated."""
        changes, answers = await look(self._open, writes, session)
        for table, group in by_table(changes):
            collection = await self._open(table)
            fresh = [new_document(change, self._number()) for change in group if not change.old]
            if fresh and not await _insert(collection, fresh, session):
                raise Changed
            held = [change for change in group if change.old]
            if held:
                done = await collection.bulk_write([_step(change) for change in held], session=session)
                if done.matched_count + done.deleted_count != len(held):
                    raise Changed
        return answers

    async def _commit(self, changes: Sequence[Change]) -> bool:
        lock, tables = uuid.uuid4().hex, sorted({change.write.table for change in changes})
        await self._records.insert_one({"_id": lock, "state": "pending", "tables": tables, "at": time.time()})
        if await self._prepare(lock, changes):
            # False when someone took this process for dead.
            done = await self._records.update_one({"_id": lock, "state": "pending"}, {"$set": {"state": "committed"}})
            if done.modified_count:
                await self._apply(lock, tables)
                return True
        await self._undo(lock, tables)
        return False

    async def _prepare(self, lock: str, changes: Sequence[Change]) -> bool:
        """Lock every document; False when one of them has changed meanwhile."""
        for table, group in by_table(changes):
            collection = await self._open(table)
            fresh = [
                {**new_document(change, self._number()), "lock": lock, "hidden": True}
                for change in group
                if not change.old
            ]
            if fresh and not await _insert(collection, fresh):
                return False
            held = [change for change in group if change.old]
            if held:
                done = await collection.bulk_write(
                    [
                        UpdateOne(
                            {"_id": change.key, "version": change.old, "lock": FREE}, {"$set": _mark(lock, change)}
                        )
                        for change in held
                    ],
                    ordered=False,
                )
                if done.matched_count != len(held):
                    return False
        return True

    async def _apply(self, lock: str, tables: Iterable[str]) -> None:
        for table in tables:
            collection = await self._open(table)
            await collection.update_many({"lock": lock, "hidden": True}, {"$unset": {"hidden": "", "lock": ""}})
            writes = []
            async for document in collection.find({"lock": lock, "next": {"$exists": True}}, {"next": 1}):
                coming = document["next"]
                update = {"$set": coming, "$unset": dict.fromkeys(_LOCKED, "")}
                if "encoded" not in coming:
                    update["$unset"]["encoded"] = ""
                writes.append(UpdateOne({"_id": document["_id"], "lock": lock}, update))
            if writes:
                await collection.bulk_write(writes, ordered=False)
            await collection.delete_many({"lock": lock, "doomed": True})
        await self._records.delete_one({"_id": lock})

    async def _undo(self, lock: str, tables: Iterable[str]) -> None:
        for table in tables:
            collection = await self._open(table)
            await collection.delete_many({"lock": lock, "hidden": True})
            await collection.update_many({"lock": lock}, {"$unset": dict.fromkeys(_LOCKED, "")})
        await self._records.delete_one({"_id": lock})

    async def _abort(self, lock: str, at: float) -> bool:
        if time.time() - at < STALE_S:
            return False
        done = await self._records.update_one({"_id": lock, "state": "pending"}, {"$set": {"state": "aborted"}})
        return bool(done.modified_count)


async def look(
    open: Open, writes: Sequence[Write], session: AsyncClientSession | None = None
) -> tuple[list[Change], Answers]:
    """Return what writes come to on the documents as they are. Raises Changed, ConflictError, AlreadyExistsError."""
    versions: dict[tuple[str, str], int] = {}
    locks: dict[str, str] = {}
    for table, group in itertools.groupby(sorted(writes, key=lambda write: write.table), lambda write: write.table):
        collection = await open(table)
        keys = list({key_of(write.namespace_id, write.id) for write in group})
        async for document in collection.find({"_id": {"$in": keys}}, {"version": 1, "lock": 1}, session=session):
            versions[table, document["_id"]] = document["version"]
            if "lock" in document:
                locks[document["lock"]] = table
    if locks:
        raise Changed(locks)
    return fold(writes, versions)


def new_document(change: Change, number: int) -> Document:
    """Return the document that a change inserts."""
    write = change.write
    return {
        "_id": change.key,
        "namespace_id": write.namespace_id,
        "id": write.id,
        "sequence": number,
        "version": change.new,
        **contents(write.body or {}),
    }


def by_table(changes: Sequence[Change]) -> list[tuple[str, list[Change]]]:
    """Return changes grouped by their table."""
    tables: dict[str, list[Change]] = {}
    for change in changes:
        tables.setdefault(change.write.table, []).append(change)
    return sorted(tables.items())


async def pause() -> None:
    """Let other writers finish; random, so that two that met do not meet again."""
    await asyncio.sleep(random.uniform(0.005, 0.05))  # noqa: S311 - no secret


async def _finish(session: AsyncClientSession) -> None:
    """Commit, and ask again while the server cannot tell whether it did."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await session.commit_transaction()
        except PyMongoError as error:
            if not error.has_error_label("UnknownTransactionCommitResult") or time.monotonic() > end:
                raise
        await pause()


async def _insert(collection: Collection, fresh: Sequence[Document], session: AsyncClientSession | None = None) -> bool:
    """Insert documents; False when some of them were there."""
    try:
        await collection.insert_many(fresh, ordered=False, session=session)
    except BulkWriteError as error:
        failed = (error.details or {}).get("writeErrors") or [{}]
        if any(item.get("code") != DUPLICATE for item in failed):
            raise
        return False
    return True


def _mark(lock: str, change: Change) -> Document:
    if change.write.body is None:
        return {"lock": lock, "doomed": True}
    return {"lock": lock, "next": {"version": change.new, **contents(change.write.body)}}


def _step(change: Change) -> UpdateOne | DeleteOne:
    held = {"_id": change.key, "version": change.old, "lock": FREE}
    if change.write.body is None:
        return DeleteOne(held)
    update = replacement(change.write.body)
    update["$set"]["version"] = change.new
    return UpdateOne(held, update)
