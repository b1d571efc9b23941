"""A server in this process: the real app over real access services, stores held in memory by these fixtures."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from mixpeek_operator.access.keys import Keys
from mixpeek_operator.access.organizations import Organizations
from mixpeek_operator.access.secrets import StoredSecrets, encryption_key
from mixpeek_operator.access.users import Users
from mixpeek_operator.api.app import create_app
from mixpeek_operator.api.services import Services
from mixpeek_operator.core.directory import NamespaceInfo
from mixpeek_operator.core.errors import AlreadyExistsError, ConflictError, NotFoundError
from mixpeek_operator.core.filters import And, Compare, Filter
from mixpeek_operator.core.settings import Settings
from mixpeek_operator.ports.metadata import Record, Write


def _holds(wanted: Filter | None, body: Mapping[str, Any]) -> bool:
    if wanted is None:
        return True
    if isinstance(wanted, And):
        return all(_holds(part, body) for part in wanted.parts)
    assert isinstance(wanted, Compare)
    return bool(body.get(wanted.field) == wanted.value)


class MemoryRecords:
    """As much of the MetadataStore port as the access services need; equality filters only."""

    def __init__(self) -> None:
        self.tables: dict[tuple[str, str], dict[str, Record]] = {}
        self.reads = 0

    async def get(self, table: str, namespace_id: str, id: str) -> Record | None:
        self.reads += 1
        return self.tables.get((table, namespace_id), {}).get(id)

    async def put(
        self, table: str, namespace_id: str, id: str, body: Mapping[str, Any], *, if_version: int | None = None
    ) -> Record:
        record = (await self.transact([Write(table, namespace_id, id, body, if_version)]))[0]
        assert record is not None
        return record

    async def delete(self, table: str, namespace_id: str, id: str) -> bool:
        return self.tables.get((table, namespace_id), {}).pop(id, None) is not None

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
        rows = [row for row in self.tables.get((table, namespace_id), {}).values() if _holds(filter, row.body)]
        return rows[offset : None if limit is None else offset + limit]

    async def count(self, table: str, namespace_id: str, filter: Filter | None = None) -> int:
        return len(await self.find(table, namespace_id, filter=filter))

    async def transact(self, writes: Sequence[Write]) -> list[Record | None]:
        for write in writes:
            known = self.tables.get((write.table, write.namespace_id), {}).get(write.id)
            if write.if_version == 0 and known is not None:
                raise AlreadyExistsError(write.id)
            if write.if_version and (known is None or known.version != write.if_version):
                raise ConflictError(write.id)
        done: list[Record | None] = []
        for write in writes:
            rows = self.tables.setdefault((write.table, write.namespace_id), {})
            if write.body is None:
                rows.pop(write.id, None)
                done.append(None)
            else:
                version = rows[write.id].version + 1 if write.id in rows else 1
                rows[write.id] = Record(write.id, version, dict(write.body))
                done.append(rows[write.id])
        return done


class Namespaces:
    """The Directory's two calls that scopes need."""

    def __init__(self) -> None:
        self.every: list[NamespaceInfo] = []

    def add(self, organization: str, id: str, name: str) -> None:
        self.every.append(NamespaceInfo(id, name, organization, id))

    async def namespace(self, organization: str, identifier: str) -> NamespaceInfo:
        for item in self.every:
            if item.organization == organization and identifier in (item.id, item.name):
                return item
        raise NotFoundError(f"no namespace {identifier!r}")

    async def namespaces(self, organization: str) -> list[NamespaceInfo]:
        return [item for item in self.every if item.organization == organization]


class EmptyCatalog:
    def stages(self) -> Mapping[str, Any]:
        return {}

    def extractors(self) -> Mapping[tuple[str, str], Any]:
        return {}


@dataclass
class World:
    """The server and how to speak to it."""

    services: Services
    store: MemoryRecords
    namespaces: Namespaces
    organization: str
    admin: str
    make_client: Callable[..., httpx.AsyncClient]
    counter: Any = field(default_factory=itertools.count)

    def client(self, key: str | None = "", **headers: str) -> httpx.AsyncClient:
        """A client with the admin's key, another key, or (None) no key."""
        token = self.admin if key == "" else key
        sent = {"Authorization": f"Bearer {token}", **headers} if token else headers
        return self.make_client(sent)

    async def key(self, *permissions: str, **request: Any) -> str:
        """A new key of the administrator with these permissions."""
        body = {"name": f"key-{next(self.counter)}", "permissions": list(permissions), **request}
        async with self.client() as http:
            answer = await http.post("/v1/organizations/users/admin@localhost/api-keys", json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["key"])


async def _fine() -> None:
    await asyncio.sleep(0)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path, max_body_bytes=4096, max_manifest_bytes=8192, max_upload_bytes=16384)


@pytest.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    store = MemoryRecords()
    keys = Keys(store)  # type: ignore[arg-type]
    users = Users(store, keys)  # type: ignore[arg-type]
    organizations = Organizations(store, users, keys)  # type: ignore[arg-type]
    secrets = StoredSecrets(store, encryption_key(None, settings.data))  # type: ignore[arg-type]
    first = await organizations.bootstrap()
    assert first.key is not None
    names = ("cache", "metadata", "vector_store", "object_storage", "task_queue", "inference")
    namespaces = Namespaces()
    services = Services(
        settings=settings,
        organizations=organizations,
        users=users,
        keys=keys,
        secrets=secrets,
        directory=namespaces,  # type: ignore[arg-type]
        catalog=EmptyCatalog(),  # type: ignore[arg-type]
        health_checks=dict.fromkeys(names, _fine),
    )
    app = create_app(services, settings)

    def make_client(headers: dict[str, str]) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server", headers=headers)

    yield World(services, store, namespaces, first.organization, first.key, make_client)
