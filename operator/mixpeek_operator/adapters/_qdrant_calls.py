"""Calls of a Qdrant server: time-outs, retries, and errors in our words.

Every call of the port may be made twice with the effect of once, so each is tried again while the server cannot be
reached or is overloaded. A message names the server's host, never its key.
"""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar
from urllib.parse import urlsplit

import httpx
import orjson
import stamina
from qdrant_client import AsyncQdrantClient
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from mixpeek_operator.core.errors import (
    ConflictError,
    InternalError,
    MixpeekError,
    NotFoundError,
    RefusedError,
    SpecError,
    UnavailableError,
)

P = ParamSpec("P")
T = TypeVar("T")

_FILE_TIMEOUT_S = 600
_ATTEMPTS = 3
_CONNECTIONS = httpx.Limits(max_connections=64, max_keepalive_connections=32)
_BUSY = (429, 500, 502, 503, 504)


class Server:
    """A connection to one server."""

    def __init__(self, client: AsyncQdrantClient, host: str, files: httpx.AsyncClient | None = None) -> None:
        self.client = client
        self.host = host
        self._files = files

    @classmethod
    def connect(cls, url: str, api_key: str | None, *, prefer_grpc: bool = False, timeout_s: int) -> Server:
        """Return a connection; nothing is sent yet. SpecError for a URL that is none."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SpecError("the URL of a Qdrant server begins with http:// or https:// and names a host")
        with warnings.catch_warnings():
            # A key over plain HTTP is what a network inside a cluster looks like; the client warns at every start.
            warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
            client = AsyncQdrantClient(
                url=url,
                port=parts.port or (443 if parts.scheme == "https" else 6333),
                api_key=api_key,
                prefer_grpc=prefer_grpc,
                timeout=timeout_s,
                check_compatibility=False,
                limits=_CONNECTIONS,
            )
        base = url if parts.port or parts.scheme == "https" else f"http://{parts.hostname}:6333{parts.path}"
        files = httpx.AsyncClient(
            base_url=base, headers={"api-key": api_key} if api_key else {}, timeout=_FILE_TIMEOUT_S
        )
        return cls(client, parts.netloc.rpartition("@")[2], files)

    async def call(self, make: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await `make(*args, **kwargs)`, again while the server is away. Raises our errors only."""
        try:
            async for attempt in stamina.retry_context(
                on=_passes, attempts=_ATTEMPTS, wait_initial=0.1, wait_max=1.0, timeout=None
            ):
                with attempt:
                    return await make(*args, **kwargs)
        except Exception as error:
            raise translate(error, self.host) from error
        raise InternalError("a call to the vector store ended without an answer")

    def files(self) -> httpx.AsyncClient:
        """Return the connection for snapshots. UnavailableError where there is none."""
        if self._files is None:
            raise UnavailableError(f"the vector store at {self.host} makes no snapshots")
        return self._files

    async def close(self) -> None:
        if self._files is not None:
            await self._files.aclose()
        await self.client.close()


def translate(error: BaseException, host: str) -> MixpeekError:
    """Return our error for one of the client's."""
    where = f"the vector store at {host}"
    if isinstance(error, MixpeekError):
        return error
    if isinstance(error, UnexpectedResponse):
        return _of_status(error.status_code or 0, told(error.content), where)
    if isinstance(error, httpx.HTTPStatusError):
        return _of_status(error.response.status_code, told(error.response.content), where)
    if isinstance(error, ResourceExhaustedResponse):
        return UnavailableError(f"{where} is overloaded; try again in {error.retry_after_s} s")
    if isinstance(error, ResponseHandlingException):
        return translate(error.source, host)
    if isinstance(error, httpx.TimeoutException):
        return UnavailableError(f"{where} does not answer in time ({type(error).__name__})")
    if isinstance(error, httpx.TransportError):
        return UnavailableError(f"{where} cannot be reached: {str(error) or type(error).__name__}")
    if isinstance(error, NotImplementedError):
        return UnavailableError(f"{where} cannot do this: {error}")
    code = _grpc_code(error)
    if code is not None:
        return _of_status(_STATUS.get(code, 500), str(getattr(error, "details", lambda: "")()), where)
    text = (str(error).splitlines() or [type(error).__name__])[0]
    if isinstance(error, ValueError) and "not found" in text:
        return NotFoundError(f"vector store: {text}")
    if isinstance(error, ValueError | TypeError | OverflowError):
        return SpecError(f"the vector store cannot take this: {text}")
    return InternalError(f"vector store: {text}")


def told(content: bytes) -> str:
    """Return what an error answer says, nothing when it is not of Qdrant's shape."""
    try:
        status = orjson.loads(content)["status"]
        return str(status["error"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ""


def is_unknown_route(error: BaseException | None) -> bool:
    """Whether the server does not know the operation, as opposed to the thing it was asked for."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code in (404, 405) and not told(error.content)
    return error is not None and _grpc_code(error) == "UNIMPLEMENTED"


def _of_status(status: int, text: str, where: str) -> MixpeekError:
    if status == 404:
        return NotFoundError(f"vector store: {text or 'not found'}")
    if status in (401, 403):
        return RefusedError(f"{where} refuses our key; set the key that it asks for")
    if status == 409:
        return ConflictError(f"vector store: {text or 'conflict'}")
    if status in _BUSY:
        return UnavailableError(f"{where} answers {status}: {text or 'try again'}")
    if 400 <= status < 500:
        return SpecError(f"vector store: {text or f'answers {status}'}")
    return UnavailableError(f"{where} answers {status}: {text or 'not what was expected'}")


_STATUS = {
    "NOT_FOUND": 404,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "ALREADY_EXISTS": 409,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
    "RESOURCE_EXHAUSTED": 429,
}


def _grpc_code(error: BaseException) -> str | None:
    """Return the name of a gRPC status; read by shape, as gRPC is imported only where it is used."""
    code = getattr(error, "code", None)
    return getattr(code(), "name", None) if callable(code) else None


def _passes(error: Exception) -> bool:
    """Whether the same call may succeed in a moment."""
    if isinstance(error, ResponseHandlingException):
        return _passes(error.source)
    if isinstance(error, httpx.TimeoutException):
        # Waiting as long again would make the caller's own time run out.
        return False
    if isinstance(error, UnexpectedResponse):
        return error.status_code in _BUSY
    if isinstance(error, httpx.TransportError | ResourceExhaustedResponse):
        return True
    return _grpc_code(error) in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")
