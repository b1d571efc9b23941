"""Who is calling, and whether they may. One table gives each route its permission."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from fnmatch import fnmatchcase
from typing import Annotated

from fastapi import Depends, Request

from mixpeek_operator.access.keys import PERMISSIONS, Principal
from mixpeek_operator.api.services import Services
from mixpeek_operator.core.errors import ForbiddenError, InternalError, UnauthorizedError

ANY = "any"
"""Asks for a valid key and nothing more."""
KEY_HEADER = "X-API-Key"
"""Carries the key where there is no Authorization header."""
_PUBLIC = re.compile(
    r"/v1/(health(/liveness|/beat)?|discovery(/.*)?|retrievers/stages|collections/features(/.*)?|public/.*|blobs/.*)"
    r"|/metrics|/openapi\.json"
)
_ADMINISTRATION = re.compile(r"/v1/organizations(/.*)?")
_READING_POSTS = re.compile(r".*/(list|search|execute|explain|export|validate|lint|diff|aggregate)")


def is_public(path: str) -> bool:
    """Whether the public SDK calls this path template without credentials."""
    return _PUBLIC.fullmatch(path) is not None


def permission_for(method: str, path: str) -> str | None:
    """Return the permission a route needs by default, None for a public one.

    Organizations, users, keys and secrets need `admin`; DELETE `delete`; GET, and POST that only reads,
    `read`; everything else `write`.
    """
    if is_public(path):
        return None
    if _ADMINISTRATION.fullmatch(path):
        return "admin"
    if method == "DELETE":
        return "delete"
    if method in ("GET", "HEAD") or (method == "POST" and _READING_POSTS.fullmatch(path)):
        return "read"
    return "write"


def requires(permission: str) -> Callable[[Request], Awaitable[Principal]]:
    """Return the dependency that lets only keys with `permission` pass, and answers with the principal.

    `api/routing.Routes` adds it to every route by itself; name it to ask for another permission.
    """
    if permission not in (*PERMISSIONS, ANY):
        raise InternalError(f"no permission {permission!r}; there are {', '.join(PERMISSIONS)}")

    async def check(request: Request) -> Principal:
        principal = await identify(request)
        if permission != ANY and not principal.may(permission):
            held = ", ".join(sorted(principal.permissions)) or "nothing"
            raise ForbiddenError(
                f"the API key {principal.key_name!r} may {held}; this needs the permission {permission!r}",
                details={"required_permission": permission, "permissions": sorted(principal.permissions)},
            )
        return principal

    check.permission = permission  # type: ignore[attr-defined]
    return check


async def identify(request: Request) -> Principal:
    """Return the principal of the request's key, once per request. UnauthorizedError without a valid one."""
    known = request.scope.get("principal")
    if isinstance(known, Principal):
        return known
    services: Services = request.app.state.services
    principal = await services.keys.authenticate(_token(request))
    if principal.allowed_origins:
        _check_origin(request, principal)
    services.keys.spend(principal)
    request.scope["principal"] = principal
    return principal


async def maybe(request: Request) -> Principal | None:
    """Return the principal on a public route, None without a valid key."""
    try:
        return await identify(request)
    except UnauthorizedError:
        return None


async def current(request: Request) -> Principal:
    """Return the principal that the route's permission check already found."""
    principal = request.scope.get("principal")
    return principal if isinstance(principal, Principal) else await identify(request)


Caller = Annotated[Principal, Depends(current)]
"""The principal, as a parameter of a route."""


def _token(request: Request) -> str:
    header = request.headers.get("authorization")
    if header is None:
        # Proxies that authenticate for themselves, a Kubernetes API server among them, take that header away.
        if key := request.headers.get(KEY_HEADER, "").strip():
            return key
        raise UnauthorizedError(
            f"send your API key as 'Authorization: Bearer <key>' or '{KEY_HEADER}: <key>'", code="api_key_missing"
        )
    scheme, _, token = header.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise UnauthorizedError("the Authorization header must read 'Bearer <key>'", code="api_key_malformed")
    return token


def _check_origin(request: Request, principal: Principal) -> None:
    """A key bound to origins is for browsers there; a request without an Origin comes from no browser."""
    origin = request.headers.get("origin")
    if origin is not None and not any(fnmatchcase(origin, allowed) for allowed in principal.allowed_origins):
        raise ForbiddenError(f"the API key {principal.key_name!r} may not be used from {origin}")
