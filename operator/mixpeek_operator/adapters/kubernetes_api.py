"""The Kubernetes API over aiohttp: plain objects in and out, and its refusals as our errors.

docs/decisions/0006-kubernetes-client.md says why it is not a client library.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
import orjson

from mixpeek_operator.adapters.kubernetes_config import Connection
from mixpeek_operator.adapters.kubernetes_errors import error_of
from mixpeek_operator.core.errors import AlreadyExistsError, RateLimitedError, UnavailableError

Object = dict[str, Any]
T = TypeVar("T")
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
_PAGE = 500
_CREATED = 201
_LOOPS_TO_CLOSE = 5
_THROTTLED = 10
"""Times that a request is sent again which the API server did not take up because it is busy or starting (429); as
often as Kubernetes' own client does."""
_LINE_BYTES = 16 * 1024 * 1024
"""Longest object in a watch: etcd holds at most 1.5 MiB of one."""
_GRACE_S = 30.0
"""Silence after which a watch counts as broken, beyond the time that the API server was asked to end it in."""


@dataclass(frozen=True, slots=True)
class Api:
    """A type of object: what its addresses are made of."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the address of a collection, an object or a part of it; without `namespace` of all namespaces."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if namespace is not None and self.namespaced:
            parts += ["namespaces", namespace]
        parts += [item for item in (self.plural, name, subresource) if item is not None]
        return "/".join(parts)


SECRETS = Api("", "v1", "secrets", "Secret")
SERVICES = Api("", "v1", "services", "Service")
EVENTS = Api("", "v1", "events", "Event")
NAMESPACES = Api("", "v1", "namespaces", "Namespace", namespaced=False)
LEASES = Api("coordination.k8s.io", "v1", "leases", "Lease")
DEFINITIONS = Api(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)


@dataclass(frozen=True, slots=True)
class Page:
    """A whole listing, and the resourceVersion that a watch goes on from."""

    items: list[Object]
    resource_version: str


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One entry of a watch: `ADDED`, `MODIFIED`, `DELETED` or `BOOKMARK`."""

    type: str
    object: Object


class KubernetesApi:
    """Requests to one API server. Every call raises the errors of `kubernetes_errors.error_of`.

    `timeout_s` is how long one request may take; `connections` how many are open at once, watches aside.
    """

    def __init__(
        self, connection: Connection, *, user_agent: str = "mixpeek", timeout_s: float = 30.0, connections: int = 32
    ) -> None:
        self.connection = connection
        self._timeout_s = timeout_s
        self._user_agent = user_agent
        # Watches hold a connection each and for ever: only other requests count.
        self._slots = asyncio.Semaphore(connections)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End every request and watch."""
        if self._session is not None:
            await self._session.close()
            self._session = None
            # TLS connections are cut off by callbacks of the loop, which may end right after us.
            for _ in range(_LOOPS_TO_CLOSE):
                await asyncio.sleep(0)

    async def health(self) -> None:
        """Raise when the API server does not answer that it is ready."""
        await self.request("GET", "/readyz")

    # -- objects -----------------------------------------------------------------------------------------------

    async def get(self, api: Api, namespace: str | None, name: str) -> Object:
        """Return an object. Raises NotFoundError."""
        return await self.request("GET", api.path(namespace, name))

    async def list(
        self,
        api: Api,
        namespace: str | None = None,
        *,
        labels: str | None = None,
        fields: str | None = None,
    ) -> Page:
        """Return every object, read in pages; without `namespace` those of all namespaces."""
        query = {"limit": str(_PAGE)}
        if labels:
            query["labelSelector"] = labels
        if fields:
            query["fieldSelector"] = fields
        items: list[Object] = []
        while True:
            page = await self.request("GET", api.path(namespace), query=query)
            for item in page.get("items") or ():
                # A listing names the type once, for all of its items.
                item.setdefault("apiVersion", api.api_version)
                item.setdefault("kind", api.kind)
                items.append(item)
            token = page["metadata"].get("continue")
            if not token:
                return Page(items, str(page["metadata"]["resourceVersion"]))
            query["continue"] = token

    async def create(self, api: Api, body: Object, *, manager: str | None = None, dry_run: bool = False) -> Object:
        """Create an object. Raises AlreadyExistsError."""
        query = _query(manager, dry_run)
        return await self.request("POST", api.path(body["metadata"].get("namespace")), body, query=query)

    async def replace(self, api: Api, body: Object, *, manager: str | None = None, dry_run: bool = False) -> Object:
        """Write a whole object; with `metadata.resourceVersion` it raises ConflictError when there is a newer one."""
        metadata = body["metadata"]
        path = api.path(metadata.get("namespace"), metadata["name"])
        return await self.request("PUT", path, body, query=_query(manager, dry_run))

    async def patch(
        self,
        api: Api,
        namespace: str | None,
        name: str,
        body: Any,
        *,
        kind: str = MERGE_PATCH,
        subresource: str | None = None,
        manager: str | None = None,
        dry_run: bool = False,
    ) -> Object:
        """Change an object by a merge patch (a mapping) or a JSON patch (a list)."""
        path = api.path(namespace, name, subresource)
        return await self.request("PATCH", path, body, query=_query(manager, dry_run), content_type=kind)

    async def apply(
        self,
        api: Api,
        body: Object,
        *,
        manager: str,
        force: bool = False,
        subresource: str | None = None,
        dry_run: bool = False,
        create: bool = False,
    ) -> Object:
        """Server-side apply. Without `force` a field that another manager has raises ConflictError naming both.

        With `create` an object that was there before raises AlreadyExistsError; a dry run finds out without harm.
        """
        metadata = body["metadata"]
        path = api.path(metadata.get("namespace"), metadata["name"], subresource)
        query = _query(manager, dry_run) | {"force": "true" if force else "false"}
        return await self.request("PATCH", path, body, query=query, content_type=APPLY_PATCH, create=create)

    async def delete(
        self,
        api: Api,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: str | None = None,
        dry_run: bool = False,
    ) -> Object:
        """Delete an object, that one only when `uid` is given; returns it as marked, or a status once it is gone."""
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        if given := {key: value for key, value in preconditions.items() if value is not None}:
            body["preconditions"] = given
        if propagation:
            body["propagationPolicy"] = propagation
        if dry_run:
            body["dryRun"] = ["All"]
        return await self.request("DELETE", api.path(namespace, name), body)

    async def watch(
        self,
        api: Api,
        namespace: str | None = None,
        *,
        resource_version: str,
        labels: str | None = None,
        fields: str | None = None,
        timeout_s: float = 240.0,
    ) -> AsyncIterator[WatchEvent]:
        """Yield what happens after `resource_version`, bookmarks included, until the API server ends it.

        Raises kubernetes_errors.Expired when that version is too old: list again.
        """
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(int(timeout_s * (0.75 + random.random() / 4))),  # noqa: S311 - spreads load
        }
        if labels:
            query["labelSelector"] = labels
        if fields:
            query["fieldSelector"] = fields
        timeout = aiohttp.ClientTimeout(
            total=timeout_s + _GRACE_S, sock_connect=self._timeout_s, sock_read=timeout_s + _GRACE_S
        )
        path = api.path(namespace)
        answer = await self._taken_up(lambda: self._send("GET", path, None, query, None, timeout))
        try:
            async for line in answer.content:
                event = orjson.loads(line)
                if event["type"] == "ERROR":
                    raise error_of(int(event["object"].get("code") or 500), event["object"], f"watch {api.plural}")
                yield WatchEvent(event["type"], event["object"])
        except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError) as error:
            raise self._away(error) from error
        finally:
            # It has no end that one could read up to, and a polite good-bye would wait for the server's.
            if answer.connection is not None and answer.connection.transport is not None:
                answer.connection.transport.abort()
            answer.close()

    # -- requests ----------------------------------------------------------------------------------------------

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        create: bool = False,
    ) -> Object:
        """Send one request and return the answer's object; sent again when the API server was too busy to take it.

        With `create` an answer that nothing new was made raises AlreadyExistsError.
        """
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)

        async def once() -> tuple[int, bytes]:
            try:
                async with self._slots, await self._send(method, path, body, query, content_type, timeout) as answer:
                    return answer.status, await answer.read()
            except (aiohttp.ClientError, TimeoutError) as error:
                raise self._away(error) from error

        status, data = await self._taken_up(once)
        if create and status != _CREATED:
            raise AlreadyExistsError(f"{path.rpartition('/')[2]} exists already")
        return _object(data)

    async def _taken_up(self, send: Callable[[], Awaitable[T]]) -> T:
        """Send, and send again what the API server was too busy, or is just starting, to take up."""
        for attempt in range(_THROTTLED + 1):
            try:
                return await send()
            except RateLimitedError as error:
                if attempt == _THROTTLED:
                    raise
                await asyncio.sleep(float(error.details.get("retry_after_s") or 1))
        raise AssertionError("unreachable")

    async def _send(
        self,
        method: str,
        path: str,
        body: Any,
        query: Mapping[str, str] | None,
        content_type: str | None,
        limits: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        """Return an answer that is no refusal; what credentials have expired is tried once with new ones."""
        connection = self.connection
        data = None if body is None else orjson.dumps(body)
        for renew in (False, True):
            headers = {"Accept": "application/json"}
            if data is not None and content_type:
                headers["Content-Type"] = content_type
            authorization = await connection.credentials.authorization(renew=renew)
            if authorization:
                headers["Authorization"] = authorization
            try:
                answer = await self._opened().request(
                    method,
                    connection.server + path,
                    params=query,
                    data=data,
                    headers=headers,
                    timeout=limits,
                    proxy=connection.proxy,
                    server_hostname=connection.server_name,
                )
            except (aiohttp.ClientError, TimeoutError) as error:
                raise self._away(error) from error
            if answer.status < 400:
                return answer
            if answer.status == 401 and not renew and authorization:
                answer.release()
                continue
            async with answer:
                raw = await answer.read()
            raise error_of(answer.status, _object(raw), f"{method} {path}", answer.headers.get("Retry-After"))
        raise AssertionError("unreachable")

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self.connection.tls, limit=0, limit_per_host=0, keepalive_timeout=30)
            self._session = aiohttp.ClientSession(
                connector=connector,
                headers={"User-Agent": self._user_agent},
                read_bufsize=_LINE_BYTES,
                auto_decompress=True,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _away(self, error: BaseException) -> UnavailableError:
        why = str(error) or type(error).__name__
        return UnavailableError(f"the Kubernetes API server at {self.connection.server} does not answer: {why}")


def _query(manager: str | None, dry_run: bool) -> dict[str, str]:
    query = {"fieldValidation": "Strict"}
    if manager:
        query["fieldManager"] = manager
    if dry_run:
        query["dryRun"] = "All"
    return query


def _object(data: bytes) -> Object:
    """Return a body as a mapping; what is none (`ok` of a health check, a proxy's page) as its text."""
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        body = None
    return body if isinstance(body, dict) else {"message": data[:500].decode(errors="replace")}
