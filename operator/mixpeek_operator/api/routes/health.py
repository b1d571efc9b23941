"""Whether the server works: every store is asked, within a deadline. And its metrics."""

from __future__ import annotations

import asyncio

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from mixpeek_operator.api.responses import Json
from mixpeek_operator.api.routing import Routes
from mixpeek_operator.api.services import HealthCheck, Services
from mixpeek_operator.core.errors import MixpeekError

_DEADLINE_S = 2.0
_NAMED = ("cache", "metadata", "vector_store", "object_storage", "task_queue", "inference")
_OPTIONAL = frozenset({"inference", "analytics"})
"""Without these the server answers everything that needs no model, so it stays in rotation."""
_WORKER = "task_queue"

_log = structlog.get_logger(__name__)


def router(services: Services) -> Routes:
    """Routes of `/v1/health` and `/metrics`."""
    routes = Routes(tags=["Health"])

    @routes.get("/v1/health")
    async def healthcheck() -> Json:
        """200 when every store answers, 503 otherwise; a model that cannot be loaded is DEGRADED with 200."""
        return await _health(services)

    @routes.get("/v1/health/deep")
    async def healthcheck_deep() -> Json:
        return await _health(services)

    @routes.get("/v1/health/liveness")
    async def liveness() -> Json:
        return Json({"status": "OK"})

    @routes.get("/v1/health/beat")
    async def beat() -> Json:
        """Whether the worker that runs reconciles and batches is alive."""
        error = await _ask(_WORKER, services.health_checks.get(_WORKER))
        if error is None:
            return Json({"status": "OK", "healthy": True})
        return Json({"status": "DEGRADED", "healthy": False, "error": error}, 503)

    @routes.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(services.metrics), media_type=CONTENT_TYPE_LATEST)

    return routes


async def _health(services: Services) -> Json:
    names = sorted({*_NAMED, *services.health_checks})
    found = await asyncio.gather(*(_ask(name, services.health_checks.get(name)) for name in names))
    errors = {name: error for name, error in zip(names, found, strict=True) if error is not None}
    body = {
        "status": "DEGRADED" if errors else "OK",
        "data": {name: name not in errors for name in names},
        "errors": errors or None,
    }
    return Json(body, 503 if errors.keys() - _OPTIONAL else 200)


async def _ask(name: str, check: HealthCheck | None) -> str | None:
    """Return why a part does not work, None when it does; only our own messages go to the caller."""
    if check is None:
        return "no health check is set up for this part"
    try:
        await asyncio.wait_for(check(), _DEADLINE_S)
    except TimeoutError:
        return f"no answer within {_DEADLINE_S:g} s"
    except MixpeekError as error:
        return error.message
    except Exception as error:
        _log.warning("health check failed", part=name, exc_info=error)
        return f"failed with {type(error).__name__}; the server's log tells more"
    return None
