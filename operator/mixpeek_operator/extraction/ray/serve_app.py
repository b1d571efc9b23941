"""The Ray Serve application of one extractor: its `realtime.py`, and the models that embed its documents.

A RayService names it in `serveConfigV2` as `import_path: mixpeek_operator.extraction.ray.serve_app:build` with the
fields of `Arguments` as `args` and `Realtime` as its one deployment.

    POST <route prefix>          {"inputs": {…}, "parameters": {…}}  → what `run_inference` returns
    POST <route prefix>/embed    {"model": …, "inputs": […], "purpose": …, "namespace_id": …}
                                 → {"vectors": […], "identity": …}, of the weights that embedded
    POST <route prefix>/score    {"model": …, "query": …, "texts": […], "namespace_id": …}
                                 → {"scores": […], "identity": …, "method": …}

Requests that wait together are embedded together: one thread owns the model and takes what is there.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mixpeek_operator.core.errors import BadRequestError, ForbiddenError, InternalError, MixpeekError, SpecError
from mixpeek_operator.core.settings import Settings
from mixpeek_operator.extraction.models.registry import DEFAULT
from mixpeek_operator.extraction.ray import process, wire
from mixpeek_operator.extraction.registry import ExtractorRegistry
from mixpeek_operator.extraction.runner import container
from mixpeek_operator.extraction.sdk import BaseInferenceService
from mixpeek_operator.ports.vectors import SparseVector

if TYPE_CHECKING:
    from ray.serve import Application
    from starlette.requests import Request
    from starlette.responses import Response

MAX_ONGOING = 64
"""Requests that one replica works on at a time; what they ask for is embedded in common batches."""


class Arguments(BaseModel):
    """`args` of the application."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    extractor: str = Field(description="Name of the extractor.", examples=["text_extractor"])
    version: str = Field(description="Version of the extractor.", examples=["v1"])
    namespace_id: str | None = Field(
        default=None, description="The only namespace that is answered; every one when unset.", examples=["ns_news"]
    )
    model: str = Field(default=DEFAULT, description="Model that is loaded before the first request.")


class EmbedRequest(BaseModel):
    """Body of `/embed`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    inputs: list[str]
    purpose: str
    namespace_id: str


class ScoreRequest(BaseModel):
    """Body of `/score`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    query: str
    texts: list[str]
    namespace_id: str


class RealtimeRequest(BaseModel):
    """Body of the realtime endpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    inputs: dict[str, Any]
    parameters: dict[str, Any] = Field(default_factory=dict)


class Realtime:
    """One replica."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self._arguments = Arguments.model_validate(arguments)
        models = process.Models.of(Settings())
        self._inference = process.inference(models)
        self._archive = ExtractorRegistry(models.registry()).archive(self._arguments.extractor, self._arguments.version)
        self._service: BaseInferenceService | None = None

    async def check_health(self) -> None:
        """Load the model; the replica gets no request before this succeeded once."""
        await self._inference.warm(self._arguments.model)
        await self._inference.health()

    async def __call__(self, request: Request) -> Response:
        from starlette.responses import Response

        try:
            content, status = await self._answer(request.url.path, await request.body()), 200
        except MixpeekError as error:
            content, status = wire.described(error), error.status
        return Response(orjson.dumps(content, default=_plain), status, media_type="application/json")

    async def _answer(self, path: str, body: bytes) -> Any:
        try:
            if path.rstrip("/").endswith("/embed"):
                return await self._embed(EmbedRequest.model_validate_json(body))
            if path.rstrip("/").endswith("/score"):
                return await self._score(ScoreRequest.model_validate_json(body))
            return await self._realtime(RealtimeRequest.model_validate_json(body))
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
            raise BadRequestError(f"the body is not as it should be: {problems}") from None

    async def _embed(self, wanted: EmbedRequest) -> dict[str, Any]:
        self._check(wanted.namespace_id)
        vectors = await self._inference.embed(
            wanted.model, wanted.inputs, purpose=wanted.purpose, namespace_id=wanted.namespace_id
        )
        identity = await self._inference.identity(wanted.model, namespace_id=wanted.namespace_id)
        return {"vectors": vectors, "identity": identity}

    async def _score(self, wanted: ScoreRequest) -> dict[str, Any]:
        self._check(wanted.namespace_id)
        found = await self._inference.score(wanted.model, wanted.query, wanted.texts, namespace_id=wanted.namespace_id)
        return {"scores": found.values, "identity": found.model, "method": found.method}

    def _check(self, namespace_id: str) -> None:
        own = self._arguments.namespace_id
        if own is not None and namespace_id != own:
            raise ForbiddenError("this application answers another namespace")

    async def _realtime(self, wanted: RealtimeRequest) -> dict[str, Any]:
        if self._service is None:
            self._service = self._load()
        try:
            return await self._service(wanted.inputs, wanted.parameters)
        except (MixpeekError, asyncio.CancelledError):
            raise
        except ValidationError as error:
            raise SpecError(f"the parameters are not as they should be: {error.error_count()} problems") from None
        except Exception as error:
            raise InternalError(f"realtime.py of {self._archive.name} failed: {type(error).__name__}") from error

    def _load(self) -> BaseInferenceService:
        try:
            module = importlib.import_module(f"{self._archive.package}.realtime")
        except ModuleNotFoundError:
            raise SpecError(f"{self._archive.name} has no realtime.py", code="not_realtime") from None
        namespace_id = self._arguments.namespace_id or "shared"
        service: BaseInferenceService = module.InferenceService(container(self._inference, namespace_id))
        return service


def build(args: dict[str, Any]) -> Application:
    """Return the application of one extractor; `args` are the fields of `Arguments`."""
    from ray import serve

    arguments = Arguments.model_validate(args)
    deployment = serve.deployment(
        name="Realtime", max_ongoing_requests=MAX_ONGOING, health_check_timeout_s=300, graceful_shutdown_timeout_s=20
    )(Realtime)
    bound: Application = deployment.bind(arguments.model_dump())
    return bound


def _plain(value: Any) -> Any:
    if isinstance(value, SparseVector):
        return {"indices": list(value.indices), "values": list(value.values)}
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"cannot be said in JSON: {type(value).__name__}")
