"""What users did with answers."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request

from mixpeek_operator.api import bodies, lists
from mixpeek_operator.api.bodies import JsonObject
from mixpeek_operator.api.responses import Json
from mixpeek_operator.api.routing import Routes
from mixpeek_operator.api.scope import Namespaced
from mixpeek_operator.api.services import Services
from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.core.listing import ListQuery
from mixpeek_operator.relevance.interactions import FILTERS, Interaction, Interactions

ALL = "/v1/retrievers/interactions"
ONE = f"{ALL}/{{interaction_id}}"
Listing = Annotated[ListQuery, Depends(lists.query())]


def router(services: Services) -> Routes:
    """Return the routes of interactions."""
    routes = Routes(tags=["Retriever interactions"])

    @routes.post(ALL, summary="Record an interaction")
    async def create_interaction(
        where: Namespaced, body: Annotated[Interaction, Depends(bodies.body(Interaction))]
    ) -> Json:
        return Json(await services.interactions.record(where, body))

    @routes.post(f"{ALL}/batch", summary="Record several interactions")
    async def create_interactions(
        where: Namespaced, body: Annotated[Interactions, Depends(bodies.body(Interactions))]
    ) -> Json:
        return Json(await services.interactions.record_many(where, [_read(item) for item in body.interactions]))

    async def listed(where: Namespaced, query: ListQuery, named: dict[str, Any]) -> Json:
        page = await services.interactions.find(where, named, query)
        return Json({**lists.envelope(page, query), "items": page.items})

    @routes.post(f"{ALL}/list", summary="List interactions")
    async def list_interactions(where: Namespaced, query: Listing, body: JsonObject) -> Json:
        return await listed(where, query, {name: body[name] for name in FILTERS if body.get(name) is not None})

    @routes.get(ALL, summary="List interactions")
    async def get_interactions(where: Namespaced, query: Listing, request: Request) -> Json:
        given = request.query_params
        return await listed(where, query, {name: given[name] for name in FILTERS if given.get(name)})

    @routes.get(ONE, summary="Get an interaction")
    async def get_interaction(where: Namespaced, interaction_id: str) -> Json:
        return Json(await services.interactions.get(where, interaction_id))

    @routes.delete(ONE, summary="Delete an interaction; harmless when there is none")
    async def delete_interaction(where: Namespaced, interaction_id: str) -> Json:
        found = await services.interactions.delete(where, interaction_id)
        message = f"deleted the interaction {interaction_id}" if found else "there was no such interaction"
        return Json({"success": True, "deleted": found, "interaction_id": interaction_id, "message": message})

    return routes


def _read(body: dict[str, Any]) -> Interaction | SpecError:
    """The interaction, or what is wrong with it: one does not fail the others."""
    try:
        return bodies.parse(Interaction, body)
    except SpecError as error:
        return error
