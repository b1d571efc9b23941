"""The HTTP front door: every module of `api/routes` behind one layer of identification, limits and errors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import FunctionType
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from mixpeek_operator import __version__
from mixpeek_operator.api import auth, errors, openapi, routes
from mixpeek_operator.api.middleware import AccessLog, BodyLimits, HttpMetrics, RequestLayer
from mixpeek_operator.api.responses import Json
from mixpeek_operator.api.routing import Direct, Routes
from mixpeek_operator.api.services import Services
from mixpeek_operator.core.errors import InternalError
from mixpeek_operator.core.registry import discover
from mixpeek_operator.core.settings import Settings

_HOT = "/v1/retrievers/{retriever_id}/execute"
_FORM_OVERHEAD = 1024 * 1024
"""Bytes that boundaries and other fields of a form may add to the file in it."""


class Api(FastAPI):
    """A FastAPI that calls `direct` routes before its own layers, which cost more than a search adds to its store."""

    direct: Sequence[tuple[Direct, RequestLayer]] = ()

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.access = AccessLog()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for route, layer in self.direct:
                # As Starlette's matching, in a fifth of its time; parameters are texts.
                found = route.path_regex.match(scope["path"])
                if found is not None and scope["method"] in (route.methods or ()):
                    scope.update(app=self, route=route, endpoint=route.endpoint, path_params=found.groupdict())
                    await layer(scope, receive, send)
                    return
        await super().__call__(scope, receive, send)


def create_app(services: Services, settings: Settings) -> Api:
    """Return the application over `services`. InternalError when a route says nothing about who may call it.

    Starting and stopping the parts is `main`'s work: the app holds them and owns none.
    """
    app = Api(
        title="mixpeek-operator",
        version=__version__,
        description="A multimodal data warehouse declared as resources.",
        default_response_class=Json,
        # Their pages load scripts from elsewhere; a server in a closed network has no elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    app.state.services = services
    errors.install(app)
    openapi.install(app)
    found: list[BaseRoute] = []
    for name, build in discover(routes, "router", FunctionType).items():
        router = build(services)
        if not isinstance(router, Routes):
            raise InternalError(f"router() of api/routes/{name} must return Routes")
        for route in router.routes:
            _check(route, name)
            found.append(route)
    found.sort(key=_order)
    app.router.routes.extend(found)
    limits = BodyLimits(
        settings.max_body_bytes,
        (
            ("/v1/manifest/", settings.max_manifest_bytes + _FORM_OVERHEAD),
            ("/v1/blobs/", settings.max_upload_bytes),
        ),
    )
    layer = partial(RequestLayer, limits=limits, metrics=HttpMetrics(services.metrics), log=app.access)
    app.add_middleware(layer)
    app.direct = [(route, layer(route.app)) for route in found if isinstance(route, Direct)]
    return app


def _order(route: BaseRoute) -> tuple[Any, ...]:
    """Literal segments before parameters, so that no module's `/x/{id}` hides another's `/x/list`.

    Routes are tried one after the other, so the one that is called most is the first; it hides no other.
    """
    path = getattr(route, "path", "")
    segments = tuple((segment.startswith("{"), segment) for segment in path.split("/"))
    return (path != _HOT, segments)


def _check(route: object, module: str) -> None:
    if not isinstance(route, APIRoute):
        return
    if len(route.methods or ()) != 1:
        raise InternalError(f"api/routes/{module}: {route.path} must take one method per route")
    guarded = any(getattr(item.call, "permission", None) for item in route.dependant.dependencies)
    if not guarded and not auth.is_public(route.path):
        raise InternalError(f"api/routes/{module}: {route.path} asks for no permission and is not public")
