"""Running retrievers, explaining them, and the history of runs."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends

from mixpeek_operator.api import lists
from mixpeek_operator.api.bodies import JsonObject
from mixpeek_operator.api.responses import Json
from mixpeek_operator.api.routing import Routes
from mixpeek_operator.api.scope import Namespaced
from mixpeek_operator.api.services import Services
from mixpeek_operator.core.listing import ListPage, ListQuery

ONE = "/v1/retrievers/{retriever_id}"
Listing = Annotated[ListQuery, Depends(lists.query())]


def router(services: Services) -> Routes:
    """Return the routes of executions."""
    routes = Routes(tags=["Retrievers"])
    _execute(routes, services)
    _history(routes, services)
    return routes


def _execute(routes: Routes, services: Services) -> None:
    @routes.post(f"{ONE}/execute", summary="Run a retriever", permission="read")
    async def execute_retriever(
        where: Namespaced,
        retriever_id: str,
        body: JsonObject,
        return_presigned_urls: bool | None = None,
        return_urls: bool | None = None,
        return_vectors: bool | None = None,
        skip_cache: bool | None = None,
    ) -> Json:
        flags = {
            "return_presigned_urls": return_presigned_urls or return_urls,
            "return_vectors": return_vectors,
            "skip_cache": skip_cache,
        }
        # Either place may ask; neither takes back what the other asks for.
        request = {**body, **{name: True for name, value in flags.items() if value}}
        return Json(await services.retrieval.execute(where, retriever_id, request))

    @routes.post("/v1/retrievers/execute", summary="Run stages without storing a retriever", permission="read")
    async def execute_adhoc(where: Namespaced, body: JsonObject) -> Json:
        return Json(await services.retrieval.execute_adhoc(where, body))

    async def explained(where: Namespaced, retriever_id: str, body: JsonObject) -> Json:
        return Json(await services.retrieval.explain(where, retriever_id, body))

    for path, operation in ((f"{ONE}/execute/explain", "explain_execution"), (f"{ONE}/explain", "explain_retriever")):
        summary = "How a retriever would run; runs nothing"
        routes.post(path, operation_id=operation, summary=summary, permission="read")(explained)


def _history(routes: Routes, services: Services) -> None:
    def listed(page: ListPage, query: ListQuery) -> Json:
        shown = lists.envelope(page, query)
        total = page.total if page.total is not None else query.offset + len(page.items)
        paging = {
            **shown["pagination"],
            "total": total,
            "limit": query.limit,
            "offset": query.offset,
            "has_next": page.next_cursor is not None,
        }
        return Json({**shown, "pagination": paging})

    @routes.post(f"{ONE}/executions/list", summary="Runs of a retriever")
    async def list_executions(where: Namespaced, retriever_id: str, query: Listing) -> Json:
        return listed(await services.retrieval.executions(where, retriever_id, query), query)

    @routes.get(f"{ONE}/executions", summary="Runs of a retriever")
    async def get_executions(where: Namespaced, retriever_id: str, query: Listing) -> Json:
        return listed(await services.retrieval.executions(where, retriever_id, query), query)

    @routes.get(f"{ONE}/executions/{{execution_id}}", summary="One run")
    async def get_execution(where: Namespaced, retriever_id: str, execution_id: str) -> Json:
        return Json(await services.retrieval.execution(where, execution_id))

    @routes.post("/v1/retrievers/executions/list", summary="Runs of any retriever and ad hoc runs")
    async def list_all_executions(where: Namespaced, query: Listing) -> Json:
        return listed(await services.retrieval.executions(where, None, query), query)

    @routes.get("/v1/retrievers/executions/{execution_id}", summary="One run of any kind")
    async def get_any_execution(where: Namespaced, execution_id: str) -> Json:
        return Json(await services.retrieval.execution(where, execution_id))
