"""A server in this process: the real app over real access services, embedded stores in a temporary folder."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from mixpeek_operator.access.keys import Keys
from mixpeek_operator.access.organizations import Organizations
from mixpeek_operator.access.secrets import StoredSecrets, encryption_key
from mixpeek_operator.access.users import Users
from mixpeek_operator.adapters.sqlite_metadata import SqliteMetadata
from mixpeek_operator.api.app import create_app
from mixpeek_operator.api.services import Services
from mixpeek_operator.core.directory import NamespaceInfo
from mixpeek_operator.core.errors import NotFoundError
from mixpeek_operator.core.settings import Settings


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
    data: Path
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

    def at_rest(self) -> bytes:
        """Every byte the server has written."""
        return b"".join(path.read_bytes() for path in self.data.rglob("*") if path.is_file())

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
    store = SqliteMetadata(settings.data / "metadata.db")
    keys = Keys(store)
    users = Users(store, keys)
    organizations = Organizations(store, users, keys)
    secrets = StoredSecrets(store, encryption_key(None, settings.data))
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

    yield World(services, settings.data, namespaces, first.organization, first.key, make_client)
    await store.close()
