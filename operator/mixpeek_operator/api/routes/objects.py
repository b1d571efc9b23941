"""Objects of a bucket."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Query, Response

from mixpeek_operator.api import lists
from mixpeek_operator.api.bodies import JsonObject, wants_links
from mixpeek_operator.api.processing import process
from mixpeek_operator.api.responses import Json
from mixpeek_operator.api.routing import Routes
from mixpeek_operator.api.scope import Namespaced
from mixpeek_operator.api.services import Services
from mixpeek_operator.core.errors import Problem, SpecError
from mixpeek_operator.core.listing import ListQuery

Listing = Annotated[ListQuery, Depends(lists.query())]
Flag = Annotated[bool, Query()]
ROOT = "/v1/buckets/{bucket_identifier}/objects"


def router(services: Services) -> Routes:
    """Return the routes of objects."""
    routes = Routes(tags=["Bucket Objects"])

    @routes.post(ROOT, summary="Create an object")
    async def create_object(
        where: Namespaced,
        bucket_identifier: str,
        body: JsonObject,
        policy: str | None = None,
        auto_process: Flag = False,
    ) -> Json:
        made = await services.objects.create(where, bucket_identifier, body, policy=policy)
        if auto_process:
            await process(services, where, bucket_identifier, [made["object_id"]])
        return Json(made)

    @routes.post(f"{ROOT}/batch", summary="Create many objects; bad ones are listed, the rest is stored")
    async def create_objects(
        where: Namespaced,
        bucket_identifier: str,
        body: JsonObject,
        policy: str | None = None,
        auto_process: Flag = False,
    ) -> Json:
        items = body.get("objects")
        if not isinstance(items, list):
            raise SpecError.of([Problem("list_type", "send the objects as a list", location=("body", "objects"))])
        made = await services.objects.create_many(where, bucket_identifier, items, policy=policy)
        if auto_process:
            await process(services, where, bucket_identifier, [item["object_id"] for item in made["succeeded"]])
        return Json(made)

    async def listed(where: Any, bucket: str, query: ListQuery, links: bool) -> Json:
        page = await services.objects.list(where, bucket, query, return_presigned_urls=links)
        return Json(lists.envelope(page, query))

    @routes.get(ROOT, summary="List objects")
    async def get_objects(
        where: Namespaced, bucket_identifier: str, query: Listing, return_presigned_urls: Flag = False
    ) -> Json:
        return await listed(where, bucket_identifier, query, return_presigned_urls)

    @routes.post(f"{ROOT}/list", summary="List objects")
    async def list_objects(
        where: Namespaced,
        bucket_identifier: str,
        query: Listing,
        body: JsonObject,
        return_presigned_urls: Flag = False,
    ) -> Json:
        return await listed(where, bucket_identifier, query, wants_links(body, return_presigned_urls))

    @routes.post(f"{ROOT}/aggregate", summary="Group and aggregate objects")
    async def aggregate_objects(where: Namespaced, bucket_identifier: str, body: JsonObject) -> Json:
        return Json(await services.objects.aggregate(where, bucket_identifier, body))

    @routes.get(f"{ROOT}/{{object_identifier}}", summary="Get an object")
    async def get_object(
        where: Namespaced, bucket_identifier: str, object_identifier: str, return_presigned_urls: Flag = False
    ) -> Json:
        found: dict[str, Any] = await services.objects.get(
            where, bucket_identifier, object_identifier, return_presigned_urls=return_presigned_urls
        )
        return Json(found)

    @routes.put(f"{ROOT}/{{object_identifier}}", summary="Replace fields of an object")
    async def update_object(
        where: Namespaced, bucket_identifier: str, object_identifier: str, body: JsonObject
    ) -> Json:
        return Json(await services.objects.update(where, bucket_identifier, object_identifier, body))

    @routes.patch(f"{ROOT}/{{object_identifier}}", summary="Change fields of an object")
    async def patch_object(where: Namespaced, bucket_identifier: str, object_identifier: str, body: JsonObject) -> Json:
        return Json(await services.objects.update(where, bucket_identifier, object_identifier, body))

    @routes.delete(f"{ROOT}/{{object_identifier}}", summary="Delete an object and its documents", status_code=204)
    async def delete_object(where: Namespaced, bucket_identifier: str, object_identifier: str) -> Response:
        await services.objects.delete(where, bucket_identifier, object_identifier)
        return Response(status_code=204)

    return routes
