"""In which namespace a request works: the `X-Namespace` header, by id or by name."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from mixpeek_operator.api import auth
from mixpeek_operator.api.services import Services
from mixpeek_operator.core.errors import BadRequestError
from mixpeek_operator.core.scope import Scope

HEADER = "x-namespace"
_SHOWN = 10


async def namespaced(request: Request) -> Scope:
    """Return the organization and the namespace of the request.

    Without the header the organization's only namespace is meant; BadRequestError when it has none or
    several, NotFoundError for a namespace of nobody or of somebody else.
    """
    return await resolve(request, request.headers.get(HEADER))


async def organization(request: Request) -> Scope:
    """Return the organization alone, for what lives outside namespaces (namespaces, manifests, tasks)."""
    principal = await auth.current(request)
    return Scope(principal.organization)


async def resolve(request: Request, identifier: str | None) -> Scope:
    """Return the scope of a namespace named by id or name (for routes that have it in their path)."""
    principal = await auth.current(request)
    services: Services = request.app.state.services
    if identifier:
        found = await services.directory.namespace(principal.organization, identifier)
        return Scope(principal.organization, found.id, found.name)
    every = await services.directory.namespaces(principal.organization)
    if len(every) == 1:
        return Scope(principal.organization, every[0].id, every[0].name)
    if not every:
        raise BadRequestError(
            "there is no namespace yet; create one with POST /v1/namespaces or apply a manifest",
            code="namespace_required",
        )
    names = [item.name for item in every[:_SHOWN]]
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    raise BadRequestError(
        f"send the header X-Namespace (id or name): the organization has {', '.join(names)}{more}",
        code="namespace_required",
        details={"namespaces": names},
    )


Namespaced = Annotated[Scope, Depends(namespaced)]
"""A scope with namespace, as a parameter of a route."""
OfOrganization = Annotated[Scope, Depends(organization)]
"""A scope of the organization alone, as a parameter of a route."""
