"""The router of every routes module: it gives each route its permission and keeps FastAPI off hot paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.params import Depends as Dependency
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from mixpeek_operator.api import auth
from mixpeek_operator.api.responses import Json


class Direct(APIRoute):
    """A route whose endpoint takes the request and the parameters of its path, as text, and reads the rest itself.

    FastAPI documents it and checks nothing: to solve its dependencies would take longer than all that a search adds to
    its store. The checks of permission run as on every route. What it raises is a MixpeekError or our bug, so that the
    request layer can call it without the layers between.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        checks = [dependency.call for dependency in self.dependant.dependencies if dependency.call is not None]

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            request = Request(scope, receive, send)
            for check in checks:
                await check(request)
            answer: Response = await endpoint(request, **scope["path_params"])
            await answer(scope, receive, send)

        self.app = app


class Routes(APIRouter):
    """An APIRouter whose routes need the permission of `auth.permission_for`, unless they name another.

        routes = Routes(tags=["Buckets"])

        @routes.post("/v1/buckets", permission="write")   # permission= is optional
        @routes.post("/v1/retrievers/{id}/execute", direct=True)   # see Direct

    Handlers return `responses.Json`, so answers are encoded once and not validated again. One method per
    route.
    """

    def __init__(self, tags: list[str]) -> None:
        super().__init__(tags=list(tags), default_response_class=Json)

    def get(self, path: str, **options: Any) -> Callable[[Any], Any]:
        return self._route("GET", path, options)

    def post(self, path: str, **options: Any) -> Callable[[Any], Any]:
        return self._route("POST", path, options)

    def put(self, path: str, **options: Any) -> Callable[[Any], Any]:
        return self._route("PUT", path, options)

    def patch(self, path: str, **options: Any) -> Callable[[Any], Any]:
        return self._route("PATCH", path, options)

    def delete(self, path: str, **options: Any) -> Callable[[Any], Any]:
        return self._route("DELETE", path, options)

    def _route(self, method: str, path: str, options: dict[str, Any]) -> Callable[[Any], Any]:
        permission = options.pop("permission", None) or auth.permission_for(method, path)
        dependencies: list[Dependency] = list(options.pop("dependencies", ()))
        if permission is not None:
            dependencies.insert(0, Depends(auth.requires(permission)))
        options.setdefault("response_model", None)
        route = Direct if options.pop("direct", False) else None

        def register(endpoint: Any) -> Any:
            self.add_api_route(
                path, endpoint, methods=[method], dependencies=dependencies, route_class_override=route, **options
            )
            return endpoint

        return register
