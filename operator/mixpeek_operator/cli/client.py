"""The HTTP client of the command line: one place for the address, the key, errors and retries."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from mixpeek_operator.core.errors import (
    AlreadyExistsError,
    BadRequestError,
    ConflictError,
    ForbiddenError,
    MixpeekError,
    NotFoundError,
    RefusedError,
    SpecError,
    UnauthorizedError,
    UnavailableError,
)

_BY_STATUS: dict[int, type[MixpeekError]] = {
    400: BadRequestError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    422: SpecError,
    503: UnavailableError,
}


class Client:
    """Requests to one server. Raises the MixpeekError that the server's error envelope names."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    @property
    def base_url(self) -> str:
        return str(self._http.base_url).rstrip("/")

    def get(self, path: str, *, namespace: str | None = None, params: Mapping[str, Any] | None = None) -> Any:
        """Return the decoded JSON answer of a GET."""
        return self.request("GET", path, namespace=namespace, params=params)

    def post(self, path: str, body: Any = None, *, namespace: str | None = None, **options: Any) -> Any:
        """Return the decoded JSON answer of a POST with a JSON body."""
        return self.request("POST", path, namespace=namespace, json=body, **options)

    def delete(self, path: str, *, namespace: str | None = None, params: Mapping[str, Any] | None = None) -> Any:
        """Return the decoded JSON answer of a DELETE, None when it has no body."""
        return self.request("DELETE", path, namespace=namespace, params=params)

    def request(self, method: str, path: str, *, namespace: str | None = None, **options: Any) -> Any:
        """Send one request and return its decoded JSON. Raises RefusedError for an answer that is none of ours."""
        response = self.send(method, path, namespace=namespace, **options)
        if not response.content:
            return None
        kind = response.headers.get("content-type", "nothing")
        try:
            return response.json()
        except ValueError as error:
            raise RefusedError(f"{self.base_url} is no mixpeek server: it answered {path} with {kind}") from error

    def send(self, method: str, path: str, *, namespace: str | None = None, **options: Any) -> httpx.Response:
        """Send one request and return the raw answer; raises for every status of 400 and above."""
        headers = {"X-Namespace": namespace} if namespace else {}
        try:
            response = self._http.request(method, path, headers=headers, **options)
        except httpx.TimeoutException as error:
            raise UnavailableError(f"{self.base_url} did not answer in time") from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise BadRequestError(f"{self.base_url!r} is no server address, such as http://127.0.0.1:7007") from error
        except httpx.HTTPError as error:
            raise UnavailableError(
                f"cannot reach {self.base_url} ({error}); start it with `mixpeekctl serve` or set MIXPEEK_SERVER"
            ) from error
        if response.status_code >= 400:
            raise _error(response)
        return response

    def put_signed(self, url: str, file: Path, content_type: str) -> None:
        """PUT a file to a signed URL, piece by piece and without credentials."""
        headers = {"Content-Type": content_type, "Content-Length": str(file.stat().st_size)}
        try:
            with file.open("rb") as content:
                response = httpx.put(url, content=content, headers=headers, timeout=600)
        except httpx.HTTPError as error:
            raise UnavailableError(f"the upload to the signed URL failed: {error}") from error
        if response.status_code >= 400:
            raise _error(response)


@contextmanager
def connect(server: str, api_key: str | None, *, timeout_s: float = 300.0) -> Iterator[Client]:
    """Open a client for `server`; without a key only the public endpoints answer."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        http = httpx.Client(base_url=server, headers=headers, timeout=timeout_s)
    except (httpx.InvalidURL, UnicodeEncodeError) as error:
        raise BadRequestError(f"--server {server!r} or the API key cannot be used: {error}") from error
    with http:
        yield Client(http)


def quoted(name: str) -> str:
    """Return a name as one part of a path, whatever it holds."""
    return quote(name, safe="")


def _error(response: httpx.Response) -> MixpeekError:
    try:
        envelope = response.json().get("error", {})
    except (json.JSONDecodeError, AttributeError):
        envelope = {}
    message = str(envelope.get("message") or f"the server answered {response.status_code}")
    details = envelope.get("details") or {}
    for item in details.get("validation_errors") or []:
        place = ".".join(str(part) for part in item.get("location", []))
        line = f"{place}: {item.get('message')}" if place else str(item.get("message"))
        if line not in message and str(item.get("message")) not in message:
            message += f"\n  {line}"
    if response.status_code == 401:
        message += " (set MIXPEEK_API_KEY or pass --api-key)"
    kind = _BY_STATUS.get(response.status_code, RefusedError)
    if envelope.get("type") == "AlreadyExistsError":
        kind = AlreadyExistsError
    return kind(message, code=envelope.get("code"), details=details)
