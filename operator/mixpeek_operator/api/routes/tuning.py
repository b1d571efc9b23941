"""What executions and interactions say about a retriever."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from mixpeek_operator.api.responses import Json
from mixpeek_operator.api.routing import Routes
from mixpeek_operator.api.scope import Namespaced
from mixpeek_operator.api.services import Services

ROOT = "/v1/analytics/retrievers/{retriever_id}"


def router(services: Services) -> Routes:
    """Return the routes of signals and tuning."""
    routes = Routes(tags=["Retriever analytics"])

    @routes.get(f"{ROOT}/signals", summary="Signals of a retriever's executions")
    async def get_signals(
        where: Namespaced,
        retriever_id: str,
        signal_type: str | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        hours: Annotated[int, Query(ge=1, le=720)] = 24,
    ) -> Json:
        return Json(
            await services.tuning.signals(where, retriever_id, signal_type=signal_type, limit=limit, hours=hours)
        )

    @routes.post(f"{ROOT}/analyze-tuning", summary="What to change about a retriever", permission="read")
    async def analyze_tuning(
        where: Namespaced, retriever_id: str, days: Annotated[int, Query(ge=1, le=90)] = 7
    ) -> Json:
        return Json(await services.tuning.analyze(where, retriever_id, days=days))

    return routes
