"""Signed links to files: one method on one key until it expires, without credentials."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import quote

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from mixpeek_operator.api.routing import Routes
from mixpeek_operator.api.services import Services
from mixpeek_operator.core.errors import NotFoundError
from mixpeek_operator.ingestion.uploads import is_upload

_DEFAULT_TYPE = "application/octet-stream"
_BYTES = {"schema": {"type": "string", "format": "binary"}}


def router(services: Services) -> Routes:
    """Routes of `/v1/blobs`, which the local blob store's signed URLs lead to."""
    routes = Routes(tags=["Files"])

    @routes.put(
        "/v1/blobs/{token}",
        openapi_extra={"requestBody": {"required": True, "content": {_DEFAULT_TYPE: _BYTES}}},
    )
    async def upload_blob(request: Request, token: str) -> Response:
        """Take the bytes; the file appears whole when the last one has arrived, or not at all."""
        grant = services.blobs.verify(token, "PUT")

        async def admit() -> None:
            if is_upload(grant.key):
                await services.uploads.admit(grant.key)

        await admit()
        content_type = grant.content_type or request.headers.get("content-type")
        info = await services.blobs.put(grant.key, _arriving(request, admit), content_type=content_type)
        return Response(headers={"ETag": f'"{info.sha256}"'})

    @routes.get("/v1/blobs/{token}")
    async def download_blob(token: str) -> Response:
        grant = services.blobs.verify(token, "GET")
        info = await services.blobs.head(grant.key)
        if info is None:
            raise NotFoundError("the file behind this link is gone")
        name = quote(grant.key.rpartition("/")[2])
        headers = {
            "Content-Length": str(info.size),
            # Files come from anywhere: a browser must not take one for a page of this server.
            "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
            "X-Content-Type-Options": "nosniff",
        }
        if info.sha256:
            headers["ETag"] = f'"{info.sha256}"'
        stream = services.blobs.stream(grant.key)
        return StreamingResponse(stream, media_type=info.content_type or _DEFAULT_TYPE, headers=headers)

    return routes


async def _arriving(request: Request, admit: Callable[[], Awaitable[None]]) -> AsyncIterator[bytes]:
    """Yield the body as it comes, and ask once more before its end whether it is still wanted."""
    async for chunk in request.stream():
        if chunk:
            yield chunk
    await admit()
