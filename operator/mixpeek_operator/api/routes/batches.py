"""Batches of a bucket, and the tasks that show how they go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import Depends, Query

from mixpeek_operator.api import lists
from mixpeek_operator.api.bodies import JsonObject
from mixpeek_operator.api.responses import Json
from mixpeek_operator.api.routing import Routes
from mixpeek_operator.api.scope import Namespaced, OfOrganization
from mixpeek_operator.api.services import Services
from mixpeek_operator.core.errors import Problem, SpecError
from mixpeek_operator.core.listing import ListQuery
from mixpeek_operator.core.scope import Scope

ROOT = "/v1/buckets/{bucket_identifier}/batches"
ONE = f"{ROOT}/{{batch_id}}"
Listing = Annotated[ListQuery, Depends(lists.query())]


def router(services: Services) -> Routes:
    """Return the routes of batches and tasks."""
    routes = Routes(tags=["Bucket Batches"])
    _batches(routes, services)
    _running(routes, services)
    _anywhere(routes, services)
    _tasks(routes, services)
    return routes


def _batches(routes: Routes, services: Services) -> None:
    @routes.post(ROOT, summary="Create a batch; it stays a DRAFT until submitted")
    async def create_batch(
        where: Namespaced, bucket_identifier: str, body: JsonObject, auto_submit: bool = False
    ) -> Json:
        made: dict[str, Any] = await services.batches.create(where, bucket_identifier, body)
        if auto_submit:
            await services.batches.submit(where, bucket_identifier, made["batch_id"])
            made = await services.batches.get(where, bucket_identifier, made["batch_id"])
        return Json(made)

    @routes.post(f"{ROOT}/list", summary="List batches")
    async def list_batches(where: Namespaced, bucket_identifier: str, query: Listing, body: JsonObject) -> Json:
        return await _listed(services, where, bucket_identifier, query, body)

    @routes.get(ROOT, summary="List batches")
    async def get_batches(where: Namespaced, bucket_identifier: str, query: Listing, status: str | None = None) -> Json:
        return await _listed(services, where, bucket_identifier, query, {"status": status})

    @routes.get(ONE, summary="Get a batch")
    async def get_batch(where: Namespaced, bucket_identifier: str, batch_id: str) -> Json:
        return Json(await services.batches.get(where, bucket_identifier, batch_id))

    @routes.patch(ONE, summary="Change name or metadata of a batch")
    async def patch_batch(where: Namespaced, bucket_identifier: str, batch_id: str, body: JsonObject) -> Json:
        return Json(await services.batches.patch(where, bucket_identifier, batch_id, body))

    @routes.delete(ONE, summary="Delete a batch that has ended or never began")
    async def delete_batch(where: Namespaced, bucket_identifier: str, batch_id: str) -> Json:
        return Json(await services.batches.delete(where, bucket_identifier, batch_id))

    @routes.post(f"{ONE}/objects", summary="Add objects to a DRAFT batch")
    async def add_objects(where: Namespaced, bucket_identifier: str, batch_id: str, body: JsonObject) -> Json:
        ids = body.get("object_ids")
        if not isinstance(ids, list):
            raise SpecError.of([Problem("list_type", "send the ids as a list", location=("body", "object_ids"))])
        return Json(await services.batches.add_objects(where, bucket_identifier, batch_id, ids))


def _running(routes: Routes, services: Services) -> None:
    @routes.post(f"{ONE}/submit", summary="Start a batch; harmless when it runs already")
    async def submit_batch(where: Namespaced, bucket_identifier: str, batch_id: str, body: JsonObject) -> Json:
        return Json(await services.batches.submit(where, bucket_identifier, batch_id, body))

    @routes.post(f"{ONE}/cancel", summary="Stop a batch")
    async def cancel_batch(where: Namespaced, bucket_identifier: str, batch_id: str) -> Json:
        return Json(await services.batches.cancel(where, bucket_identifier, batch_id))

    @routes.post(f"{ONE}/retry", summary="Process failed objects again")
    async def retry_batch(where: Namespaced, bucket_identifier: str, batch_id: str, body: JsonObject) -> Json:
        return Json(await services.batches.retry(where, bucket_identifier, batch_id, body))

    @routes.get(f"{ONE}/failed-documents", summary="List what failed")
    async def get_failed_documents(
        where: Namespaced,
        bucket_identifier: str,
        batch_id: str,
        tier_num: int | None = None,
        collection_id: str | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> Json:
        found = await services.batches.failed_documents(
            where,
            bucket_identifier,
            batch_id,
            tier_num=tier_num,
            collection_id=collection_id,
            limit=limit,
            offset=offset,
        )
        return Json(found)

    @routes.get(f"{ONE}/audit", summary="What became of every object of a batch")
    async def get_batch_audit(where: Namespaced, bucket_identifier: str, batch_id: str) -> Json:
        return Json(await services.batches.audit(where, bucket_identifier, batch_id))

    @routes.get(f"{ONE}/logs", summary="What happened, line by line")
    async def get_batch_logs(
        where: Namespaced, bucket_identifier: str, batch_id: str, tier_num: int | None = None
    ) -> Json:
        return Json(await services.batches.logs(where, bucket_identifier, batch_id, tier_num=tier_num))

    @routes.post("/v1/collections/{collection_identifier}/trigger", status_code=202, tags=["Collections"])
    async def trigger_collection(where: Namespaced, collection_identifier: str, body: JsonObject) -> Json:
        """Run a collection over all that feeds it."""
        started = await services.batches.trigger_collection(where, collection_identifier, body)
        return Json(started, status_code=202)


def _anywhere(routes: Routes, services: Services) -> None:
    """Batches of a namespace, whatever their bucket."""

    @routes.post("/v1/batches/list", tags=["Batches"], summary="List batches of all buckets")
    async def list_all_batches(where: Namespaced, query: Listing, body: JsonObject) -> Json:
        return await _listed(services, where, None, query, body)

    @routes.get("/v1/batches/{batch_id}", tags=["Batches"], summary="Get a batch of any bucket")
    async def get_any_batch(where: Namespaced, batch_id: str) -> Json:
        return Json(await services.batches.get(where, None, batch_id))

    @routes.post("/v1/batches/{batch_id}/cancel", tags=["Batches"], summary="Stop a batch of any bucket")
    async def cancel_any_batch(where: Namespaced, batch_id: str) -> Json:
        return Json(await services.batches.cancel(where, None, batch_id))


async def _listed(
    services: Services, where: Scope, bucket: str | None, query: ListQuery, asked: Mapping[str, Any]
) -> Json:
    # The wire wants the total of batches in every answer.
    query = replace(query, include_total=True)
    page = await services.batches.list(
        where, bucket, query, status=asked.get("status"), collection_id=asked.get("collection_id")
    )
    return Json(lists.envelope(page, query))


def _tasks(routes: Routes, services: Services) -> None:
    @routes.get("/v1/tasks/{task_id}", tags=["Tasks"], summary="Get a task")
    async def get_task(where: OfOrganization, task_id: str) -> Json:
        return Json(await services.tasks.get(where, task_id))

    @routes.delete("/v1/tasks/{task_id}", tags=["Tasks"], summary="Ask a task to stop", permission="write")
    async def kill_task(where: OfOrganization, task_id: str) -> Json:
        stopped = await services.tasks.cancel(where, task_id)
        message = f"asked task {task_id} to stop" if stopped else f"task {task_id} is not running"
        return Json({"success": True, "message": message})

    @routes.post("/v1/tasks/list", tags=["Tasks"], summary="List tasks")
    async def list_tasks(where: OfOrganization, query: Listing, body: JsonObject) -> Json:
        page = await services.tasks.list(where, query, status=body.get("status"), task_type=body.get("task_type"))
        return Json(lists.envelope(page, query))
