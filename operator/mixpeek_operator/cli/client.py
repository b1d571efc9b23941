"""The HTTP client of the command line: one place for the address, the key, errors and retries."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import httpx

from mixpeek_operator.cli import output
from mixpeek_operator.cli.options import Target
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

if TYPE_CHECKING:
    from mixpeek_operator.cli.cluster import Cluster

LOCAL = ("127.0.0.1", 7007)
_PIECE = 256 * 1024
_UPLOAD_S = 600.0
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
    """Requests to one server, in a `cluster` or not. Raises the MixpeekError that the error envelope names."""

    def __init__(self, http: httpx.Client, cluster: Cluster | None = None) -> None:
        self._http = http
        self._cluster = cluster

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
                f"cannot reach {self.base_url} ({error}); start it with `mixpeekctl serve`, or name another "
                "by --server or MIXPEEK_SERVER"
            ) from error
        if response.status_code >= 400:
            raise self._error(response)
        return response

    def put_signed(self, url: str, file: Path, headers: Mapping[str, str]) -> None:
        """PUT a file to a signed URL, piece by piece and without our key."""
        headers = {**headers, "Content-Length": str(file.stat().st_size)}
        way = self._cluster.through(url) if self._cluster is not None else None
        try:
            if self._cluster is None or way is None:
                response = httpx.put(url, content=_Pieces(file), headers=headers, timeout=_UPLOAD_S)
            else:
                with self._cluster.client(None, _UPLOAD_S) as http:
                    response = http.put(way[0], content=_Pieces(file), headers=headers | way[1])
        except httpx.ConnectError as error:
            raise UnavailableError(
                f"the upload goes to {urlsplit(url).netloc}, which cannot be reached from here ({error}); let the "
                "server hand out links for outside (MIXPEEK_PUBLIC_URL, MIXPEEK_BLOBS_ENDPOINT_URL)"
            ) from error
        except httpx.HTTPError as error:
            raise UnavailableError(f"the upload to the signed URL failed: {error}") from error
        if response.status_code >= 400:
            raise self._error(response)

    def _error(self, response: httpx.Response) -> MixpeekError:
        if self._cluster is None:
            return _error(response)
        from mixpeek_operator.cli.cluster import refusal

        return refusal(response) or _error(response)


class _Pieces:
    """A file's bytes; may be read again, for a request that is sent again."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        with self._file.open("rb") as content:
            while piece := content.read(_PIECE):
                yield piece


@contextmanager
def connect(at: Target, *, timeout_s: float = 300.0) -> Iterator[Client]:
    """Open a client for the server that the options, the environment or the kubeconfig name, in this order.

    Without any of them it is the local server, if one listens, before the kubeconfig's current context. Without a key
    only the public endpoints answer. Raises BadRequestError, UnavailableError saying what was tried, and what
    `cli.cluster.find` raises.
    """
    asked = (at.context, at.kube_namespace, at.kubeconfig) != (None, None, None)
    if at.server is not None and asked:
        raise BadRequestError("--server names a server and --context, --kube-namespace and --kubeconfig another")
    server = at.server or os.environ.get("MIXPEEK_SERVER") or os.environ.get("MIXPEEK_BASE_URL")
    if asked or not (server or _listens()):
        cluster = _cluster(at, asked)
        key = at.api_key or cluster.key()
        with cluster.client(key, timeout_s) as http:
            yield Client(http, cluster)
        return
    headers = {"Authorization": f"Bearer {at.api_key}"} if at.api_key else {}
    server = server or _local()
    try:
        http = httpx.Client(base_url=server, headers=headers, timeout=timeout_s)
    except (httpx.InvalidURL, UnicodeEncodeError) as error:
        raise BadRequestError(f"--server {server!r} or the API key cannot be used: {error}") from error
    with http:
        yield Client(http)


def _listens() -> bool:
    try:
        socket.create_connection(LOCAL, timeout=1).close()
    except OSError:
        return False
    return True


def _local() -> str:
    return f"http://{LOCAL[0]}:{LOCAL[1]}"


def _cluster(at: Target, asked: bool) -> Cluster:
    # Only those who need it pay for it.
    from mixpeek_operator.cli.cluster import find

    if asked:
        return find(at.kubeconfig, at.context, at.kube_namespace)
    try:
        found = find(None, None, None)
    except MixpeekError as error:
        raise UnavailableError(
            f"no server: nothing listens at {_local()}, and {error}; start one with `mixpeekctl serve`, or name one by "
            "--server, MIXPEEK_SERVER or --context",
            code="no_server",
        ) from error
    output.warn(f"using {found}")
    return found


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
