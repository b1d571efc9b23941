"""MetadataStore on MongoDB: a collection per table, each indexed on namespace_id.

On a replica set or a sharded cluster `transact` is a transaction of the server. A server without transactions
(standalone, or another that speaks the protocol) gets the same promise from `_mongo_commits`, with one difference:
between the moment a transaction commits and the moment its last document is unlocked, `find`, `count` and `total` may
show part of it. `get` and `get_many` never do, and what a caller did itself it always sees.

Insertion order is by the clock of the inserting process in microseconds: processes whose clocks differ by more than
lies between two insertions may order these two the other way round.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import pymongo
from bson.errors import BSONError
from pymongo import ASCENDING, AsyncMongoClient, DeleteOne, ReturnDocument
from pymongo.errors import DuplicateKeyError, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from mixpeek_operator.adapters._mongo_commits import FREE, PATIENCE_S, Collection, Commits, pause
from mixpeek_operator.adapters._mongo_errors import translate
from mixpeek_operator.adapters._mongo_records import (
    Document,
    body_of,
    contents,
    is_plain_path,
    key_of,
    query_of,
    record_of,
    refusal,
    replacement,
)
from mixpeek_operator.adapters._record_order import ordered, sort_key
from mixpeek_operator.core.errors import UnavailableError
from mixpeek_operator.core.filters import Filter, fields, matches
from mixpeek_operator.ports.metadata import Record, Write

_DATABASE = "mixpeek"
_TRANSACTIONS = "_transactions"
_AWAY_MS = 3_000
"""Milliseconds after which a server that cannot be reached is away."""
_BEAT_MS = 10_000
"""Milliseconds after which a server that does not answer the client's heartbeat is away, whatever it is doing."""
_ANSWER_MS = 60_000
_PAGE = 1000
_SWEEP_S = 5.0
_INDEXES = (
    ("namespace_id", "sequence"),
    ("namespace_id", "body.bucket_id", "sequence"),
    ("namespace_id", "body.batch_id", "sequence"),
    ("namespace_id", "encoded.name"),
    ("body.state", "sequence"),
)
_SETTINGS: dict[str, Any] = {
    "write_concern": WriteConcern("majority", j=True),
    "read_concern": ReadConcern("majority"),
    "read_preference": ReadPreference.PRIMARY,
}


class MongoMetadata:
    """Records in the database that the path of `uri` names (default: mixpeek); see ports.metadata.MetadataStore."""

    def __init__(self, uri: str) -> None:
        self._place = "the configured hosts"
        with self._edge():
            self._client: AsyncMongoClient[Document] = AsyncMongoClient(
                uri,
                serverSelectionTimeoutMS=_AWAY_MS,
                connectTimeoutMS=_BEAT_MS,
                socketTimeoutMS=_ANSWER_MS,
                appname="mixpeek-operator",
                connect=False,
            )
            hosts = pymongo.uri_parser.parse_uri(uri)["nodelist"] if "+srv" not in uri[:12] else []
            self._place = ",".join(f"{host}:{port}" for host, port in hosts) or self._place
            self._database = self._client.get_default_database(_DATABASE, **_SETTINGS)
        self._commits = Commits(self._table, self._database[_TRANSACTIONS], self._number)
        self._ready: set[str] = set()
        self._transactional: bool | None = None
        self._last_number = 0
        self._swept_at = 0.0

    async def get(self, table: str, namespace_id: str, id: str) -> Record | None:
        found = await self.get_many(table, namespace_id, [id])
        return found[0] if found else None

    async def get_many(self, table: str, namespace_id: str, ids: Sequence[str]) -> list[Record]:
        found: dict[str, Record] = {}
        with self._edge():
            collection = await self._table(table)
            for start in range(0, len(ids), _PAGE):
                keys = [key_of(namespace_id, id) for id in ids[start : start + _PAGE]]
                for document in await self._settled(collection, keys):
                    found[document["id"]] = record_of(document)
        return [found[id] for id in ids if id in found]

    async def put(
        self, table: str, namespace_id: str, id: str, body: Mapping[str, Any], *, if_version: int | None = None
    ) -> Record:
        (record,) = await self.transact([Write(table, namespace_id, id, body, if_version)])
        assert record is not None
        return record

    async def delete(self, table: str, namespace_id: str, id: str) -> bool:
        with self._edge():
            return await self._remove(Write(table, namespace_id, id, None))

    async def delete_where(self, table: str, namespace_id: str, filter: Filter | None = None) -> int:
        deleted = 0
        end = time.monotonic() + PATIENCE_S
        with self._edge():
            collection = await self._table(table)
            query, exact = await self._query(collection, namespace_id, filter)
            while True:
                if exact:
                    deleted += (await collection.delete_many({**query, "lock": FREE})).deleted_count
                else:
                    deleted += await self._delete_matching(collection, query, filter)
                locks = {
                    found["lock"]
                    async for found in collection.find({**query, "lock": {"$exists": True}})
                    if exact or matches(filter, body_of(found))
                }
                if not locks:
                    return deleted
                for lock in locks:
                    await self._wait(lock, table, end)

    async def find(
        self,
        table: str,
        namespace_id: str,
        *,
        filter: Filter | None = None,
        sort: Sequence[tuple[str, str]] = (),
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Record]:
        if limit == 0:
            return []
        end = None if limit is None else offset + limit
        with self._edge():
            collection = await self._table(table)
            query, exact = await self._query(collection, namespace_id, filter)
            if sort:
                wanted = {"id", "encoded", *(f"body.{field.split('.')[0]}" for field, _ in sort)}
                plain = exact and all(is_plain_path(field) for field, _ in sort)
                keyed = [
                    (sort_key(body, sort), id)
                    async for id, body in self._bodies(collection, query, sorted(wanted) if plain else None)
                    if exact or matches(filter, body)
                ]
                ids = ordered(keyed, sort)[offset:end]
                return await self.get_many(table, namespace_id, ids)
            cursor = collection.find(query).sort("sequence", ASCENDING)
            if exact:
                return [record_of(found) async for found in cursor.skip(offset).limit(limit or 0)]
            page: list[Record] = []
            async with cursor:
                async for found in cursor:
                    if end is not None and len(page) >= end:
                        break
                    record = record_of(found)
                    if matches(filter, record.body):
                        page.append(record)
            return page[offset:]

    async def count(self, table: str, namespace_id: str, filter: Filter | None = None) -> int:
        with self._edge():
            collection = await self._table(table)
            query, exact = await self._query(collection, namespace_id, filter)
            if exact:
                return await collection.count_documents(query)
            return len([1 async for _, body in self._bodies(collection, query) if matches(filter, body)])

    async def total(self, table: str, namespace_id: str, field: str, filter: Filter | None = None) -> tuple[int, float]:
        count, sum = 0, 0.0
        with self._edge():
            collection = await self._table(table)
            query, exact = await self._query(collection, namespace_id, filter)
            if exact and is_plain_path(field) and "." not in field:
                group = {"_id": None, "sum": {"$sum": f"$body.{field}"}}
                summed = await (await collection.aggregate([{"$match": query}, {"$group": group}])).to_list()
                return await collection.count_documents(query), float(summed[0]["sum"]) if summed else 0.0
            async for _, body in self._bodies(collection, query):
                if matches(filter, body):
                    count += 1
                    value = body.get(field)
                    sum += value if isinstance(value, int | float) and not isinstance(value, bool) else 0
        return count, sum

    async def transact(self, writes: Sequence[Write]) -> list[Record | None]:
        with self._edge():
            if len(writes) == 1:
                return [await self._write(writes[0])]
            for table in {write.table for write in writes}:
                await self._table(table)
            if self._transactional:
                return await self._commits.retry(self._commits.by_server, writes)
            # A caller that is cancelled must not leave locks behind.
            return await asyncio.shield(self._commits.retry(self._commits.by_locks, writes))

    async def claim(
        self, table: str, *, states: Sequence[str], owner: str, lease_s: float, now: float
    ) -> tuple[str, Record] | None:
        due = {"body.state": {"$in": list(states)}, "body.lease_until": {"$not": {"$gt": now}}}
        with self._edge():
            collection = await self._table(table)
            await self._sweep()
            for last in (False, True):
                found = await collection.find_one_and_update(
                    {**due, "lock": FREE},
                    {
                        "$set": {"body.lease_owner": owner, "body.lease_until": now + lease_s},
                        "$inc": {"version": 1},
                    },
                    sort=[("sequence", ASCENDING)],
                    return_document=ReturnDocument.AFTER,
                )
                if found is not None:
                    return found["namespace_id"], record_of(found)
                locked = await collection.find_one({**due, "lock": {"$exists": True}}, {"lock": 1})
                if last or locked is None or not await self._commits.settle(locked["lock"], table):
                    return None
        return None

    async def health(self) -> None:
        with self._edge():
            await self._client.admin.command("ping")

    async def close(self) -> None:
        await self._client.close()

    @contextlib.contextmanager
    def _edge(self) -> Iterator[None]:
        try:
            yield
        except (PyMongoError, BSONError) as error:
            raise translate(error, self._place) from error

    def _number(self) -> int:
        self._last_number = max(self._last_number + 1, time.time_ns() // 1000)
        return self._last_number

    async def _table(self, table: str) -> Collection:
        collection = self._database[table]
        if self._transactional is None:
            hello = await self._client.admin.command("hello")
            self._transactional = "setName" in hello or hello.get("msg") == "isdbgrid"
            await self._commits.sweep()
        if table not in self._ready:
            for names in _INDEXES:
                await collection.create_index([(name, ASCENDING) for name in names])
            if not self._transactional:
                await collection.create_index([("lock", ASCENDING)])
            self._ready.add(table)
        return collection

    async def _query(self, collection: Collection, namespace_id: str, filter: Filter | None) -> tuple[Document, bool]:
        """Return a query, and whether it lets through nothing but what the filter does."""
        mine: Document = {"namespace_id": namespace_id, "hidden": None}
        names = [field.split(".")[0].removesuffix("[]") for field in fields(filter)]
        if names:
            odd = {"namespace_id": namespace_id, "encoded.name": {"$in": names}}
            if await collection.find_one(odd, {"_id": 1}) is not None:
                return mine, False
        made = query_of(filter)
        return ({**mine, "$and": [made.body]} if made.body else mine), made.exact

    async def _bodies(
        self, collection: Collection, query: Document, wanted: Sequence[str] | None = None
    ) -> AsyncIterator[tuple[str, Document]]:
        """Yield (id, body) in the order of insertion, holding one."""
        projection = dict.fromkeys(wanted or ("id", "body", "encoded"), 1)
        async for document in collection.find(query, projection).sort("sequence", ASCENDING):
            yield document["id"], body_of(document)

    async def _delete_matching(self, collection: Collection, query: Document, filter: Filter | None) -> int:
        doomed = [
            DeleteOne({"_id": found["_id"], "version": found["version"], "lock": FREE})
            async for found in collection.find(query)
            if matches(filter, body_of(found))
        ]
        return (await collection.bulk_write(doomed, ordered=False)).deleted_count if doomed else 0

    async def _settled(self, collection: Collection, keys: Sequence[str]) -> list[Document]:
        """Return documents as the last committed transaction left them."""
        query: Document = {"_id": keys[0]} if len(keys) == 1 else {"_id": {"$in": keys}}
        found = await collection.find(query).to_list()
        locks = {document["lock"] for document in found if "lock" in document}
        if any([await self._commits.settle(lock, collection.name) for lock in locks]):
            found = await collection.find(query).to_list()
        return [document for document in found if "hidden" not in document]

    async def _write(self, write: Write) -> Record | None:
        """One write of one document, which any server does at once or not at all."""
        if write.body is None:
            await self._remove(write)
            return None
        collection = await self._table(write.table)
        key = key_of(write.namespace_id, write.id)
        own = {"namespace_id": write.namespace_id, "id": write.id}
        end = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(DuplicateKeyError):
                if write.if_version == 0:
                    await collection.insert_one(
                        {"_id": key, **own, "sequence": self._number(), "version": 1, **contents(write.body)}
                    )
                    return Record(write.id, 1, dict(write.body))
                held: Document = {"_id": key, "lock": FREE}
                update = {**replacement(write.body), "$inc": {"version": 1}}
                if write.if_version is None:
                    update["$setOnInsert"] = {**own, "sequence": self._number()}
                else:
                    held["version"] = write.if_version
                done = await collection.find_one_and_update(
                    held,
                    update,
                    upsert=write.if_version is None,
                    return_document=ReturnDocument.AFTER,
                )
                if done is not None:
                    return Record(write.id, int(done["version"]), dict(write.body))
            await self._refused(collection, key, write, end)

    async def _remove(self, write: Write) -> bool:
        collection = await self._table(write.table)
        key = key_of(write.namespace_id, write.id)
        end = time.monotonic() + PATIENCE_S
        held: Document = {"_id": key, "lock": FREE}
        if write.if_version is not None:
            held["version"] = write.if_version
        while not (await collection.delete_one(held)).deleted_count:
            if not await self._refused(collection, key, write, end):
                return False
        return True

    async def _refused(self, collection: Collection, key: str, write: Write, end: float) -> bool:
        """Raise why a write found nothing to change; else wait, and say whether there is a document."""
        found = await collection.find_one({"_id": key}, {"version": 1, "lock": 1, "hidden": 1})
        if found is not None and "lock" in found:
            await self._wait(found["lock"], write.table, end)
            return True
        version = 0 if found is None else int(found["version"])
        if write.if_version is not None and version != write.if_version:
            raise refusal(write, version)
        return found is not None

    async def _wait(self, lock: str, table: str, end: float) -> None:
        if not await self._commits.settle(lock, table):
            if time.monotonic() > end:
                raise UnavailableError(f"{table} is locked by another writer; try again")
            await pause()

    async def _sweep(self) -> None:
        if time.monotonic() - self._swept_at >= _SWEEP_S:
            self._swept_at = time.monotonic()
            await self._commits.sweep()
