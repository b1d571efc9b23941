"""Liveness, readiness and metrics over HTTP."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from mixpeek_operator.core.errors import UnavailableError


@contextlib.asynccontextmanager
async def probes(
    host: str,
    port: int,
    *,
    live: Callable[[], str],
    ready: Callable[[], str],
    metrics: CollectorRegistry,
) -> AsyncIterator[int]:
    """Answer `/livez`, `/readyz` and `/metrics` until the block ends; gives the port, which 0 lets the system choose.

    `live` and `ready` return "" when all is well, else what is wrong. Raises UnavailableError when the port is taken.
    """

    def probe(check: Callable[[], str]) -> Callable[[web.Request], object]:
        async def answer(_: web.Request) -> web.Response:
            wrong = check()
            return web.Response(text=wrong or "ok", status=503 if wrong else 200)

        return answer

    async def measured(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/livez", probe(live))  # type: ignore[arg-type]
    app.router.add_get("/readyz", probe(ready))  # type: ignore[arg-type]
    app.router.add_get("/metrics", measured)
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise UnavailableError(
                f"cannot listen on {host}:{port} ({error.strerror}); choose another --probe-port"
            ) from error
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
