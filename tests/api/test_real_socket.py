"""The access routes over a real connection, driven by the public SDK as it is."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx
import mixpeek
import pytest
import uvicorn
from prometheus_client import CollectorRegistry

from mixpeek_operator.api.app import create_app
from mixpeek_operator.core.settings import Settings


@pytest.fixture
async def server(world: Any, settings: Settings) -> AsyncIterator[Any]:
    app = create_app(replace(world.services, metrics=CollectorRegistry()), settings)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        running = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
        serving = asyncio.create_task(running.serve(sockets=[listening]))
        while not running.started:  # noqa: ASYNC110 - uvicorn offers no event
            await asyncio.sleep(0.01)
        yield SimpleNamespace(url=f"http://127.0.0.1:{port}", key=world.admin)
        running.should_exit = True
        await serving


async def test_the_sdk_administers_keys_users_and_secrets(server: Any) -> None:
    def work() -> None:
        with mixpeek.ApiClient(mixpeek.Configuration(host=server.url, access_token=server.key)) as api:
            assert mixpeek.AccountApi(api).whoami_me().key.name == "bootstrap"
            assert mixpeek.OrganizationsApi(api).get_organization().account_type.value == "enterprise"
            users = mixpeek.OrganizationUsersApi(api)
            made: Any = users.create_user_organizations(mixpeek.UserCreateRequest(email="a@b.co", user_name="Ada"))
            assert made["email"] == "a@b.co"
            keys = mixpeek.OrganizationAPIKeysApi(api)
            wanted = mixpeek.APIKeyCreateRequest(name="k", permissions=[mixpeek.Permission.READ])
            first = keys.create_key_organizations_users_email("a@b.co", wanted)
            second = keys.rotate_key_organizations_users_email_name("a@b.co", "k")
            assert (first.key != second.key, first.name, second.permissions) == (True, "k", [mixpeek.Permission.READ])
            assert keys.delete_key_organizations_users_email_name("a@b.co", "k").success
            secrets = mixpeek.OrganizationSecretsApi(api)
            secret = mixpeek.CreateSecretRequest(secret_name="pay", secret_value="x")
            assert secrets.create_secret_organizations(secret).created
            assert secrets.list_secrets_organizations().secrets == ["pay"]
            assert secrets.delete_secret_organizations_name("pay").deleted
            with pytest.raises(mixpeek.exceptions.NotFoundException) as missing:
                secrets.delete_secret_organizations_name("pay")
            assert missing.value.data.error.type == "NotFoundError"

    await asyncio.to_thread(work)


async def test_the_sdk_reads_health_and_discovery_without_a_key(server: Any) -> None:
    def work() -> None:
        with mixpeek.ApiClient(mixpeek.Configuration(host=server.url)) as api:
            health: Any = mixpeek.HealthApi(api).healthcheck_health()
            assert health["status"] == "OK"
            assert mixpeek.DiscoveryApi(api).get_manifest_schema_discovery().manifest_version == "1.0"

    await asyncio.to_thread(work)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_client_that_sends_far_too_much_still_hears_why(server: Any, chunked: bool) -> None:
    block = b"x" * 65536

    def blocks() -> Iterator[bytes]:
        for _ in range(800):
            yield block

    def work() -> httpx.Response:
        headers = {"Authorization": f"Bearer {server.key}"}
        content = blocks() if chunked else block * 800
        return httpx.post(f"{server.url}/v1/manifest/apply", content=content, headers=headers, timeout=60)

    answer = await asyncio.to_thread(work)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"
