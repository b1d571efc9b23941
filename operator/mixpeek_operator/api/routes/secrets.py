"""Secrets of the caller's organization: names only, never a value."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends

from mixpeek_operator.api import bodies
from mixpeek_operator.api.auth import Caller
from mixpeek_operator.api.models import SecretCreate, SecretUpdate
from mixpeek_operator.api.responses import Json
from mixpeek_operator.api.routing import Routes
from mixpeek_operator.api.services import Services

_SECRETS = "/v1/organizations/secrets"
_SECRET = f"{_SECRETS}/{{secret_name}}"


def router(services: Services) -> Routes:
    """Routes of `/v1/organizations/secrets`."""
    routes = Routes(tags=["Organization secrets"])

    @routes.post(_SECRETS)
    async def create_secret(caller: Caller, body: Annotated[SecretCreate, Depends(bodies.body(SecretCreate))]) -> Json:
        value = body.secret_value.get_secret_value()
        await services.secrets.create(caller.organization, body.secret_name, value)
        return Json({"secret_name": body.secret_name, "created": True})

    @routes.get(_SECRETS)
    async def list_secrets(caller: Caller) -> Json:
        names = await services.secrets.names(caller.organization)
        return Json({"secrets": names, "count": len(names)})

    @routes.put(_SECRET)
    async def update_secret(
        caller: Caller, secret_name: str, body: Annotated[SecretUpdate, Depends(bodies.body(SecretUpdate))]
    ) -> Json:
        await services.secrets.update(caller.organization, secret_name, body.secret_value.get_secret_value())
        return Json({"secret_name": secret_name, "updated": True})

    @routes.delete(_SECRET)
    async def delete_secret(caller: Caller, secret_name: str) -> Json:
        await services.secrets.delete(caller.organization, secret_name)
        return Json({"secret_name": secret_name, "deleted": True})

    return routes
