"""Several writes as one on a MongoDB without transactions, out of changes of one document each.

A transaction has a record in `_transactions`. First every document it touches is locked: new ones are inserted
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
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError

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


class Commits:
    """`open` gives the collection of a table; `records` holds the transactions; `number` numbers new documents."""

    def __init__(self, open: Open, records: Collection, number: Callable[[], int]) -> None:
        self._open = open
        self._records = records
        self._number = number

    async def run(self, writes: Sequence[Write]) -> list[Record | None]:
        """Do all writes or none. Raises ConflictError, AlreadyExistsError; UnavailableError when locks stay."""
        end = time.monotonic() + PATIENCE_S
        while True:
            found = await look(self._open, writes)
            locks = {document["lock"]: place[0] for place, document in found.items() if "lock" in document}
            if not locks:
                changes, answers = fold(writes, {place: document["version"] for place, document in found.items()})
                if not changes or await self._commit(changes):
                    return answers
            for lock, table in locks.items():
                await self.settle(lock, table)
            if time.monotonic() > end:
                raise UnavailableError(f"{writes[0].table} {writes[0].id!r} is locked by other writers; try again")
            await pause()

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
            if fresh:
                try:
                    await collection.insert_many(fresh, ordered=False)
                except BulkWriteError as error:
                    if only_duplicates(error):
                        return False
                    raise
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


async def write_all(
    open: Open, writes: Sequence[Write], number: Callable[[], int], session: Any
) -> list[Record | None] | None:
    """Do all writes within a server's transaction; None when a document changed meanwhile, and it must be aborted."""
    found = await look(open, writes, session)
    changes, answers = fold(writes, {place: document["version"] for place, document in found.items()})
    for table, group in by_table(changes):
        collection = await open(table)
        fresh = [new_document(change, number()) for change in group if not change.old]
        if fresh:
            await collection.insert_many(fresh, session=session)
        held = [change for change in group if change.old]
        if held:
            done = await collection.bulk_write([_step(change) for change in held], session=session)
            if done.matched_count + done.deleted_count != len(held):
                return None
    return answers


async def look(open: Open, writes: Sequence[Write], session: Any = None) -> dict[tuple[str, str], Document]:
    """Return versions and locks of the documents that writes are about, by table and key."""
    found: dict[tuple[str, str], Document] = {}
    for table, group in itertools.groupby(sorted(writes, key=lambda write: write.table), lambda write: write.table):
        collection = await open(table)
        keys = list({key_of(write.namespace_id, write.id) for write in group})
        async for document in collection.find({"_id": {"$in": keys}}, {"version": 1, "lock": 1}, session=session):
            found[table, document["_id"]] = document
    return found


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


def only_duplicates(error: BulkWriteError) -> bool:
    """Whether nothing but keys that exist kept documents from being inserted."""
    details: Mapping[str, Any] = error.details or {}
    failed = details.get("writeErrors") or []
    return bool(failed) and all(item.get("code") == DUPLICATE for item in failed)


async def pause() -> None:
    """Let other writers finish; random, so that two that met do not meet again."""
    await asyncio.sleep(random.uniform(0.005, 0.05))  # noqa: S311 - no secret


def _mark(lock: str, change: Change) -> Document:
    if change.write.body is None:
        return {"lock": lock, "doomed": True}
    return {"lock": lock, "next": {"version": change.new, **contents(change.write.body)}}


def _step(change: Change) -> UpdateOne | DeleteOne:
    held = {"_id": change.key, "version": change.old}
    if change.write.body is None:
        return DeleteOne(held)
    update = replacement(change.write.body)
    update["$set"]["version"] = change.new
    return UpdateOne(held, update)
