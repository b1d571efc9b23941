"""Every error leaves the server in one envelope (wire contract, section 2), whoever raised it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Route

from mixpeek_operator.api.responses import Json
from mixpeek_operator.core.errors import (
    BadRequestError,
    InternalError,
    MixpeekError,
    Place,
    Problem,
    SpecError,
    TooLargeError,
)

_log = structlog.get_logger(__name__)
_DEFAULT_RETRY_S = 2
_SOURCES = ("body", "query", "path", "header", "cookie")
_HTTP_TYPES = {
    400: ("BadRequestError", "bad_request"),
    401: ("UnauthorizedError", "unauthorized"),
    403: ("ForbiddenError", "forbidden"),
    404: ("NotFoundError", "route_not_found"),
    405: ("BadRequestError", "method_not_allowed"),
    413: ("BadRequestError", "too_large"),
    415: ("BadRequestError", "unsupported_media_type"),
    422: ("ValidationError", "spec_invalid"),
    429: ("TooManyRequestsError", "rate_limited"),
}


def envelope(
    status: int, message: str, type: str, code: str, details: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the error body every client of this API knows."""
    return {
        "success": False,
        "status": status,
        "error": {"message": message, "type": type, "code": code, "details": dict(details or {})},
    }


def answer(error: MixpeekError, request_id: str = "") -> Json:
    """Return the response for an error raised on purpose; our own bugs are logged with their traceback."""
    details = dict(error.details)
    headers: dict[str, str] = {}
    if isinstance(error, SpecError):
        details["validation_errors"] = [_validation_error(problem) for problem in error.problems]
    if error.place is not None and str(error.place):
        details["place"] = _place(error.place)
    if error.status in (429, 503):
        details.setdefault("retryable", error.retryable)
        if details["retryable"]:
            wait = details.setdefault("retry_after_seconds", _DEFAULT_RETRY_S)
            headers["Retry-After"] = str(max(1, round(float(wait))))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, InternalError):
        _log.error("internal error", request_id=request_id, exc_info=error)
        details["log_id"] = request_id
    elif error.status >= 500:
        _log.warning("request failed", request_id=request_id, error=error.type, message=error.message)
    body = envelope(error.status, str(error), error.type, error.code, details)
    return Json(body, error.status, headers)


def unexpected(error: Exception, request_id: str) -> Json:
    """Return the response for an exception nobody expected; the reader gets an id, the log the traceback."""
    _log.error("unexpected error", request_id=request_id, exc_info=error)
    message = f"something went wrong on our side; the server's log tells more under {request_id}"
    return Json(envelope(500, message, "InternalServerError", "internal_error", {"log_id": request_id}), 500)


def from_pydantic(error: ValidationError, source: str = "body") -> SpecError:
    """Return every finding of a pydantic model as one SpecError; the refused values stay out of it."""
    return SpecError.of([_problem(item, source) for item in error.errors(include_url=False)])


def install(app: FastAPI) -> None:
    """Make the app answer every error in the envelope."""
    app.add_exception_handler(MixpeekError, _on_mixpeek_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_request_validation)
    app.add_exception_handler(ValidationError, _on_validation)


def request_id(request: Request) -> str:
    """Return the id of this request, as its X-Request-ID header has it."""
    return str(request.scope.get("request_id", ""))


async def _on_mixpeek_error(request: Request, error: Exception) -> Json:
    assert isinstance(error, MixpeekError)
    return answer(error, request_id(request))


async def _on_validation(request: Request, error: Exception) -> Json:
    """A model of ours that fails outside request parsing is our bug, not the caller's."""
    return unexpected(error, request_id(request))


async def _on_request_validation(request: Request, error: Exception) -> Json:
    assert isinstance(error, RequestValidationError)
    items = error.errors()
    if len(items) == 1 and items[0]["type"] == "json_invalid":
        return answer(not_json(str(items[0].get("ctx", {}).get("error", "")), items[0]["loc"]))
    return answer(SpecError.of([_problem(item, None) for item in items]), request_id(request))


async def _on_http_exception(request: Request, error: Exception) -> Json:
    """Errors of the framework: unknown route, wrong method, a body that cannot be parsed."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, MixpeekError):
        return answer(error.__cause__, request_id(request))
    if error.status_code == 413:
        return answer(TooLargeError(str(error.detail)), request_id(request))
    type_, code = _HTTP_TYPES.get(error.status_code, ("InternalServerError", "http_error"))
    message = str(error.detail)
    headers = dict(error.headers or {})
    if error.status_code == 404:
        message = f"there is no {request.method} {request.url.path}"
    elif error.status_code == 405:
        headers["Allow"] = ", ".join(_methods(request))
        message = f"{request.url.path} does not take {request.method}; it takes {headers['Allow']}"
    return Json(envelope(error.status_code, message, type_, code), error.status_code, headers)


def _methods(request: Request) -> list[str]:
    """Return every method the path takes; each is a route of its own."""
    found: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, Route) and route.path_regex.match(request.url.path):
            found |= route.methods or set()
    return sorted(found)


def not_json(why: str, location: Sequence[str | int] = ("body",)) -> BadRequestError:
    """Return the error for a body that is not JSON."""
    finding = {"type": "json_invalid", "location": list(location), "message": why or "not JSON"}
    message = f"the request body is not valid JSON: {why}" if why else "the request body is not valid JSON"
    return BadRequestError(message, code="json_invalid", details={"validation_errors": [finding]})


def _problem(item: Mapping[str, Any], source: str | None) -> Problem:
    location = tuple(item["loc"])
    if source is not None:
        location = (source, *location)
    shown = ".".join(str(part) for part in location[1:]) or str(location[0] if location else "")
    return Problem(str(item["type"]), str(item["msg"]), Place(path=shown), location=location)


def _validation_error(problem: Problem) -> dict[str, Any]:
    location = list(problem.location) or (problem.place.path or "").split(".")
    if not location or location[0] not in _SOURCES:
        location = ["body", *[part for part in location if part != ""]]
    found: dict[str, Any] = {"type": problem.code, "location": location, "message": problem.message}
    if problem.place.file or problem.place.line or problem.place.resource:
        found["place"] = _place(problem.place)
    return found


def _place(place: Place) -> dict[str, Any]:
    known = {
        "file": place.file,
        "line": place.line,
        "column": place.column,
        "resource": place.resource,
        "path": place.path,
    }
    return {name: value for name, value in known.items() if value is not None}
