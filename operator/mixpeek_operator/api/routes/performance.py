"""How fast a retriever answers, where its time goes, and what its cache saves."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Query

from mixpeek_operator.api.responses import Json
from mixpeek_operator.api.routing import Routes
from mixpeek_operator.api.scope import Namespaced
from mixpeek_operator.api.services import Services
from mixpeek_operator.relevance.performance import Group

ROOT = "/v1/analytics/retrievers/{retriever_id}"
Hours = Annotated[int, Query(ge=1, le=720)]


def router(services: Services) -> Routes:
    """Return the routes of a retriever's performance."""
    routes = Routes(tags=["Retriever analytics"])

    @routes.get(f"{ROOT}/performance", summary="Latencies of a retriever")
    async def get_retriever_performance(
        where: Namespaced,
        retriever_id: str,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
        group_by: Group = "hour",
    ) -> Json:
        found = services.performance.latencies(where, retriever_id, start=start_date, end=end_date, group=group_by)
        return Json(await found)

    @routes.get(f"{ROOT}/stages", summary="Time and documents of each stage")
    async def get_stage_breakdown(where: Namespaced, retriever_id: str, hours: Hours = 24) -> Json:
        return Json(await services.performance.stages(where, retriever_id, hours=hours))

    @routes.get(f"{ROOT}/cache-performance", summary="What the cache of answers saves")
    async def get_cache_performance(where: Namespaced, retriever_id: str, hours: Hours = 24) -> Json:
        return Json(await services.performance.cache(where, retriever_id, hours=hours))

    @routes.get(f"{ROOT}/slow-queries", summary="The slowest executions")
    async def get_slowest_queries(
        where: Namespaced, retriever_id: str, limit: Annotated[int, Query(ge=1, le=1000)] = 10, hours: Hours = 24
    ) -> Json:
        return Json(await services.performance.slowest(where, retriever_id, limit=limit, hours=hours))

    return routes
