"""The caller's organization, and who the caller is."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends

from mixpeek_operator.api import bodies
from mixpeek_operator.api.auth import ANY, Caller
from mixpeek_operator.api.models import OrganizationUpdate
from mixpeek_operator.api.responses import Json
from mixpeek_operator.api.routing import Routes
from mixpeek_operator.api.services import Services


def router(services: Services) -> Routes:
    """Routes of `/v1/organizations` and `/v1/me`."""
    routes = Routes(tags=["Organizations"])

    @routes.get("/v1/organizations")
    async def get_organization(caller: Caller) -> Json:
        return Json(_shown(await services.organizations.get(caller.organization)))

    @routes.patch("/v1/organizations")
    async def update_organization(
        caller: Caller, body: Annotated[OrganizationUpdate, Depends(bodies.body(OrganizationUpdate))]
    ) -> Json:
        return Json(_shown(await services.organizations.update(caller.organization, body.changes())))

    @routes.get("/v1/me", permission=ANY)
    async def whoami(caller: Caller) -> Json:
        organization = await services.organizations.get(caller.organization)
        return Json(
            {
                "organization_id": organization["organization_id"],
                "organization_name": organization["organization_name"],
                "account_type": organization["account_type"],
                "user_email": caller.user_email,
                "key": {
                    "name": caller.key_name,
                    "key_type": "standard",
                    "permissions": sorted(caller.permissions),
                    "expires_at": caller.expires_at,
                },
                "principal_scoped": False,
            }
        )

    return routes


def _shown(organization: dict[str, Any]) -> dict[str, Any]:
    """A server of one's own meters nothing: no credits, no plan limits."""
    return {**organization, "credit_count": 0, "rate_limits": {}, "auto_billing_enabled": False}
