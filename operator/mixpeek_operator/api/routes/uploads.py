"""Uploads of a bucket: a signed link to put a file to, then a confirmation that makes the object."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Response

from mixpeek_operator.api import lists
from mixpeek_operator.api.bodies import JsonObject
from mixpeek_operator.api.processing import process
from mixpeek_operator.api.responses import Json
from mixpeek_operator.api.routing import Routes
from mixpeek_operator.api.scope import Namespaced
from mixpeek_operator.api.services import Services
from mixpeek_operator.core.listing import ListQuery

ROOT = "/v1/buckets/{bucket_identifier}/uploads"
Listing = Annotated[ListQuery, Depends(lists.query())]


def router(services: Services) -> Routes:
    """Return the routes of uploads."""
    routes = Routes(tags=["Bucket Uploads"])

    @routes.post(ROOT, summary="Ask for a signed link to upload one file")
    async def create_upload(where: Namespaced, bucket_identifier: str, body: JsonObject) -> Json:
        return Json(await services.uploads.create(where, bucket_identifier, body))

    @routes.post(f"{ROOT}/batch", summary="Ask for many signed links")
    async def create_uploads(where: Namespaced, bucket_identifier: str, body: JsonObject) -> Json:
        return Json(await services.uploads.create_many(where, bucket_identifier, body))

    @routes.post(f"{ROOT}/list", summary="List uploads")
    async def list_uploads(where: Namespaced, bucket_identifier: str, query: Listing) -> Json:
        shown = lists.envelope(await services.uploads.list(where, bucket_identifier, query), query)
        return Json({**shown, "stats": await services.uploads.stats(where, bucket_identifier)})

    @routes.post(f"{ROOT}/confirm/batch", summary="Confirm many uploads")
    async def confirm_uploads(where: Namespaced, bucket_identifier: str, body: JsonObject) -> Json:
        return Json(await services.uploads.confirm_many(where, bucket_identifier, body))

    @routes.post(f"{ROOT}/{{upload_id}}/confirm", summary="Confirm an upload; makes the object")
    async def confirm_upload(where: Namespaced, bucket_identifier: str, upload_id: str, body: JsonObject) -> Json:
        confirmed = await services.uploads.confirm(where, bucket_identifier, upload_id, body)
        if body.get("auto_submit_batch") is True and confirmed.get("object_id"):
            task = await process(services, where, bucket_identifier, [confirmed["object_id"]])
            if task is not None:
                confirmed |= {"task_id": task["task_id"], "batch_id": task["additional_data"]["batch_id"]}
        return Json(confirmed)

    @routes.get(f"{ROOT}/{{upload_id}}", summary="Get an upload")
    async def get_upload(
        where: Namespaced, bucket_identifier: str, upload_id: str, return_presigned_urls: bool = False
    ) -> Json:
        found = await services.uploads.get(
            where, bucket_identifier, upload_id, return_presigned_urls=return_presigned_urls
        )
        return Json(found)

    @routes.delete(f"{ROOT}/{{upload_id}}", summary="Forget an upload", status_code=204)
    async def delete_upload(
        where: Namespaced, bucket_identifier: str, upload_id: str, delete_s3_object: bool = True
    ) -> Response:
        await services.uploads.delete(where, bucket_identifier, upload_id, delete_s3_object=delete_s3_object)
        return Response(status_code=204)

    return routes
