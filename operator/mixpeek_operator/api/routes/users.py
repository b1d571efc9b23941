"""Users of the caller's organization and their API keys."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query

from mixpeek_operator.api import bodies
from mixpeek_operator.api.auth import Caller
from mixpeek_operator.api.lists import MAX_LIMIT, MAX_OFFSET
from mixpeek_operator.api.models import KeyCreate, KeyUpdate, Role, UserCreate, UserState, UserUpdate
from mixpeek_operator.api.responses import Json
from mixpeek_operator.api.routing import Routes
from mixpeek_operator.api.services import Services

_USERS = "/v1/organizations/users"
_USER = f"{_USERS}/{{user_email}}"
_KEYS = f"{_USER}/api-keys"
_KEY = f"{_KEYS}/{{key_name}}"


def router(services: Services) -> Routes:
    """Routes of `/v1/organizations/users` and of the keys below it."""
    routes = Routes(tags=["Organization users and API keys"])
    _user_routes(routes, services)
    _key_routes(routes, services)
    return routes


def _user_routes(routes: Routes, services: Services) -> None:
    @routes.post(_USERS)
    async def create_user(caller: Caller, body: Annotated[UserCreate, Depends(bodies.body(UserCreate))]) -> Json:
        organization = await services.organizations.get(caller.organization)
        request = body.model_dump(mode="json")
        return Json(await services.users.create(organization, request, created_by=caller.user_id))

    @routes.get(_USERS)
    async def list_users(
        caller: Caller,
        skip: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
        role: Role | None = None,
        status: UserState | None = None,
    ) -> Json:
        users, total = await services.users.find(caller.organization, skip=skip, limit=limit, role=role, status=status)
        return Json({"results": users, "total": total, "total_count": total, "skip": skip, "limit": limit})

    @routes.get(_USER)
    async def get_user(caller: Caller, user_email: str) -> Json:
        return Json(await services.users.get(caller.organization, user_email))

    @routes.patch(_USER)
    async def update_user(
        caller: Caller, user_email: str, body: Annotated[UserUpdate, Depends(bodies.body(UserUpdate))]
    ) -> Json:
        changed = await services.users.update(
            caller.organization, user_email, body.changes(), changed_by=caller.user_id
        )
        return Json(changed)

    @routes.delete(_USER)
    async def delete_user(caller: Caller, user_email: str) -> Json:
        await services.users.delete(caller.organization, user_email, deleted_by=caller.user_id)
        return Json({"success": True, "message": f"deleted the user {user_email} and revoked their API keys"})


def _key_routes(routes: Routes, services: Services) -> None:
    users, keys = services.users, services.keys

    @routes.post(_KEYS)
    async def create_api_key(
        caller: Caller, user_email: str, body: Annotated[KeyCreate, Depends(bodies.body(KeyCreate))]
    ) -> Json:
        user = await users.get(caller.organization, user_email)
        return Json(await keys.create(user, body.model_dump(mode="json"), created_by=caller.user_id))

    @routes.get(_KEYS)
    async def list_api_keys(caller: Caller, user_email: str, include_revoked: bool = False) -> Json:
        user = await users.get(caller.organization, user_email)
        found = await keys.list_of(user, include_revoked=include_revoked)
        return Json({"results": found, "total": len(found), "total_count": len(found)})

    @routes.patch(_KEY)
    async def update_api_key(
        caller: Caller,
        user_email: str,
        key_name: str,
        body: Annotated[KeyUpdate, Depends(bodies.body(KeyUpdate))],
    ) -> Json:
        user = await users.get(caller.organization, user_email)
        return Json(await keys.update(user, key_name, body.changes(), changed_by=caller.user_id))

    @routes.delete(_KEY)
    async def delete_api_key(caller: Caller, user_email: str, key_name: str) -> Json:
        user = await users.get(caller.organization, user_email)
        await keys.revoke(user, key_name, revoked_by=caller.user_id)
        return Json({"success": True, "message": f"revoked the API key {key_name}"})

    @routes.post(f"{_KEY}/rotate")
    async def rotate_api_key(caller: Caller, user_email: str, key_name: str) -> Json:
        user = await users.get(caller.organization, user_email)
        return Json(await keys.rotate(user, key_name, rotated_by=caller.user_id))
