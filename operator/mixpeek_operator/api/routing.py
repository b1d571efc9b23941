"""The router of every routes module: it gives each route its permission and keeps FastAPI off hot paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.params import Depends as Dependency

from mixpeek_operator.api import auth
from mixpeek_operator.api.responses import Json


class Routes(APIRouter):
    """An APIRouter whose routes need the permission of `auth.permission_for`, unless they name another.

        routes = Routes(tags=["Buckets"])

        @routes.post("/v1/buckets", permission="write")   # permission= is optional

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
        return self.api_route(path, methods=[method], dependencies=dependencies, **options)
