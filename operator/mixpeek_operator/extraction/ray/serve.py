"""Inference by a Ray Serve application, over HTTP."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import orjson
import stamina

from mixpeek_operator.core.errors import UnavailableError
from mixpeek_operator.extraction.ray import wire
from mixpeek_operator.extraction.ray.endpoints import (
    EXTRACTOR,
    VERSION,
    Endpoints,
    FindEndpoints,
    route_prefix,
    shared_only,
)
from mixpeek_operator.ports.inference import Scores
from mixpeek_operator.ports.vectors import SparseVector, Vector

_TOLD_S = 5.0
"""Seconds that an application is taken to embed with the weights it said."""


class RayServeInference:
    """Serves `ports.inference.Inference` with `serve_app` on the cluster of each namespace.

    `shared` is the cluster of every namespace for which `endpoints` knows no other.
    """

    def __init__(
        self, http: httpx.AsyncClient, shared: Endpoints | None, *, endpoints: FindEndpoints = shared_only
    ) -> None:
        self._http = http
        self._shared = shared
        self._endpoints = endpoints
        self._identities: dict[tuple[str, str], tuple[float, str]] = {}

    async def embed(self, model: str, inputs: Sequence[str], *, purpose: str, namespace_id: str) -> list[Vector]:
        """One vector per input, in order, computed or remembered by the application.

        Raises UnavailableError when it is away, ModelUnavailableError when it has no such model.
        """
        if not inputs:
            return []
        return await self._embed(model, inputs, purpose, namespace_id)

    async def score(self, model: str, query: str, texts: Sequence[str], *, namespace_id: str) -> Scores:
        """One score per text, in order. Raises as `embed` does."""
        answer = await self._ask(
            namespace_id,
            "score",
            {"model": model, "query": query, "texts": list(texts), "namespace_id": namespace_id},
        )
        return Scores(answer["scores"], str(answer["identity"]), answer["method"])

    async def identity(self, model: str, *, namespace_id: str) -> str:
        """What the application said last that it embeds with; asked for unless it said so just now."""
        told = self._identities.get((self._url(namespace_id), model))
        if told is None or told[0] <= time.monotonic():
            await self._embed(model, (), "query", namespace_id)
            told = self._identities[self._url(namespace_id), model]
        return told[1]

    async def _embed(self, model: str, inputs: Sequence[str], purpose: str, namespace_id: str) -> list[Vector]:
        answer = await self._ask(
            namespace_id,
            "embed",
            {"model": model, "inputs": list(inputs), "purpose": purpose, "namespace_id": namespace_id},
        )
        self._identities[self._url(namespace_id), model] = (time.monotonic() + _TOLD_S, str(answer["identity"]))
        return [_vector(entry) for entry in answer["vectors"]]

    async def _ask(self, namespace_id: str, what: str, wanted: Mapping[str, Any]) -> Any:
        url, body = f"{self._url(namespace_id)}/{what}", orjson.dumps(wanted)
        async for attempt in stamina.retry_context(on=_Away, attempts=3, timeout=20):
            with attempt:
                answer = await self._post(url, body)
        return answer

    async def warm(self) -> None:
        """Nothing to do: a replica is given no request before its model is loaded."""

    async def health(self) -> None:
        """Whether the shared cluster's proxy answers. Raises UnavailableError."""
        if self._shared is None or self._shared.serve_url is None:
            return
        url = f"{self._shared.serve_url.rstrip('/')}/-/healthz"
        try:
            (await self._http.get(url)).raise_for_status()
        except httpx.HTTPError as error:
            raise UnavailableError(f"Ray Serve at {url} does not answer: {type(error).__name__}") from error

    async def close(self) -> None:
        """Nothing to do: who made the HTTP client closes it."""

    def _url(self, namespace_id: str) -> str:
        own = self._endpoints(namespace_id)
        found = own or self._shared
        if found is None or found.serve_url is None:
            raise UnavailableError(f"{namespace_id} has no Ray Serve yet; try again once its cluster is up")
        return found.serve_url.rstrip("/") + route_prefix(namespace_id if own else None, EXTRACTOR, VERSION)

    async def _post(self, url: str, body: bytes) -> Any:
        try:
            answer = await self._http.post(url, content=body, headers={"Content-Type": "application/json"})
        except httpx.HTTPError as error:
            raise _Away(f"Ray Serve at {url} does not answer: {type(error).__name__}") from error
        found = _json(answer)
        if answer.status_code == 200 and isinstance(found, dict):
            return found
        if isinstance(found, dict) and "error" in found:
            raise wire.error_of(found)
        raise _Away(f"Ray Serve at {url} answered {answer.status_code}: {answer.text[:200]}")


class _Away(UnavailableError):
    """Worth another try at once."""


def _json(answer: httpx.Response) -> Any:
    try:
        return orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        return None


def _vector(entry: Any) -> Vector:
    if isinstance(entry, dict):
        return SparseVector(tuple(entry["indices"]), tuple(entry["values"]))
    vector: list[float] = entry
    return vector
