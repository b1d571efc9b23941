"""Declared resources over REST: create, read, list, change, copy and delete, the same for every kind.

Annotations are evaluated here, as the scope a handler asks for depends on the kind.
"""

import importlib
import importlib.util
import re
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, Request

from mixpeek_operator.api import bodies, lists, scope
from mixpeek_operator.api.declared import arranged, cut, facts_of, searched, stats_of_namespace
from mixpeek_operator.api.responses import Json
from mixpeek_operator.api.routing import Routes
from mixpeek_operator.api.services import Services
from mixpeek_operator.core import conditions
from mixpeek_operator.core.catalog import Need
from mixpeek_operator.core.errors import ConflictError, NotFoundError, Place, Problem, SpecError, UnavailableError
from mixpeek_operator.core.filters import fields
from mixpeek_operator.core.listing import ListPage, ListQuery
from mixpeek_operator.core.needs import lacking, there
from mixpeek_operator.core.normal import path_text
from mixpeek_operator.core.resource import Resource
from mixpeek_operator.core.rest import RestView
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.manifest.expressions import expressions
from mixpeek_operator.manifest.secrets import told

SETTLE_S = 60.0
"""Longest wait of a create or update for the engine; the declaration stands either way."""
_NAMESPACE_ID = re.compile(r"ns_[a-z0-9]{10}")


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
    _stats(routes, services)
    return routes


def _stats(routes: Routes, services: Services) -> None:
    @routes.get("/v1/namespaces/{namespace_identifier}/stats", tags=["Namespaces"], summary="What a namespace holds")
    async def get_namespace_stats(where: scope.OfOrganization, namespace_identifier: str) -> Json:
        found = await services.resources.get(where, "Namespace", namespace_identifier)
        return Json(await stats_of_namespace(services, where, found))

    @routes.post("/v1/namespaces/stats/batch", tags=["Namespaces"], permission="read")
    async def get_namespace_stats_batch(where: scope.OfOrganization, body: bodies.JsonObject) -> Json:
        """What several namespaces hold; one that does not exist is left out."""
        wanted = body.get("namespace_ids")
        if not isinstance(wanted, list) or not all(isinstance(item, str) for item in wanted):
            raise SpecError.of([Problem("list_type", "send ids as a list", location=("body", "namespace_ids"))])
        found = [item for item in await services.resources.find(where, "Namespace") if item.id in wanted]
        return Json({"stats": {item.id: await stats_of_namespace(services, where, item) for item in found}})


def _add(routes: Routes, services: Services, kind: str, view: RestView) -> None:
    within = scope.organization if kind == "Namespace" else scope.namespaced
    one = f"{view.path}/{{{view.parameter}}}"
    Where = Annotated[Scope, Depends(within)]
    Query = Annotated[ListQuery, Depends(lists.query())]
    noun = kind.lower()
    tags: list[Any] = [view.tag]

    async def create(where: Where, body: bodies.JsonObject) -> Json:
        spec = declaration(where, view, body)
        await _known_needs(services, where, kind, spec)
        made = await services.resources.create(where, kind, spec, id=_taken_over(kind, spec))
        return Json(await shown(where, await settled(services, made)))

    async def read(where: Where, request: Request) -> Json:
        identifier = request.path_params[view.parameter]
        return Json(await shown(where, await services.resources.get(where, kind, identifier)))

    async def change(where: Where, request: Request, body: bodies.JsonObject) -> Json:
        patch = declaration(where, view, body)
        if not patch:
            raise SpecError("the body changes nothing; send at least one field", code="empty_update")
        await _known_needs(services, where, kind, patch)
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
                f"{noun} {resource.name!r} is not gone yet: {deletion_waits_for(left) or 'the deletion is under way'}",
                code="in_use",
                details={"name": resource.name},
            )
        return Json({"success": True, "message": f"{noun} {resource.name!r} was deleted"})

    async def clone(where: Where, request: Request, body: bodies.JsonObject) -> Json:
        changes = declaration(where, view, body)
        name = changes.pop(f"{noun}_name", None) or changes.pop("name", None)
        if name is None:
            problem = Problem("missing_field", "name the copy", location=("body", f"{noun}_name"))
            raise SpecError.of([problem])
        source = await services.resources.get(where, kind, request.path_params[view.parameter])
        spec = {**source.spec, **changes, "name": name}
        await _known_needs(services, where, kind, spec)
        made = await services.resources.create(where, kind, spec)
        answer = await shown(where, await settled(services, made))
        return Json({noun: answer, f"source_{noun}_id": source.id})

    async def listing(where: Where, query: Query) -> Json:
        found = searched(await services.resources.find(where, kind), query.search)
        deciding = fields(query.filters) | {field for field, _ in query.sort}
        if deciding:
            # Counting is done for the page alone, unless it decides what is on the page.
            counted = not deciding.isdisjoint(view.counted)
            pairs = [(await shown(where, item, counted=counted), item) for item in found]
            found = [item for _, item in arranged(pairs, query)]
        chosen, cursor = cut(found, query, f"{where.namespace_id}{view.path}")
        page = ListPage([await shown(where, item) for item in chosen], len(found), cursor)
        return Json({**lists.envelope(page, query), "total": page.total})

    async def shown(where: Scope, resource: Resource, *, counted: bool = True) -> dict[str, Any]:
        return view.render(resource, await facts_of(services, where, kind, view, resource, counted=counted))

    plural = view.path.rsplit("/", 1)[-1]
    routes.post(view.path, tags=tags, operation_id=f"create_{noun}", summary=f"Create a {noun}")(create)
    routes.get(view.path, tags=tags, operation_id=f"get_{plural}", summary=f"List {plural}")(listing)
    routes.post(f"{view.path}/list", tags=tags, operation_id=f"list_{plural}", summary=f"List {plural}")(listing)
    routes.get(one, tags=tags, operation_id=f"get_{noun}", summary=f"Get a {noun}")(read)
    routes.patch(one, tags=tags, operation_id=f"patch_{noun}", summary=f"Change a {noun}")(change)
    if kind in ("Namespace", "Bucket"):
        routes.put(one, tags=tags, operation_id=f"update_{noun}", summary=f"Change a {noun}")(change)
    if view.cloned:
        summary = f"Copy a {noun} under another name"
        routes.post(f"{one}/clone", tags=tags, operation_id=f"clone_{noun}", summary=summary)(clone)
    routes.delete(one, tags=tags, operation_id=f"delete_{noun}", summary=f"Delete a {noun} and its data")(delete)


def declaration(where: Scope, view: RestView, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a request body that declares something; null means "not said".

    Some clients repeat the namespace in the body: it must be the request's own, else NotFoundError.
    """
    declared = {key: value for key, value in body.items() if key not in view.ignored and value is not None}
    if where.namespace_id is None:
        return declared
    for key in ("namespace_id", "namespace"):
        named = declared.pop(key, None)
        if named is not None and named not in (where.namespace_id, where.namespace):
            raise NotFoundError(f"this request is about namespace {where.namespace!r}; the body names {named!r}")
    return declared


async def _known_needs(services: Services, where: Scope, kind: str, spec: Mapping[str, Any]) -> None:
    """Raise SpecError naming the secrets and connections that are used and that the organization does not have."""
    placeholders = [Need("secret", name, path) for path, scope, name, _ in expressions(spec) if scope == "secrets"]
    stages = spec.get("stages")
    named = services.catalog.stage_needs(stages) if kind == "Retriever" and isinstance(stages, list) else []
    needs = list(dict.fromkeys([*placeholders, *named]))
    names = await there(needs, where.organization, secrets=services.secrets, connections=services.connections)
    problems = [
        Problem(*told(need), Place(path=path_text(need.location)), location=("body", *need.location))
        for need in lacking(needs, names)
    ]
    if problems:
        raise SpecError.of(problems)


def _taken_over(kind: str, spec: dict[str, Any]) -> str | None:
    """Take `namespace_id` out of a namespace's declaration: an id to keep, or the name once more."""
    if kind != "Namespace" or "namespace_id" not in spec:
        return None
    given = spec.pop("namespace_id")
    if isinstance(given, str) and _NAMESPACE_ID.fullmatch(given):
        return given
    if given in (spec.get("namespace_name"), spec.get("name")):
        return None
    message = "an id is ns_ and ten of a-z and 0-9; leave it out and one is made"
    raise SpecError.of([Problem("invalid_value", message, location=("body", "namespace_id"))])


async def settled(services: Services, resource: Resource) -> Resource:
    """Return the resource once the engine has worked on it. UnavailableError when a store is away."""
    found = await services.resources.wait_settled(resource.key, SETTLE_S, enough=conditions.is_judged)
    if found is None:
        return resource
    for condition in found.status.get("conditions") or ():
        if condition.get("type") == "Synced" and condition.get("reason") == "BackendUnavailable":
            raise UnavailableError(str(condition.get("message")))
    return found


def deletion_waits_for(resource: Resource) -> str:
    """Return what keeps a resource that is being deleted, "" when the engine has not looked at it since."""
    if resource.status.get("observed_generation") != resource.metadata.generation:
        return ""
    ready = conditions.read(resource.status, conditions.READY) or {}
    return str(ready.get("message") or "")
