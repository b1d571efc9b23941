"""An API server that is busy or just starting: what it did not take up is sent again, a watch as any other request."""

from __future__ import annotations

import ssl

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from mixpeek_operator.adapters import kubernetes_api
from mixpeek_operator.adapters.kubernetes_api import LEASES, KubernetesApi
from mixpeek_operator.adapters.kubernetes_config import Connection
from mixpeek_operator.core.errors import RateLimitedError

BUSY = {"kind": "Status", "code": 429, "message": "storage is (re)initializing", "details": {"retryAfterSeconds": 0.01}}


async def serving(busy: int) -> tuple[TestServer, list[str]]:
    """A server that answers 429 `busy` times; and what it was asked."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.query.get("watch", "list"))
        if len(asked) <= busy:
            return web.json_response(BUSY, status=429)
        if request.query.get("watch"):
            return web.Response(text='{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "7"}}}\n')
        return web.json_response({"metadata": {"resourceVersion": "5"}, "items": []})

    app = web.Application()
    app.router.add_get(LEASES.path("default"), answer)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    return server, asked


async def test_what_was_not_taken_up_is_sent_again() -> None:
    server, asked = await serving(busy=3)
    try:
        async with KubernetesApi(Connection(str(server.make_url("")), ssl.create_default_context())) as api:
            assert (await api.list(LEASES, "default")).resource_version == "5"
            assert asked == ["list"] * 4
            asked.clear()
            found = [event async for event in api.watch(LEASES, "default", resource_version="5")]
            assert [event.type for event in found] == ["BOOKMARK"]
            assert asked == ["1"] * 4
    finally:
        await server.close()


async def test_a_server_that_stays_busy_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_api, "_THROTTLED", 2)
    server, asked = await serving(busy=100)
    try:
        async with KubernetesApi(Connection(str(server.make_url("")), ssl.create_default_context())) as api:
            with pytest.raises(RateLimitedError, match="initializing"):
                await api.list(LEASES, "default")
            assert len(asked) == 3
    finally:
        await server.close()
