"""Connections of the caller's organization to databases: never a password in an answer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Depends, Query
from pydantic import Field

from mixpeek_operator.api import bodies
from mixpeek_operator.api.auth import Caller
from mixpeek_operator.api.lists import MAX_LIMIT, MAX_OFFSET
from mixpeek_operator.api.models import Body
from mixpeek_operator.api.responses import Json
from mixpeek_operator.api.routing import Routes
from mixpeek_operator.api.services import Services

_CONNECTIONS = "/v1/organizations/connections"
_CONNECTION = f"{_CONNECTIONS}/{{connection_identifier}}"
_Status = Literal["ACTIVE", "SUSPENDED", "FAILED", "ARCHIVED"]


class ConnectionCreate(Body):
    """A new connection."""

    name: str = Field(min_length=1, max_length=100, description="How sql_lookup names it; unique.")
    provider_type: str = Field(description="postgresql, mysql or sqlite.")
    provider_config: dict[str, Any] = Field(
        description="host, port, database, ssl_mode, credentials {username, password or secret_ref}; sqlite: database."
    )
    description: str | None = Field(default=None, max_length=500, description="What it is for.")
    metadata: dict[str, Any] | None = Field(default=None, description="Anything.")
    test_before_save: bool = Field(default=True, description="Whether it is opened once before it is kept.")


class ConnectionUpdate(Body):
    """Changes of a connection."""

    name: str | None = Field(default=None, min_length=1, max_length=100, description="A new name.")
    description: str | None = Field(default=None, max_length=500, description="What it is for.")
    metadata: dict[str, Any] | None = Field(default=None, description="Replaces the metadata.")
    status: _Status | None = Field(default=None, description="Anything but ACTIVE stops queries.")
    is_active: bool | None = Field(default=None, description="The same as status.")
    provider_config: dict[str, Any] | None = Field(default=None, description="Replaces the configuration.")


class ConnectionList(Body):
    """Which connections to list."""

    provider_type: str | None = Field(default=None, description="Only those of this kind.")
    status: _Status | None = Field(default=None, description="Only those of this status.")
    is_active: bool | None = Field(default=None, description="Only active ones, or others.")


def router(services: Services) -> Routes:
    """Routes of `/v1/organizations/connections`."""
    routes = Routes(tags=["Organization connections"])

    @routes.post(_CONNECTIONS)
    async def create_connection(
        caller: Caller, body: Annotated[ConnectionCreate, Depends(bodies.body(ConnectionCreate))]
    ) -> Json:
        request = body.model_dump(mode="json")
        return Json(await services.connections.create(caller.organization, request, created_by=caller.user_id))

    @routes.post(f"{_CONNECTIONS}/list")
    async def list_connections(
        caller: Caller,
        body: Annotated[ConnectionList, Depends(bodies.body(ConnectionList))],
        limit: Annotated[int | None, Query(ge=1, le=MAX_LIMIT)] = None,
        page_size: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 100,
        offset: Annotated[int | None, Query(ge=0, le=MAX_OFFSET)] = None,
        page: Annotated[int, Query(ge=1, le=MAX_OFFSET // MAX_LIMIT)] = 1,
    ) -> Json:
        found = await services.connections.find(
            caller.organization, provider_type=body.provider_type, status=body.status, is_active=body.is_active
        )
        size = limit or page_size
        start = (page - 1) * size if offset is None else offset
        number, pages = start // size + 1, -(-len(found) // size)
        pagination = {
            "page": number,
            "page_size": size,
            "total_pages": pages,
            "total": len(found),
            "next_page": str(number + 1) if number < pages else None,
            "previous_page": str(number - 1) if number > 1 else None,
        }
        return Json({"results": found[start : start + size], "total": len(found), "pagination": pagination})

    @routes.get(_CONNECTION)
    async def get_connection(caller: Caller, connection_identifier: str) -> Json:
        return Json(await services.connections.get(caller.organization, connection_identifier))

    @routes.patch(_CONNECTION)
    async def update_connection(
        caller: Caller,
        connection_identifier: str,
        body: Annotated[ConnectionUpdate, Depends(bodies.body(ConnectionUpdate))],
    ) -> Json:
        changes = {name: value for name, value in body.changes().items() if value is not None or name == "description"}
        return Json(await services.connections.update(caller.organization, connection_identifier, changes))

    @routes.delete(_CONNECTION)
    async def delete_connection(caller: Caller, connection_identifier: str) -> Json:
        await services.connections.delete(caller.organization, connection_identifier)
        return Json({"connection_id": connection_identifier, "message": "the connection is deleted"})

    @routes.post(f"{_CONNECTION}/test")
    async def test_connection(caller: Caller, connection_identifier: str) -> Json:
        return Json(await services.connections.test(caller.organization, connection_identifier))

    return routes
