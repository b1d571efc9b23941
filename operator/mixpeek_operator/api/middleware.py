"""What happens to every request: an id, a limit on its body, a log line, metrics, a last net for errors.

One pure ASGI layer, because each one costs every request.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mixpeek_operator.api.errors import answer, unexpected
from mixpeek_operator.core import ids
from mixpeek_operator.core.clock import timestamp
from mixpeek_operator.core.errors import MixpeekError, TooLargeError
from mixpeek_operator.core.logging import together

_log = structlog.get_logger("mixpeek_operator.access")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._\-]{1,128}")
_QUIET = ("/v1/health", "/metrics")
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_GATHER_S = 0.05
"""Longest time that a line of the access log waits to be written; the most of it that a killed process loses."""
_DRAIN_BYTES = 256 * 1024 * 1024
_DRAIN_S = 30.0
_GONE = 499
"""In logs and metrics: the client left before it had an answer."""


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Largest request body in bytes: for most routes, and for those whose path starts with a prefix."""

    default: int
    by_prefix: tuple[tuple[str, int], ...] = ()

    def of(self, path: str) -> int:
        for prefix, limit in self.by_prefix:
            if path.startswith(prefix):
                return limit
        return self.default


class HttpMetrics:
    """Counts and durations by method, route template and status."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("method", "route", "status")
        self._requests = Counter("mixpeek_http_requests", "Requests answered.", labels, registry=registry)
        self._seconds = Histogram(
            "mixpeek_http_request_seconds", "Time to answer.", labels, registry=registry, buckets=_BUCKETS
        )
        self.running = Gauge("mixpeek_http_requests_running", "Requests being answered.", registry=registry)
        self._children: dict[tuple[str, str, int], tuple[Any, Any]] = {}

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        key = (method, route, status)
        pair = self._children.get(key)
        if pair is None:
            labels = (method, route, str(status))
            pair = self._children[key] = (self._requests.labels(*labels), self._seconds.labels(*labels))
        pair[0].inc()
        pair[1].observe(seconds)


class AccessLog:
    """A line for every request that was answered, the lines of a moment written at once, behind the answers."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, dict[str, Any]]] = []

    def add(self, line: dict[str, Any]) -> None:
        """Take a line, to be written soon."""
        if not self._waiting:
            asyncio.get_running_loop().call_later(_GATHER_S, self.flush)
        self._waiting.append((time.time(), line))

    def flush(self) -> None:
        """Write what waits; for whoever ends the server."""
        lines, self._waiting = self._waiting, []
        with together():
            for at, line in lines:
                log = _log.debug if line["path"].startswith(_QUIET) else _log.info
                log("answered", timestamp=timestamp(datetime.fromtimestamp(at, UTC)), **line)


class RequestLayer:
    """What is around every route."""

    def __init__(self, app: ASGIApp, *, limits: BodyLimits, metrics: HttpMetrics, log: AccessLog) -> None:
        self._app = app
        self._log = log
        self._ids = ids.Stream("req")
        self._limits = limits
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id, length = _headers(scope)
        request_id = request_id or self._ids.next()
        scope["request_id"] = request_id
        encoded_id = request_id.encode()
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message.setdefault("headers", [])
                message["headers"] = [*message["headers"], (b"x-request-id", encoded_id)]
            await send(message)

        limit = self._limits.of(scope["path"])
        receiving = _limited(receive, limit)
        self._metrics.running.inc()
        try:
            if length is not None and length > limit:
                await _drain(receive, 0)
                await answer(_too_large(limit), request_id)(scope, receive, sending)
            else:
                await self._app(scope, receiving, sending)
        except ClientDisconnect:
            status = status or _GONE
        except Exception as error:
            if status:
                # The answer is under way: the connection must break, or half an answer would look whole.
                _log.error("failed while answering", request_id=request_id, exc_info=error)
                raise
            if isinstance(error, MixpeekError):
                reply = answer(error, request_id)
            else:
                reply = unexpected(error, request_id)
            await reply(scope, receive, sending)
        finally:
            self._metrics.running.dec()
            self._finish(scope, status, time.perf_counter() - started)

    def _finish(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None) or "unmatched"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.observe(method, route, status, seconds)
        principal = scope.get("principal")
        self._log.add(
            {
                "request_id": scope["request_id"],
                "method": scope["method"],
                "path": _shown_path(scope["path"]),
                "route": route,
                "status": status,
                "duration_ms": round(seconds * 1000, 3),
                "organization": getattr(principal, "organization", None),
                "key_id": getattr(principal, "key_id", None),
            }
        )


_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_SIGNED = "/v1/blobs/"


def _shown_path(path: str) -> str:
    """A signed path is a credential; its log line shows where it starts only."""
    return f"{_SIGNED}…" if path.startswith(_SIGNED) else path


def _headers(scope: Scope) -> tuple[str, int | None]:
    request_id = ""
    length: int | None = None
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text = value.decode("latin-1")
            request_id = text if _REQUEST_ID.fullmatch(text) else ""
        elif name == b"content-length" and value.isdigit():
            length = int(value)
    return request_id, length


def _limited(receive: Receive, limit: int) -> Receive:
    """Return a receive that counts, for bodies that come in chunks without a length."""
    received = 0

    async def receiving() -> Message:
        nonlocal received
        message = await receive()
        if message["type"] == "http.request":
            received += len(message.get("body", b""))
            if received > limit:
                await _drain(receive, received, last=message)
                raise _too_large(limit)
        return message

    return receiving


async def _drain(receive: Receive, received: int, last: Message | None = None) -> None:
    """Read what the client still sends, within bounds: cut off while sending, it would not see the answer."""
    message = last or {"more_body": True}
    deadline = time.monotonic() + _DRAIN_S
    while message.get("more_body") and received < _DRAIN_BYTES and time.monotonic() < deadline:
        message = await receive()
        received += len(message.get("body", b""))


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"the request body is over the limit of {limit} bytes", details={"limit_bytes": limit})
