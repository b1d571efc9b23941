"""Declared resources in their Kubernetes envelope, with conditions and events, for `mixpeekctl`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Query, Request

from mixpeek_operator.api import scope
from mixpeek_operator.api.declared import counted_status
from mixpeek_operator.api.responses import Json
from mixpeek_operator.api.routes.kinds import SETTLE_S, deletion_waits_for
from mixpeek_operator.api.routing import Routes
from mixpeek_operator.api.services import Services
from mixpeek_operator.core.errors import NotFoundError
from mixpeek_operator.core.resource import Resource
from mixpeek_operator.core.resources import Referrers
from mixpeek_operator.core.scope import Scope

ROOT = "/v1/resources/{plural}"
_REFERRERS = (
    "What becomes of a resource that others refer to: `wait` (the default) marks it, and it goes when the last of them "
    "has gone; `delete` deletes them too (the default for a namespace); `refuse` answers 409."
)
_WAIT_SECONDS = "Longest wait for the end of the deletion; it goes on after the answer."


def router(services: Services) -> Routes:
    """Return the routes of envelopes."""
    routes = Routes(tags=["Resources"])
    kinds = {services.kinds[name].schema.plural: name for name in services.kinds}

    def kind_of(plural: str) -> str:
        if plural not in kinds:
            raise NotFoundError(f"no kind {plural!r}; there are {', '.join(kinds)}")
        return kinds[plural]

    async def within(request: Request, namespace: str | None) -> Scope:
        return await scope.resolve(request, namespace) if namespace else await scope.organization(request)

    async def one(request: Request, kind: str, name: str, namespace: str | None) -> tuple[Scope, Resource]:
        where = await within(request, None if kind == "Namespace" else namespace)
        if kind != "Namespace" and where.namespace is None:
            where = await scope.namespaced(request)
        return where, await services.resources.get(where, kind, name)

    @routes.get(ROOT, summary="List resources of a kind, of all namespaces unless one is named")
    async def list_resources(request: Request, plural: str, namespace: str | None = None) -> Json:
        kind = kind_of(plural)
        where = await within(request, None if kind == "Namespace" else namespace)
        found = await services.resources.find(where, kind)
        states = await counted_status(services, where, kind, found)
        return Json({"results": [envelope(item, status) for item, status in zip(found, states, strict=True)]})

    @routes.get(f"{ROOT}/{{name}}", summary="Get a resource")
    async def get_resource(request: Request, plural: str, name: str, namespace: str | None = None) -> Json:
        kind = kind_of(plural)
        where, found = await one(request, kind, name, namespace)
        (status,) = await counted_status(services, where, kind, [found])
        return Json(envelope(found, status))

    @routes.get(f"{ROOT}/{{name}}/events", summary="What happened to a resource, newest first")
    async def get_events(request: Request, plural: str, name: str, namespace: str | None = None) -> Json:
        _, found = await one(request, kind_of(plural), name, namespace)
        events = await services.resources.events(found.key)
        return Json(
            {
                "results": [
                    {"type": item.type, "reason": item.reason, "message": item.message, "at": item.at}
                    for item in events
                ]
            }
        )

    @routes.delete(f"{ROOT}/{{name}}", summary="Ask for the deletion of a resource and its data")
    async def delete_resource(
        request: Request,
        plural: str,
        name: str,
        namespace: str | None = None,
        referrers: Annotated[Referrers | None, Query(description=_REFERRERS)] = None,
        wait_seconds: Annotated[float, Query(ge=0, le=SETTLE_S, description=_WAIT_SECONDS)] = SETTLE_S,
    ) -> Json:
        kind = kind_of(plural)
        where, found = await one(request, kind, name, namespace)
        chosen = referrers or (Referrers.DELETE if kind == "Namespace" else Referrers.WAIT)
        await services.resources.delete(where, kind, name, referrers=chosen)
        left = await services.resources.wait_settled(found.key, wait_seconds)
        waiting = [] if left is None else [text for text in [deletion_waits_for(left)] if text]
        return Json({"deleted": left is None, "waiting_for": waiting})

    return routes


def envelope(resource: Resource, status: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resource as `kubectl get -o json` would show it, its spec as in a manifest."""
    meta = resource.metadata
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {
            "name": meta.name,
            "namespace": meta.organization,
            "uid": meta.uid,
            "generation": meta.generation,
            "resourceVersion": str(meta.resource_version),
            "labels": meta.labels,
            "annotations": meta.annotations,
            "finalizers": meta.finalizers,
            "creationTimestamp": meta.creation_timestamp,
            "deletionTimestamp": meta.deletion_timestamp,
        },
        "spec": resource.spec,
        "status": status,
    }
