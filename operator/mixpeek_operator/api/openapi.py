"""The OpenAPI document: FastAPI's, completed with what our own dependencies read and how errors look."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from mixpeek_operator.api import auth, scope
from mixpeek_operator.api.bodies import documented

_ERROR = {
    "title": "ErrorResponse",
    "type": "object",
    "required": ["success", "status", "error"],
    "properties": {
        "success": {"type": "boolean", "description": "Always false."},
        "status": {"type": "integer", "description": "HTTP status."},
        "error": {
            "type": "object",
            "required": ["message", "type"],
            "properties": {
                "message": {"type": "string", "description": "What is wrong and what to do."},
                "type": {"type": "string", "description": "Stable type of the error."},
                "code": {"type": "string", "description": "Stable code of this very error."},
                "details": {"type": "object", "additionalProperties": True},
            },
        },
    },
}
_SECURITY = {
    "BearerAuth": {"type": "http", "scheme": "bearer"},
    "ApiKeyAuth": {
        "type": "apiKey",
        "in": "header",
        "name": auth.KEY_HEADER,
        "description": "The same key, for ways through proxies that keep the Authorization header for themselves.",
    },
}
"""Either is enough."""
NAMESPACE_PARAMETER = {
    "name": "X-Namespace",
    "in": "header",
    "required": False,
    "description": "Id or name of the namespace; may be left out while the organization has one namespace.",
    "schema": {"type": "string"},
}
_LIST_PARAMETERS = [
    {"name": "limit", "schema": {"type": "integer", "minimum": 1, "maximum": 1000}},
    {"name": "offset", "schema": {"type": "integer", "minimum": 0}},
    {"name": "page", "schema": {"type": "integer", "minimum": 1}},
    {"name": "page_size", "schema": {"type": "integer", "minimum": 1, "maximum": 1000}},
    {"name": "cursor", "schema": {"type": "string"}},
    {"name": "search", "schema": {"type": "string"}},
    {"name": "sort", "schema": {"type": "string"}},
    {"name": "include_total", "schema": {"type": "boolean"}},
]


def install(app: FastAPI) -> None:
    """Make `app.openapi()` answer with the completed document, built when first asked for."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = build(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def build(app: FastAPI) -> dict[str, Any]:
    """Return the document for the app's routes."""
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = document.setdefault("components", {})
    schemas: dict[str, Any] = components.setdefault("schemas", {})
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    schemas["ErrorResponse"] = _ERROR
    components["securitySchemes"] = _SECURITY
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            for method in route.methods or ():
                operation = document["paths"].get(route.path_format, {}).get(method.lower())
                if operation is not None:
                    _complete(operation, route, schemas)
    return document


def _complete(operation: dict[str, Any], route: APIRoute, schemas: dict[str, Any]) -> None:
    responses = operation.setdefault("responses", {})
    responses.pop("422", None)
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}}
    responses["default"] = {"description": "An error.", "content": error}
    parameters: list[dict[str, Any]] = operation.setdefault("parameters", [])
    for call in _calls(route.dependant):
        if getattr(call, "permission", None):
            operation["security"] = [{name: []} for name in _SECURITY]
        elif call is scope.namespaced:
            parameters.append(NAMESPACE_PARAMETER)
        elif getattr(call, "lists", False):
            named = {item["name"] for item in parameters}
            parameters.extend({**item, "in": "query"} for item in _LIST_PARAMETERS if item["name"] not in named)
        model = getattr(call, "body_model", None)
        if model is not None:
            operation.update(documented(model))
    if not parameters:
        del operation["parameters"]
    for content in operation.get("requestBody", {}).get("content", {}).values():
        content["schema"] = _hoist(content.get("schema", {}), schemas)


def _calls(dependant: Dependant) -> Iterator[Any]:
    for inner in dependant.dependencies:
        yield inner.call
        yield from _calls(inner)


def _hoist(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Move the definitions a schema brings along to the document's components, each model once.

    Two models of one name that differ get different names, so that no generated client mixes them up.
    """
    own = dict(schema)
    definitions: dict[str, Any] = own.pop("$defs", {})
    renamed: dict[str, str] = {}
    for name, definition in definitions.items():
        known = schemas.get(name)
        if known is not None and known != definition:
            number = 2
            while schemas.get(f"{name}{number}", definition) != definition:
                number += 1
            renamed[name] = f"{name}{number}"
    for name, definition in definitions.items():
        schemas[renamed.get(name, name)] = _repoint(definition, renamed)
    return own if not renamed else _repoint(own, renamed)


def _repoint(value: Any, renamed: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            key: _pointed(item, renamed) if key == "$ref" else _repoint(item, renamed) for key, item in value.items()
        }
    if isinstance(value, list):
        return [_repoint(item, renamed) for item in value]
    return value


def _pointed(reference: Any, renamed: dict[str, str]) -> Any:
    head, _, name = str(reference).rpartition("/")
    return f"{head}/{renamed[name]}" if name in renamed else reference
