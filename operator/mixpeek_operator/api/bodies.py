"""Request bodies: read once with orjson, validated by a pydantic model where there is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from mixpeek_operator.api.errors import from_pydantic, not_json
from mixpeek_operator.core.errors import Place, Problem, SpecError

M = TypeVar("M", bound=BaseModel)
MAX_DEPTH = 100
"""Levels of a JSON body: as many as a manifest may have, and fewer than any store gives up at."""
REF_TEMPLATE = "#/components/schemas/{model}"


def too_deep(value: Any) -> bool:
    """Whether lists and mappings are nested deeper than MAX_DEPTH."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


async def raw(request: Request) -> bytes:
    """Return the body, for one that nobody has read: `Request.body` takes longer to be ready for more than that."""
    parts: list[bytes] = []
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _may_be_deep(raw: bytes) -> bool:
    # A split looks for one byte much faster than a count does, and stops early.
    return len(raw.split(b"[", MAX_DEPTH)) + len(raw.split(b"{", MAX_DEPTH)) > MAX_DEPTH


async def read(request: Request) -> Any:
    """Return the JSON body, None when it is empty. BadRequestError when it is not JSON.

    The content type is not looked at: clients that send JSON under another one are understood.
    """
    cached = request.scope.get("json_body", request)
    if cached is not request:
        return cached
    value = decoded(await request.body())
    request.scope["json_body"] = value
    return value


def decoded(raw: bytes) -> Any:
    """Return the JSON value, None for no bytes. BadRequestError when it is not JSON, SpecError when it is too deep."""
    try:
        value = orjson.loads(raw) if raw.strip() else None
    except orjson.JSONDecodeError as error:
        raise not_json(str(error)) from error
    if _may_be_deep(raw) and too_deep(value):
        problem = Problem("too_deep", f"nested deeper than {MAX_DEPTH} levels", Place(path="body"), location=("body",))
        raise SpecError.of([problem])
    return value


def object_of(value: Any) -> dict[str, Any]:
    """Return a decoded body that has to be a JSON object; an empty body is an empty object. Raises SpecError."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        problem = Problem("dict_type", "the body must be a JSON object", location=("body",))
        raise SpecError.of([problem])
    return value


async def json_object(request: Request) -> dict[str, Any]:
    """Return the body, a JSON object; an empty body is an empty object."""
    return object_of(await read(request))


JsonObject = Annotated[dict[str, Any], Depends(json_object)]
"""The JSON object of the body, as a parameter of a route."""


def wants_links(body: Mapping[str, Any], asked: bool) -> bool:
    """Whether the query or the body asks for download links, in the SDK's spelling or the documentation's."""
    return asked or bool(body.get("return_presigned_urls") or body.get("return_urls"))


def parse(model: type[M], value: Any) -> M:
    """Return `value` as a model. SpecError with every mistake, located in the body."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise from_pydantic(error) from error


def documented(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """Return `openapi_extra=` for a route that reads its body itself: the schema of the body in OpenAPI."""
    schema = model.model_json_schema(ref_template=REF_TEMPLATE)
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


def body(model: type[M]) -> Callable[[Request], Any]:
    """Return the dependency that reads the body as `model`, for `Annotated[Model, Depends(...)]`."""

    async def validated(request: Request) -> M:
        return parse(model, await json_object(request))

    validated.body_model = model  # type: ignore[attr-defined]
    return validated
