"""ResourceStore on SQLite, with the API server's semantics: generation, resourceVersion, finalizers, watch."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import orjson

from mixpeek_operator.adapters._clash import clash
from mixpeek_operator.adapters._sqlite import Database
from mixpeek_operator.adapters._watcher import Watcher
from mixpeek_operator.core.clock import Clock
from mixpeek_operator.core.errors import AlreadyExistsError, ConflictError, NotFoundError
from mixpeek_operator.core.resource import Event, Metadata, Resource, ResourceKey
from mixpeek_operator.ports.resources import Change

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE resources (
    organization TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    namespace TEXT NOT NULL,
    spec_name TEXT NOT NULL,
    id TEXT NOT NULL,
    resource_version INTEGER NOT NULL,
    metadata TEXT NOT NULL,
    spec TEXT NOT NULL,
    status TEXT NOT NULL,
    PRIMARY KEY (organization, kind, name)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX resources_named ON resources (organization, kind, namespace, spec_name);
CREATE INDEX resources_id ON resources (organization, id);
CREATE TABLE versions (last INTEGER NOT NULL) STRICT;
INSERT INTO versions VALUES (0);
CREATE TABLE events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    organization TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    reason TEXT NOT NULL,
    message TEXT NOT NULL,
    at TEXT NOT NULL
) STRICT;
CREATE INDEX events_of ON events (organization, kind, name, sequence)
"""
_COLUMNS = "organization, kind, name, resource_version, metadata, spec, status"
_KEPT_EVENTS = 100
_KEY = "organization=? AND kind=? AND name=?"


class SqliteResources:
    """Resources in `path`; see ports.resources.ResourceStore. One process, so watches are fed by the writes."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._db = Database(path, (_SCHEMA,))
        self._clock = clock
        self._watchers: set[Watcher] = set()
        # Changes reach the watchers in the order in which they were committed.
        self._order = asyncio.Lock()
        self._commits: set[asyncio.Future[Any]] = set()

    async def get(self, key: ResourceKey) -> Resource | None:
        return await self._db.read(lambda c: _get(c, key))

    async def find(self, organization: str, kind: str | None = None, *, namespace: str | None = None) -> list[Resource]:
        where, values = "organization=?", [organization]
        if kind is not None:
            where, values = f"{where} AND kind=?", [*values, kind]
        if namespace is not None:
            where, values = f"{where} AND namespace=?", [*values, namespace]
        query = f"SELECT {_COLUMNS} FROM resources WHERE {where} ORDER BY kind, name"  # noqa: S608 - constants only
        return await self._db.read(lambda c: [_resource(row) for row in c.execute(query, values)])

    async def by_id(self, organization: str, id: str) -> Resource | None:
        query = f"SELECT {_COLUMNS} FROM resources WHERE organization=? AND id=?"  # noqa: S608

        def work(connection: sqlite3.Connection) -> Resource | None:
            row = connection.execute(query, (organization, id)).fetchone()
            return None if row is None else _resource(row)

        return await self._db.read(work)

    async def create(self, resource: Resource) -> Resource:
        (made,) = await self.apply_batch([resource], [], [])
        return made

    async def update(self, resource: Resource) -> Resource:
        (changed,) = await self.apply_batch([], [resource], [])
        return changed

    async def update_status(self, key: ResourceKey, status: Mapping[str, Any]) -> Resource | None:
        def work(connection: sqlite3.Connection) -> tuple[Resource | None, list[Change]]:
            found = _get(connection, key)
            if found is None or found.status == status:
                return found, []
            found.status = dict(status)
            found.metadata.resource_version = _next_version(connection)
            connection.execute(
                f"UPDATE resources SET status=?, resource_version=? WHERE {_KEY}",  # noqa: S608
                (_dump(found.status), found.metadata.resource_version, *_parts(key)),
            )
            return found, [Change("MODIFIED", found)]

        return await self._commit(work)

    async def delete(self, key: ResourceKey) -> Resource | None:
        now = self._clock.now()

        def work(connection: sqlite3.Connection) -> tuple[Resource | None, list[Change]]:
            return _delete(connection, key, now)

        return await self._commit(work)

    async def apply_batch(
        self, create: Sequence[Resource], update: Sequence[Resource], delete: Sequence[ResourceKey]
    ) -> list[Resource]:
        now = self._clock.now()

        def work(connection: sqlite3.Connection) -> tuple[list[Resource], list[Change]]:
            changes: list[Change] = []
            done: list[Resource] = []
            for key in delete:
                changes += _delete(connection, key, now)[1]
            for resource in create:
                made = _create(connection, resource, now)
                done.append(made)
                changes.append(Change("ADDED", made))
            for resource in update:
                changed, change = _update(connection, resource)
                done.append(changed)
                changes += change
            return done, changes

        return await self._commit(work)

    async def watch(self, organization: str | None = None) -> AsyncIterator[Change]:
        watcher = Watcher(organization)
        async with self._order:
            query = f"SELECT {_COLUMNS} FROM resources ORDER BY organization, kind, name"  # noqa: S608
            existing = await self._db.read(lambda c: [_resource(row) for row in c.execute(query)])
            self._watchers.add(watcher)
        try:
            for resource in existing:
                if organization in (None, resource.metadata.organization):
                    yield Change("ADDED", resource)
            while True:
                yield await watcher.next()
        finally:
            self._watchers.discard(watcher)

    async def record_event(self, event: Event) -> None:
        def work(connection: sqlite3.Connection) -> None:
            key = _parts(event.key)
            connection.execute(
                "INSERT INTO events (organization, kind, name, type, reason, message, at) VALUES (?,?,?,?,?,?,?)",
                (*key, event.type, event.reason, event.message, event.at.isoformat()),
            )
            connection.execute(
                f"DELETE FROM events WHERE {_KEY} AND sequence <= (SELECT sequence FROM events WHERE {_KEY} "  # noqa: S608
                "ORDER BY sequence DESC LIMIT 1 OFFSET ?)",
                (*key, *key, _KEPT_EVENTS),
            )

        await self._db.write(work)

    async def events(self, key: ResourceKey, limit: int = 50) -> list[Event]:
        query = f"SELECT type, reason, message, at FROM events WHERE {_KEY} ORDER BY sequence DESC LIMIT ?"  # noqa: S608

        def work(connection: sqlite3.Connection) -> list[Event]:
            rows = connection.execute(query, (*_parts(key), limit))
            return [Event(key, row[0], row[1], row[2], datetime.fromisoformat(row[3])) for row in rows]

        return await self._db.read(work)

    async def organizations(self) -> list[str]:
        query = "SELECT DISTINCT organization FROM resources ORDER BY organization"
        return await self._db.read(lambda c: [row[0] for row in c.execute(query)])

    async def health(self) -> None:
        await self._db.read(lambda connection: connection.execute("SELECT last FROM versions").fetchone())

    async def close(self) -> None:
        await asyncio.gather(*self._commits, return_exceptions=True)
        await self._db.close()

    async def _commit(self, work: Callable[[sqlite3.Connection], tuple[T, list[Change]]]) -> T:
        """Write, then tell the watchers; a caller that is cancelled meanwhile stops neither."""

        async def commit() -> T:
            async with self._order:
                result, changes = await self._db.write(work)
                self._publish(changes)
            return result

        task = asyncio.ensure_future(commit())
        self._commits.add(task)
        task.add_done_callback(self._finished)
        return await asyncio.shield(task)

    def _finished(self, task: asyncio.Future[Any]) -> None:
        self._commits.discard(task)
        if not task.cancelled():
            # Its caller has the error, unless it was cancelled and wants none.
            task.exception()

    def _publish(self, changes: Sequence[Change]) -> None:
        for change in changes:
            for watcher in self._watchers:
                watcher.put(change)


def _create(connection: sqlite3.Connection, resource: Resource, now: datetime) -> Resource:
    made = replace(
        resource,
        spec=dict(resource.spec),
        metadata=replace(
            resource.metadata,
            uid=resource.metadata.uid or str(uuid.uuid4()),
            generation=1,
            resource_version=_next_version(connection),
            creation_timestamp=now,
            deletion_timestamp=None,
        ),
    )
    try:
        connection.execute(
            "INSERT INTO resources VALUES (?,?,?,?,?,?,?,?,?,?)",
            (
                *_parts(made.key),
                made.namespace or "",
                made.name,
                made.id,
                made.metadata.resource_version,
                _dump_metadata(made.metadata),
                _dump(made.spec),
                _dump(made.status),
            ),
        )
    except sqlite3.IntegrityError as error:
        raise _clash(connection, made) from error
    return made


def _update(connection: sqlite3.Connection, resource: Resource) -> tuple[Resource, list[Change]]:
    found = _get(connection, resource.key)
    if found is None:
        raise NotFoundError(f"{resource.key} does not exist")
    given = resource.metadata
    if given.resource_version != found.metadata.resource_version:
        raise ConflictError(
            f"{resource.key} is at version {found.metadata.resource_version}, not {given.resource_version}; "
            "read it again and retry"
        )
    meta = found.metadata
    changed_spec = resource.spec != found.spec
    same = (given.labels, given.annotations, given.finalizers) == (meta.labels, meta.annotations, meta.finalizers)
    if same and not changed_spec:
        return found, []
    if meta.deletion_timestamp is not None and not given.finalizers:
        connection.execute(f"DELETE FROM resources WHERE {_KEY}", _parts(found.key))  # noqa: S608
        gone = replace(found, metadata=replace(meta, finalizers=[], resource_version=_next_version(connection)))
        return gone, [Change("DELETED", gone)]
    changed = replace(
        found,
        spec=dict(resource.spec),
        metadata=replace(
            meta,
            labels=dict(given.labels),
            annotations=dict(given.annotations),
            finalizers=list(given.finalizers),
            generation=meta.generation + changed_spec,
            resource_version=_next_version(connection),
        ),
    )
    try:
        connection.execute(
            "UPDATE resources SET namespace=?, spec_name=?, id=?, resource_version=?, metadata=?, spec=? "  # noqa: S608
            f"WHERE {_KEY}",
            (
                changed.namespace or "",
                changed.name,
                changed.id,
                changed.metadata.resource_version,
                _dump_metadata(changed.metadata),
                _dump(changed.spec),
                *_parts(changed.key),
            ),
        )
    except sqlite3.IntegrityError as error:
        raise _clash(connection, changed) from error
    return changed, [Change("MODIFIED", changed)]


def _delete(connection: sqlite3.Connection, key: ResourceKey, now: datetime) -> tuple[Resource | None, list[Change]]:
    found = _get(connection, key)
    if found is None:
        return None, []
    if not found.metadata.finalizers:
        connection.execute(f"DELETE FROM resources WHERE {_KEY}", _parts(key))  # noqa: S608
        connection.execute(f"DELETE FROM events WHERE {_KEY}", _parts(key))  # noqa: S608
        return None, [Change("DELETED", found)]
    if found.deleting:
        return found, []
    found.metadata.deletion_timestamp = now
    # As on the API server, asking for deletion is a change of what is wanted.
    found.metadata.generation += 1
    found.metadata.resource_version = _next_version(connection)
    connection.execute(
        f"UPDATE resources SET metadata=?, resource_version=? WHERE {_KEY}",  # noqa: S608
        (_dump_metadata(found.metadata), found.metadata.resource_version, *_parts(key)),
    )
    return found, [Change("MODIFIED", found)]


def _clash(connection: sqlite3.Connection, resource: Resource) -> AlreadyExistsError:
    row = connection.execute(
        "SELECT name, spec_name FROM resources WHERE organization=? AND kind=? "
        "AND ((namespace=? AND spec_name=?) OR name=?)",
        (
            resource.metadata.organization,
            resource.kind,
            resource.namespace or "",
            resource.name,
            resource.metadata.name,
        ),
    ).fetchone()
    return clash(resource, row)


def _get(connection: sqlite3.Connection, key: ResourceKey) -> Resource | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM resources WHERE {_KEY}", _parts(key)).fetchone()  # noqa: S608
    return None if row is None else _resource(row)


def _parts(key: ResourceKey) -> tuple[str, str, str]:
    return key.organization, key.kind, key.name


def _resource(row: tuple[str, str, str, int, str, str, str]) -> Resource:
    organization, kind, name, version, metadata, spec, status = row
    held = orjson.loads(metadata)
    return Resource(
        kind=kind,
        metadata=Metadata(
            name=name,
            organization=organization,
            uid=held["uid"],
            generation=held["generation"],
            resource_version=version,
            labels=held["labels"],
            annotations=held["annotations"],
            finalizers=held["finalizers"],
            creation_timestamp=_moment(held["created"]),
            deletion_timestamp=_moment(held["deleted"]),
        ),
        spec=orjson.loads(spec),
        status=orjson.loads(status),
    )


def _dump_metadata(metadata: Metadata) -> str:
    return _dump(
        {
            "uid": metadata.uid,
            "generation": metadata.generation,
            "labels": metadata.labels,
            "annotations": metadata.annotations,
            "finalizers": metadata.finalizers,
            "created": metadata.creation_timestamp,
            "deleted": metadata.deletion_timestamp,
        }
    )


def _dump(value: Any) -> str:
    return orjson.dumps(value).decode()


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _next_version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("UPDATE versions SET last=last+1 RETURNING last").fetchone()
    return int(version)
