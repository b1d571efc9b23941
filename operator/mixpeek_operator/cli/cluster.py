"""The API of a cluster, found by the kubeconfig and reached through the service proxy of the API server."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from mixpeek_operator.adapters.kubernetes_config import Connection, connection
from mixpeek_operator.adapters.kubernetes_errors import error_of
from mixpeek_operator.core.errors import MixpeekError, NotFoundError, RefusedError, SpecError, UnavailableError

_OURS = "app.kubernetes.io/part-of=mixpeek"
_COMPONENT = "app.kubernetes.io/component"
_INSTANCE = "app.kubernetes.io/instance"
_KEY = "api-key"
"""Of the Secret that the chart makes."""
_TIMEOUT_S = 30.0


class Cluster:
    """One installation in a namespace of a cluster. `services` are its Services by name, `name` is its API's."""

    def __init__(self, where: Connection, namespace: str, name: str, services: Mapping[str, Mapping[str, Any]]) -> None:
        self.where = where
        self.namespace = namespace
        self.name = name
        self._services = services

    def __str__(self) -> str:
        return f"Service {self.namespace}/{self.name} of {self.where.server}"

    @property
    def base_url(self) -> str:
        """Where the API server lets requests through to our API."""
        ports = self._services[self.name]["spec"]["ports"]
        port = next((item for item in ports if item.get("name") in ("http", "https")), ports[0])
        return self._proxy(self.name, str(port["port"]), "https" if port.get("name") == "https" else "http")

    def key(self) -> str | None:
        """Return the API key of the Secret that the chart makes; None when there is none or it is not for us."""
        name = f"{self.name.removesuffix('-api')}-credentials"
        try:
            secret = _get(self.where, f"/api/v1/namespaces/{self.namespace}/secrets/{name}")
        except (NotFoundError, RefusedError):
            return None
        held = (secret.get("data") or {}).get(_KEY)
        return base64.b64decode(held).decode().strip() if held else None

    def client(self, api_key: str | None, timeout_s: float) -> httpx.Client:
        """Return a client of our API. The Authorization header is the API server's, so the key goes in another."""
        headers = {"X-API-Key": api_key} if api_key else {}
        return _client(self.where, base_url=self.base_url, headers=headers, timeout=timeout_s)

    def through(self, link: str) -> tuple[str, dict[str, str]] | None:
        """Return the way to a link and its headers when the link leads to a Service of the installation."""
        parts = urlsplit(link)
        name, _, rest = (parts.hostname or "").partition(".")
        own = ("", self.namespace, f"{self.namespace}.svc", f"{self.namespace}.svc.cluster.local")
        if name not in self._services or rest not in own:
            return None
        port = str(parts.port or (443 if parts.scheme == "https" else 80))
        query = f"?{parts.query}" if parts.query else ""
        # An object store signs the name it is called by.
        return f"{self._proxy(name, port, parts.scheme)}{parts.path}{query}", {"Host": parts.netloc}

    def _proxy(self, name: str, port: str, scheme: str) -> str:
        return f"{self.where.server}/api/v1/namespaces/{self.namespace}/services/{scheme}:{name}:{port}/proxy"


def find(kubeconfig: Path | None, context: str | None, namespace: str | None) -> Cluster:
    """Return the installation in a Kubernetes namespace, by default that of the context.

    Raises SpecError when no cluster is configured, NotFoundError or RefusedError naming what was looked for.
    """
    where = connection(kubeconfig, context)
    looked = namespace or where.namespace
    found = _get(where, f"/api/v1/namespaces/{looked}/services", {"labelSelector": _OURS})["items"]
    apis = [item["metadata"] for item in found if _label(item, _COMPONENT) == "api"]
    if not apis:
        raise NotFoundError(
            f"Kubernetes namespace {looked!r} of {where.server} has no Service of mixpeek's API "
            f"({_OURS},{_COMPONENT}=api); {_elsewhere(where)}",
            code="no_service",
        )
    if len(apis) > 1:
        names = ", ".join(sorted(item["name"] for item in apis))
        raise RefusedError(
            f"Kubernetes namespace {looked!r} has several installations: {names}; "
            "forward a port of one (kubectl port-forward) and give --server",
            code="many_services",
        )
    instance = apis[0]["labels"].get(_INSTANCE)
    services = {item["metadata"]["name"]: item for item in found if _label(item, _INSTANCE) == instance}
    return Cluster(where, looked, apis[0]["name"], services)


def refusal(response: httpx.Response) -> MixpeekError | None:
    """Return the error of an answer that the API server gave itself, None when it is our API's."""
    try:
        body = response.json()
    except ValueError:
        return None
    if not isinstance(body, dict) or body.get("kind") != "Status" or body.get("apiVersion") != "v1":
        return None
    request = f"{response.request.method} {response.request.url.path}"
    return error_of(response.status_code, body, request, response.headers.get("Retry-After"))


class _Authorized(httpx.Auth):
    """Puts the kubeconfig's credentials on every request, once anew when the API server refuses them."""

    requires_response_body = True

    def __init__(self, where: Connection) -> None:
        self._where = where

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if self._where.server_name is not None:
            request.extensions = {**request.extensions, "sni_hostname": self._where.server_name}
        for renew in (False, True):
            value = asyncio.run(self._where.credentials.authorization(renew=renew))
            if value:
                request.headers["Authorization"] = value
            answer = yield request
            if not value or answer.status_code != 401 or refusal(answer) is None:
                return


def _client(where: Connection, **options: Any) -> httpx.Client:
    return httpx.Client(verify=where.tls, proxy=where.proxy, auth=_Authorized(where), **options)


def _get(where: Connection, path: str, query: Mapping[str, str] | None = None) -> Any:
    try:
        with _client(where, timeout=_TIMEOUT_S) as http:
            answer = http.get(where.server + path, params=query)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = str(error) or type(error).__name__
        raise UnavailableError(f"the Kubernetes API server at {where.server} does not answer: {why}") from error
    if answer.status_code >= 400:
        raise refusal(answer) or error_of(answer.status_code, {}, f"GET {path}")
    try:
        return answer.json()
    except ValueError as error:
        raise SpecError(f"{where.server} is no Kubernetes API server", code="no_cluster") from error


def _elsewhere(where: Connection) -> str:
    try:
        found = _get(where, "/api/v1/services", {"labelSelector": f"{_OURS},{_COMPONENT}=api"})["items"]
    except RefusedError:
        found = []
    names = ", ".join(sorted({item["metadata"]["namespace"] for item in found}))
    return f"give --kube-namespace; it is in {names}" if names else "name its namespace with --kube-namespace"


def _label(item: Mapping[str, Any], name: str) -> str | None:
    value = (item["metadata"].get("labels") or {}).get(name)
    return None if value is None else str(value)
