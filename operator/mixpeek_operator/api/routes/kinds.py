"""Declared resources over REST: create, read, list, change and delete, the same for every kind.

Annotations are evaluated here, as the scope a handler asks for depends on the kind.
"""

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, Request

from mixpeek_operator.api import bodies, lists, scope
from mixpeek_operator.api.declared import facts_of
from mixpeek_operator.api.responses import Json
from mixpeek_operator.api.routing import Routes
from mixpeek_operator.api.services import Services
from mixpeek_operator.core.errors import ConflictError, SpecError, UnavailableError
from mixpeek_operator.core.filters import matches
from mixpeek_operator.core.listing import ListPage, ListQuery
from mixpeek_operator.core.resource import Resource
from mixpeek_operator.core.rest import RestView
from mixpeek_operator.core.scope import Scope

SETTLE_S = 60.0
"""Longest wait of a create or update for the engine; the declaration stands either way."""


def views(kinds: Mapping[str, Any]) -> dict[str, RestView]:
    """Return the REST view of every kind that has one, in the order of `kinds`."""
    found: dict[str, RestView] = {}
    for kind in kinds:
        package = f"mixpeek_operator.kinds.{kind.lower()}"
        if importlib.util.find_spec(f"{package}.rest") is not None:
            found[kind] = importlib.import_module(f"{package}.rest").REST
    return found


def router(services: Services) -> Routes:
    """Return the routes of all kinds."""
    routes = Routes(tags=["Resources"])
    for kind, view in views(services.kinds).items():
        _add(routes, services, kind, view)
    return routes


def _add(routes: Routes, services: Services, kind: str, view: RestView) -> None:
    within = scope.organization if kind == "Namespace" else scope.namespaced
    one = f"{view.path}/{{{view.parameter}}}"
    Where = Annotated[Scope, Depends(within)]
    Query = Annotated[ListQuery, Depends(lists.query())]
    noun = kind.lower()
    tags: list[Any] = [view.tag]

    async def create(where: Where, body: bodies.JsonObject) -> Json:
        made = await services.resources.create(where, kind, declaration(view, body))
        return Json(await shown(where, await settled(services, made)))

    async def read(where: Where, request: Request) -> Json:
        identifier = request.path_params[view.parameter]
        return Json(await shown(where, await services.resources.get(where, kind, identifier)))

    async def change(where: Where, request: Request, body: bodies.JsonObject) -> Json:
        patch = declaration(view, body)
        if not patch:
            raise SpecError("the body changes nothing; send at least one field", code="empty_update")
        changed = await services.resources.update(where, kind, request.path_params[view.parameter], patch)
        answer = await shown(where, await settled(services, changed))
        if kind == "Retriever":
            return Json({"retriever": answer, **answer})
        return Json(answer)

    async def delete(where: Where, request: Request) -> Json:
        identifier = request.path_params[view.parameter]
        resource = await services.resources.get(where, kind, identifier)
        await services.resources.delete(where, kind, identifier)
        left = await services.resources.wait_settled(resource.key, SETTLE_S)
        if left is not None and left.deleting:
            raise ConflictError(
                f"{noun} {resource.name!r} is still in use: {_why(left)}",
                code="in_use",
                details={"name": resource.name},
            )
        return Json({"success": True, "message": f"{noun} {resource.name!r} was deleted"})

    async def listing(where: Where, query: Query) -> Json:
        found = await services.resources.find(where, kind)
        answers = [await shown(where, item) for item in found]
        page = page_of(answers, query, name_of=lambda item: str(item.get(f"{noun}_name", "")))
        return Json({**lists.envelope(page, query), "total": page.total})

    async def shown(where: Scope, resource: Resource) -> dict[str, Any]:
        return view.render(resource, await facts_of(services, where, kind, view, resource))

    plural = view.path.rsplit("/", 1)[-1]
    routes.post(view.path, tags=tags, operation_id=f"create_{noun}", summary=f"Create a {noun}")(create)
    routes.get(view.path, tags=tags, operation_id=f"get_{plural}", summary=f"List {plural}")(listing)
    routes.post(f"{view.path}/list", tags=tags, operation_id=f"list_{plural}", summary=f"List {plural}")(listing)
    routes.get(one, tags=tags, operation_id=f"get_{noun}", summary=f"Get a {noun}")(read)
    routes.patch(one, tags=tags, operation_id=f"patch_{noun}", summary=f"Change a {noun}")(change)
    if kind in ("Namespace", "Bucket"):
        routes.put(one, tags=tags, operation_id=f"update_{noun}", summary=f"Change a {noun}")(change)
    routes.delete(one, tags=tags, operation_id=f"delete_{noun}", summary=f"Delete a {noun} and its data")(delete)


def declaration(view: RestView, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a request body that declares something; null means "not said"."""
    return {key: value for key, value in body.items() if key not in view.ignored and value is not None}


async def settled(services: Services, resource: Resource) -> Resource:
    """Return the resource once the engine has worked on it. UnavailableError when a store is away."""
    found = await services.resources.wait_settled(resource.key, SETTLE_S)
    if found is None:
        return resource
    for condition in found.status.get("conditions") or ():
        if condition.get("type") == "Synced" and condition.get("reason") == "BackendUnavailable":
            raise UnavailableError(str(condition.get("message")))
    return found


def page_of(items: list[dict[str, Any]], query: ListQuery, *, name_of: Any) -> ListPage:
    """Return one page of items that are all in memory: searched, filtered, sorted, cut."""
    if query.search:
        wanted = query.search.lower()
        items = [
            item
            for item in items
            if wanted in name_of(item).lower()
            or wanted in str(item.get("description") or "").lower()
            or any(wanted in str(value).lower() for key, value in item.items() if key.endswith("_id"))
        ]
    if query.filters is not None:
        items = [item for item in items if matches(query.filters, item)]
    for field, direction in reversed(query.sort):
        present = [item for item in items if item.get(field) is not None]
        missing = [item for item in items if item.get(field) is None]
        items = sorted(present, key=lambda item: str(item[field]), reverse=direction == "desc") + missing
    start = int(query.cursor) if query.cursor and query.cursor.isdigit() else query.offset
    if query.cursor and not query.cursor.isdigit():
        raise SpecError("the cursor does not belong to this list", code="invalid_cursor")
    end = start + query.limit
    return ListPage(items[start:end], len(items), str(end) if end < len(items) else None)


def _why(resource: Resource) -> str:
    for condition in resource.status.get("conditions") or ():
        if condition.get("type") in ("Ready", "Synced") and condition.get("message"):
            return str(condition["message"])
    return "something refers to it"
