"""Running taxonomies and clusters: what can be declared and not yet run answers so, and says it plainly."""

from __future__ import annotations

from typing import Annotated, Never

from fastapi import Depends

from mixpeek_operator.api import lists
from mixpeek_operator.api.responses import Json
from mixpeek_operator.api.routing import Routes
from mixpeek_operator.api.scope import Namespaced
from mixpeek_operator.api.services import Services
from mixpeek_operator.core.errors import NotEnabledError
from mixpeek_operator.core.listing import ListPage, ListQuery
from mixpeek_operator.core.scope import Scope

Listing = Annotated[ListQuery, Depends(lists.query())]


def router(services: Services) -> Routes:
    """Return the routes of runs."""
    routes = Routes(tags=["Enrichments"])

    async def refused(where: Scope, kind: str, identifier: str) -> Never:
        found = await services.resources.get(where, kind, identifier)
        noun = kind.lower()
        raise NotEnabledError(
            f"{noun} {found.name!r} is declared and checked, and this server does not run {noun} jobs",
            details={"retryable": False, "id": found.id},
        )

    @routes.post("/v1/taxonomies/{taxonomy_identifier}/execute", tags=["Taxonomies"], summary="Run a taxonomy")
    async def execute_taxonomy(where: Namespaced, taxonomy_identifier: str) -> Json:
        await refused(where, "Taxonomy", taxonomy_identifier)

    @routes.post("/v1/taxonomies/execute/{taxonomy_identifier}", tags=["Taxonomies"], summary="Run a taxonomy")
    async def execute_taxonomy_on_demand(where: Namespaced, taxonomy_identifier: str) -> Json:
        await refused(where, "Taxonomy", taxonomy_identifier)

    @routes.post("/v1/clusters/{cluster_id}/execute", tags=["Clusters"], summary="Run a cluster")
    async def execute_cluster(where: Namespaced, cluster_id: str) -> Json:
        await refused(where, "Cluster", cluster_id)

    @routes.post("/v1/clusters/{cluster_id}/executions/list", tags=["Cluster Executions"], summary="Runs of a cluster")
    async def list_cluster_executions(where: Namespaced, cluster_id: str, query: Listing) -> Json:
        await services.resources.get(where, "Cluster", cluster_id)
        return Json(lists.envelope(ListPage([], 0, None), query))

    return routes
