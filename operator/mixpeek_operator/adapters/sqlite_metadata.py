"""MetadataStore on SQLite: one table of JSON records, keyed and indexed by namespace."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import orjson

from mixpeek_operator.adapters._record_memory import RecordMemory
from mixpeek_operator.adapters._record_order import ordered, sort_key
from mixpeek_operator.adapters._sqlite import Database
from mixpeek_operator.adapters._sqlite_filters import Sql, compile_filter, json_path
from mixpeek_operator.core.errors import AlreadyExistsError, ConflictError
from mixpeek_operator.core.filters import Filter, fields, matches
from mixpeek_operator.ports.metadata import Record, Write

_SCHEMA = """
CREATE TABLE records (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    collection TEXT NOT NULL,
    namespace_id TEXT NOT NULL,
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    body TEXT NOT NULL,
    state TEXT GENERATED ALWAYS AS (json_extract(body, '$.state')) VIRTUAL,
    bucket_id TEXT GENERATED ALWAYS AS (json_extract(body, '$.bucket_id')) VIRTUAL,
    batch_id TEXT GENERATED ALWAYS AS (json_extract(body, '$.batch_id')) VIRTUAL,
    lease_until REAL GENERATED ALWAYS AS (json_extract(body, '$.lease_until')) VIRTUAL
) STRICT;
CREATE UNIQUE INDEX records_key ON records (namespace_id, collection, id);
CREATE INDEX records_order ON records (namespace_id, collection, sequence);
CREATE INDEX records_state ON records (collection, state, sequence);
CREATE INDEX records_bucket ON records (namespace_id, collection, bucket_id, sequence);
CREATE INDEX records_batch ON records (namespace_id, collection, batch_id, sequence)
"""
_COLUMNS = frozenset({"state", "bucket_id", "batch_id"})
# A record whose indexed field holds something else than one string (a user's field of the same name, say).
_IRREGULAR = " OR ".join(f"json_type(body, '$.{name}') NOT IN ('text','null')" for name in sorted(_COLUMNS))
_SCHEMA_2 = f"CREATE INDEX records_irregular ON records (namespace_id, collection) WHERE {_IRREGULAR}"
# How many objects a bucket holds, and of how many bytes, without reading them.
_SCHEMA_3 = "CREATE INDEX records_size ON records (namespace_id, collection, bucket_id, json_extract(body, '$._size'))"
_PAGE = 500


class SqliteMetadata:
    """Records in `path`; see ports.metadata.MetadataStore.

    `remembered` are tables whose records are kept in memory once read, as no other process writes the file.
    """

    def __init__(self, path: Path, *, remembered: Sequence[str] = ()) -> None:
        self._db = Database(path, (_SCHEMA, _SCHEMA_2, _SCHEMA_3))
        self._memory = RecordMemory(remembered)

    async def get(self, table: str, namespace_id: str, id: str) -> Record | None:
        return await self._db.read(lambda c: _get(c, table, namespace_id, id))

    async def get_many(self, table: str, namespace_id: str, ids: Sequence[str]) -> list[Record]:
        if not self._memory.holds(table):
            return await self._db.read(lambda connection: _get_many(connection, table, namespace_id, ids))
        known = self._memory.find(table, namespace_id, ids)
        if known is not None:
            return known
        turn = self._memory.turn
        records = await self._db.read(lambda connection: _get_many(connection, table, namespace_id, ids))
        self._memory.keep(turn, table, namespace_id, ids, records)
        return records

    async def put(
        self, table: str, namespace_id: str, id: str, body: Mapping[str, Any], *, if_version: int | None = None
    ) -> Record:
        write = Write(table, namespace_id, id, body, if_version)
        (record,) = await self.transact([write])
        if record is None:
            raise ConflictError(f"{table} {id!r} vanished while it was written")
        return record

    async def delete(self, table: str, namespace_id: str, id: str) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            done = connection.execute(
                "DELETE FROM records WHERE namespace_id=? AND collection=? AND id=?", (namespace_id, table, id)
            )
            return done.rowcount > 0

        return await self._db.write(work, committed=self._forgetting(table))

    async def delete_where(self, table: str, namespace_id: str, filter: Filter | None = None) -> int:
        def work(connection: sqlite3.Connection) -> int:
            compiled = _compiled(connection, table, namespace_id, filter)
            if compiled.exact:
                done = connection.execute(
                    f"DELETE FROM records WHERE namespace_id=? AND collection=? AND {compiled.sql}",  # noqa: S608
                    (namespace_id, table, *compiled.values),
                )
                return done.rowcount
            ids = [record.id for record in _rows(connection, table, namespace_id, filter)]
            connection.executemany(
                "DELETE FROM records WHERE namespace_id=? AND collection=? AND id=?",
                [(namespace_id, table, id) for id in ids],
            )
            return len(ids)

        return await self._db.write(work, committed=self._forgetting(table))

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
        def work(connection: sqlite3.Connection) -> list[Record]:
            compiled = _compiled(connection, table, namespace_id, filter)
            if compiled.exact and not sort:
                rows = connection.execute(
                    "SELECT id, version, body FROM records WHERE namespace_id=? AND collection=? AND "  # noqa: S608
                    f"{compiled.sql} ORDER BY sequence LIMIT ? OFFSET ?",
                    (namespace_id, table, *compiled.values, -1 if limit is None else limit, offset),
                )
                return [_record(row) for row in rows]
            matching = _rows(connection, table, namespace_id, filter)
            end = None if limit is None else offset + limit
            if not sort:
                return list(islice(matching, offset, end))
            # No more of a record is held than what it is sorted by.
            ids = ordered([(sort_key(record.body, sort), record.id) for record in matching], sort)[offset:end]
            return _get_many(connection, table, namespace_id, ids)

        return await self._db.read(work)

    async def count(self, table: str, namespace_id: str, filter: Filter | None = None) -> int:
        def work(connection: sqlite3.Connection) -> int:
            compiled = _compiled(connection, table, namespace_id, filter)
            if not compiled.exact:
                return sum(1 for _ in _rows(connection, table, namespace_id, filter))
            (counted,) = connection.execute(
                f"SELECT count(*) FROM records WHERE namespace_id=? AND collection=? AND {compiled.sql}",  # noqa: S608
                (namespace_id, table, *compiled.values),
            ).fetchone()
            return int(counted)

        return await self._db.read(work)

    async def total(self, table: str, namespace_id: str, field: str, filter: Filter | None = None) -> tuple[int, float]:
        def work(connection: sqlite3.Connection) -> tuple[int, float]:
            compiled = _compiled(connection, table, namespace_id, filter)
            path = json_path(field)
            if not compiled.exact or path is None:
                found = [record.body.get(field) for record in _rows(connection, table, namespace_id, filter)]
                return len(found), float(
                    sum(value for value in found if isinstance(value, int | float) and not isinstance(value, bool))
                )
            count, total = connection.execute(
                f"SELECT count(*), total(json_extract(body, '{path}')) FROM records "  # noqa: S608
                f"WHERE namespace_id=? AND collection=? AND {compiled.sql}",
                (namespace_id, table, *compiled.values),
            ).fetchone()
            return int(count), float(total)

        return await self._db.read(work)

    async def transact(self, writes: Sequence[Write]) -> list[Record | None]:
        encoded = [(write, None if write.body is None else orjson.dumps(write.body).decode()) for write in writes]

        def work(connection: sqlite3.Connection) -> list[Record | None]:
            records: list[Record | None] = []
            for new, group in groupby(encoded, key=lambda item: item[1] is not None and item[0].if_version == 0):
                if new:
                    records += _insert(connection, [(write, body or "") for write, body in group])
                else:
                    records += [_write(connection, write, body) for write, body in group]
            return records

        return await self._db.write(work, committed=self._forgetting(*(write.table for write in writes)))

    async def claim(
        self, table: str, *, states: Sequence[str], owner: str, lease_s: float, now: float
    ) -> tuple[str, Record] | None:
        def work(connection: sqlite3.Connection) -> tuple[str, Record] | None:
            marks = ",".join("?" * len(states))
            row = connection.execute(
                "SELECT namespace_id, id, version, body FROM records "  # noqa: S608 - marks only
                f"WHERE collection=? AND state IN ({marks}) AND coalesce(lease_until, 0) <= ? "
                "ORDER BY sequence LIMIT 1",
                (table, *states, now),
            ).fetchone()
            if row is None:
                return None
            namespace_id, id, version, text = row
            body = {**orjson.loads(text), "lease_owner": owner, "lease_until": now + lease_s}
            write = Write(table, namespace_id, id, body, version)
            record = _write(connection, write, orjson.dumps(body).decode())
            return None if record is None else (namespace_id, record)

        return await self._db.write(work, committed=self._forgetting(table))

    async def expire_leases(self) -> None:
        """Free what a process that died still held; for the one process that has the data directory, at its start."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE records SET body=json_set(body, '$.lease_until', 0) WHERE lease_until > 0")

        await self._db.write(work)

    def _forgetting(self, *tables: str) -> Callable[[], None] | None:
        return self._memory.forget if any(map(self._memory.holds, tables)) else None

    async def health(self) -> None:
        await self._db.read(lambda connection: connection.execute("SELECT 1").fetchone())

    async def close(self) -> None:
        await self._db.close()


def _compiled(connection: sqlite3.Connection, table: str, namespace_id: str, filter: Filter | None) -> Sql:
    """Return SQL that uses the columns, unless a record holds what a column cannot show."""
    compiled = compile_filter(filter, _COLUMNS)
    if not fields(filter) & _COLUMNS:
        return compiled
    irregular = connection.execute(
        f"SELECT 1 FROM records WHERE namespace_id=? AND collection=? AND ({_IRREGULAR}) LIMIT 1",  # noqa: S608
        (namespace_id, table),
    ).fetchone()
    return compiled if irregular is None else compile_filter(filter, frozenset())


def _get(connection: sqlite3.Connection, table: str, namespace_id: str, id: str) -> Record | None:
    row = connection.execute(
        "SELECT id, version, body FROM records WHERE namespace_id=? AND collection=? AND id=?",
        (namespace_id, table, id),
    ).fetchone()
    return None if row is None else _record(row)


def _get_many(connection: sqlite3.Connection, table: str, namespace_id: str, ids: Sequence[str]) -> list[Record]:
    found: dict[str, Record] = {}
    for start in range(0, len(ids), _PAGE):
        chunk = list(ids[start : start + _PAGE])
        marks = ",".join("?" * len(chunk))
        rows = connection.execute(
            f"SELECT id, version, body FROM records WHERE namespace_id=? AND collection=? AND id IN ({marks})",  # noqa: S608 - marks only
            (namespace_id, table, *chunk),
        )
        found.update((row[0], _record(row)) for row in rows)
    return [found[id] for id in ids if id in found]


def _record(row: tuple[str, int, str]) -> Record:
    return Record(row[0], row[1], orjson.loads(row[2]))


def _write(connection: sqlite3.Connection, write: Write, body: str | None) -> Record | None:
    key = (write.namespace_id, write.table, write.id)
    if body is None:
        if write.if_version is not None:
            _expect(connection, write)
        connection.execute("DELETE FROM records WHERE namespace_id=? AND collection=? AND id=?", key)
        return None
    if write.if_version is not None:
        _expect(connection, write)
    (version,) = connection.execute(
        "INSERT INTO records (namespace_id, collection, id, version, body) VALUES (?,?,?,1,?) "
        "ON CONFLICT (namespace_id, collection, id) DO UPDATE SET version=version+1, body=excluded.body "
        "RETURNING version",
        (*key, body),
    ).fetchone()
    return Record(write.id, version, dict(write.body or {}))


def _insert(connection: sqlite3.Connection, new: Sequence[tuple[Write, str]]) -> Iterator[Record]:
    """Insert records that must not exist, a page with one statement: that takes a third of the time of one for each."""
    for start in range(0, len(new), _PAGE):
        page = new[start : start + _PAGE]
        values = [value for write, body in page for value in (write.namespace_id, write.table, write.id, body)]
        try:
            connection.execute(
                "INSERT INTO records (namespace_id, collection, id, version, body) VALUES "  # noqa: S608 - marks only
                + ",".join(["(?,?,?,1,?)"] * len(page)),
                values,
            )
        except sqlite3.IntegrityError as error:
            raise AlreadyExistsError(_existing(connection, [write for write, _ in page])) from error
        for write, _ in page:
            yield Record(write.id, 1, dict(write.body or {}))


def _existing(connection: sqlite3.Connection, new: Sequence[Write]) -> str:
    """Which of the records exists already, or comes twice."""
    seen: set[tuple[str, str, str]] = set()
    for write in new:
        key = (write.table, write.namespace_id, write.id)
        if key in seen or _get(connection, *key) is not None:
            return f"{write.table} {write.id!r} exists already"
        seen.add(key)
    return "a record exists already"


def _expect(connection: sqlite3.Connection, write: Write) -> None:
    row = connection.execute(
        "SELECT version FROM records WHERE namespace_id=? AND collection=? AND id=?",
        (write.namespace_id, write.table, write.id),
    ).fetchone()
    found = 0 if row is None else row[0]
    if found != write.if_version:
        raise ConflictError(
            f"{write.table} {write.id!r} is at version {found}, not {write.if_version}; read it again and retry"
        )


def _rows(connection: sqlite3.Connection, table: str, namespace_id: str, filter: Filter | None) -> Iterator[Record]:
    """Yield what matches, in the order of insertion, holding one record."""
    compiled = _compiled(connection, table, namespace_id, filter)
    rows = connection.execute(
        f"SELECT id, version, body FROM records WHERE namespace_id=? AND collection=? AND {compiled.sql} "  # noqa: S608
        "ORDER BY sequence",
        (namespace_id, table, *compiled.values),
    )
    for row in rows:
        record = _record(row)
        if compiled.exact or matches(filter, record.body):
            yield record
