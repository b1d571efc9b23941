"""Running retrievers, explaining them, and the history of runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Any

import orjson
from fastapi import Depends, Request, Response
from fastapi.responses import StreamingResponse

from mixpeek_operator.api import bodies, lists, openapi, scope
from mixpeek_operator.api.bodies import JsonObject
from mixpeek_operator.api.responses import Json
from mixpeek_operator.api.routing import Routes
from mixpeek_operator.api.scope import Namespaced
from mixpeek_operator.api.services import Services
from mixpeek_operator.core.errors import MixpeekError, Problem, SpecError
from mixpeek_operator.core.filters import all_of, equals
from mixpeek_operator.core.listing import ListPage, ListQuery
from mixpeek_operator.retrieval.query import Asked
from mixpeek_operator.retrieval.wire import Answer

ONE = "/v1/retrievers/{retriever_id}"
_MAX_QUERIES = 50
_QUERIES_AT_ONCE = 8
_MAX_REMEMBERED = 16 * 1024
"""Bytes of a body that is remembered in case it comes again: to read it takes as long as to find the kept answer."""
_FLAGS = {
    "return_presigned_urls": "return_presigned_urls",
    "return_urls": "return_presigned_urls",
    "return_vectors": "return_vectors",
    "skip_cache": "skip_cache",
    "stream": "stream",
}
"""Flags that may stand in the query, and the name each has in the body."""
_EXECUTE = {
    "parameters": [
        openapi.NAMESPACE_PARAMETER,
        *({"name": name, "in": "query", "schema": {"type": "boolean"}} for name in _FLAGS),
    ],
    "requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}},
}
Listing = Annotated[ListQuery, Depends(lists.query())]


def router(services: Services) -> Routes:
    """Return the routes of executions."""
    routes = Routes(tags=["Retrievers"])
    _execute(routes, services)
    _history(routes, services)
    return routes


def _execute(routes: Routes, services: Services) -> None:
    @routes.post(f"{ONE}/execute", summary="Run a retriever", permission="read", direct=True, openapi_extra=_EXECUTE)
    async def execute_retriever(request: Request, retriever_id: str) -> Response:
        where = await scope.namespaced(request)
        body = _with_flags(request, await _asked(request))
        if body.get("stream"):
            return _stream(await services.retrieval.events(where, retriever_id, body))
        return _answered(request, await services.retrieval.answer(where, retriever_id, body))

    @routes.post(
        "/v1/retrievers/execute",
        summary="Run stages without storing a retriever",
        permission="read",
        direct=True,
        openapi_extra=_EXECUTE,
    )
    async def execute_adhoc(request: Request) -> Response:
        where = await scope.namespaced(request)
        body = _with_flags(request, await bodies.json_object(request))
        if body.get("stream"):
            answer: Response = _stream(await services.retrieval.events(where, None, body))
        else:
            answer = Json(await services.retrieval.execute_adhoc(where, body))
        answer.headers["X-Execution-Mode"] = "adhoc"
        return answer

    @routes.delete(f"{ONE}/cache", summary="Forget all that is kept of a retriever's answers", permission="write")
    async def clear_retriever_cache(where: Namespaced, retriever_id: str) -> Json:
        return Json(await services.retrieval.clear_cache(where, retriever_id))

    @routes.post(f"{ONE}/execute/batch", summary="Run a retriever for many inputs at once", permission="read")
    async def execute_batch(
        where: Namespaced,
        retriever_id: str,
        body: JsonObject,
        return_presigned_urls: bool = False,
        return_vectors: bool = False,
    ) -> Json:
        queries = body.get("queries")
        if not isinstance(queries, list) or not 1 <= len(queries) <= _MAX_QUERIES:
            message = f"send 1 to {_MAX_QUERIES} queries, each with inputs"
            raise SpecError.of([Problem("list_type", message, location=("body", "queries"))])
        # What concerns the retriever fails the call; what concerns one query fails that query.
        await services.directory.retriever(str(where.namespace_id), retriever_id)
        asked = {
            "return_presigned_urls": return_presigned_urls or bool(body.get("return_presigned_urls")),
            "return_vectors": return_vectors or bool(body.get("return_vectors")),
        }
        turn = asyncio.Semaphore(_QUERIES_AT_ONCE)

        async def answered(index: int, query: Any) -> dict[str, Any]:
            try:
                if not isinstance(query, dict):
                    raise SpecError(f"query {index} must be an object with inputs", code="dict_type")
                async with turn:
                    found = await services.retrieval.answer(where, retriever_id, {**asked, **query})
            except MixpeekError as error:
                failed = {"message": error.message, "type": error.type, "code": error.code}
                return {"query_index": index, "status": "failed", "error": failed}
            return {"query_index": index, **orjson.loads(found.body)}

        results = await asyncio.gather(*(answered(index, query) for index, query in enumerate(queries)))
        failed = sum(item["status"] == "failed" for item in results)
        counts = {"total": len(results), "succeeded": len(results) - failed, "failed": failed}
        return Json({"retriever_id": retriever_id, "results": results, **counts})

    async def explained(where: Namespaced, retriever_id: str, body: JsonObject) -> Json:
        return Json(await services.retrieval.explain(where, retriever_id, body))

    for path, operation in ((f"{ONE}/execute/explain", "explain_execution"), (f"{ONE}/explain", "explain_retriever")):
        summary = "How a retriever would run; runs nothing"
        routes.post(path, operation_id=operation, summary=summary, permission="read")(explained)


def _with_flags(request: Request, body: dict[str, Any]) -> dict[str, Any]:
    """The body with the flags of the query: either place may ask, neither takes back what the other asks for."""
    if not request.scope["query_string"]:
        return body
    flags = {_FLAGS[name]: True for name, value in request.query_params.items() if name in _FLAGS and _true(value)}
    return {**body, **flags} if flags else body


async def _asked(request: Request) -> dict[str, Any]:
    """The body, remembered unless it is large."""
    raw = await bodies.raw(request)
    return _remembered(raw) if len(raw) <= _MAX_REMEMBERED else bodies.object_of(bodies.decoded(raw))


@lru_cache(maxsize=256)
def _remembered(raw: bytes) -> Asked:
    return Asked(bodies.object_of(bodies.decoded(raw)))


def _answered(request: Request, answer: Answer) -> Response:
    """An answer with what HTTP tells caches; 304 for a client that has it already."""
    headers = {"X-Cache": "MISS" if answer.cached_at is None else "HIT"}
    if answer.etag is None:
        headers["Cache-Control"] = "no-store"
    else:
        headers |= {"ETag": answer.etag, "Cache-Control": f"private, max-age={int(answer.ttl_s)}"}
        if answer.cached_at is not None:
            headers["Age"] = str(int(answer.age_s))
        if "if-none-match" in request.headers and answer.etag in _validators(request):
            return Response(status_code=304, headers=headers)
    return Json(answer.body, headers=headers)


def _validators(request: Request) -> set[str]:
    """What `If-None-Match` holds; validators are compared weakly there."""
    given = request.headers.get("if-none-match", "")
    found = {part.strip() for part in given.split(",")}
    return {part if part.startswith("W/") else f"W/{part}" for part in found if part}


def _stream(events: AsyncIterator[bytes]) -> Response:
    async def framed() -> AsyncIterator[bytes]:
        async for event in events:
            yield b"data: " + event + b"\n\n"

    return StreamingResponse(framed(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


def _true(value: str) -> bool:
    """Whether a flag in the query says yes. SpecError for what is neither yes nor no."""
    lowered = value.lower()
    if lowered not in ("true", "1", "yes", "on", "false", "0", "no", "off", ""):
        raise SpecError(f"a flag is true or false, not {value!r}", code="bool_parsing")
    return lowered in ("true", "1", "yes", "on")


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
        return Json({**shown, "total": total, "pagination": paging})

    @routes.post(f"{ONE}/executions/list", summary="Runs of a retriever")
    async def list_executions(where: Namespaced, retriever_id: str, query: Listing) -> Json:
        return listed(await services.retrieval.executions(where, retriever_id, query), query)

    @routes.get(f"{ONE}/executions", summary="Runs of a retriever")
    async def get_executions(where: Namespaced, retriever_id: str, query: Listing) -> Json:
        return listed(await services.retrieval.executions(where, retriever_id, query), query)

    @routes.get(f"{ONE}/executions/{{execution_id}}", summary="One run")
    async def get_execution(where: Namespaced, retriever_id: str, execution_id: str) -> Json:
        return Json(await services.retrieval.execution(where, execution_id, retriever_id))

    @routes.post("/v1/retrievers/executions/list", summary="Runs of stages without a stored retriever")
    async def list_adhoc_executions(where: Namespaced, query: Listing) -> Json:
        query = replace(query, filters=all_of(query.filters, equals("retriever_id", "")))
        page = await services.retrieval.executions(where, None, query)
        shown = ListPage([_adhoc(item) for item in page.items], page.total, page.next_cursor)
        return listed(shown, query)

    @routes.get("/v1/retrievers/executions/{execution_id}", summary="One run without a stored retriever")
    async def get_adhoc_execution(where: Namespaced, execution_id: str) -> Json:
        return Json(_adhoc(await services.retrieval.execution(where, execution_id)))


def _adhoc(record: dict[str, Any]) -> dict[str, Any]:
    """Return a run in the wire's shape for runs that no retriever is stored of."""
    mode = "stored" if record.get("retriever_id") else "adhoc"
    shown = {**record, "execution_mode": mode, "timestamp": record["created_at"]}
    # The wire has an object of them in the history of a retriever, and text here.
    return {**shown, "inputs": orjson.dumps(record["inputs"]).decode()} if "inputs" in record else shown
