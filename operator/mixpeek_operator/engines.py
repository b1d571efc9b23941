"""Opens what extracts and embeds: in this process by default, on Ray where the settings say so."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial

import httpx

from mixpeek_operator.adapters.bm25 import EdgeBm25
from mixpeek_operator.core.settings import Settings
from mixpeek_operator.extraction.inference import LocalInference
from mixpeek_operator.extraction.models.registry import ModelRegistry
from mixpeek_operator.extraction.ray.endpoints import Endpoints, FindEndpoints
from mixpeek_operator.extraction.ray.environment import variables
from mixpeek_operator.extraction.ray.jobs import RayJobRunner
from mixpeek_operator.extraction.ray.routed import RoutedInference, RoutedRunner
from mixpeek_operator.extraction.ray.serve import RayServeInference
from mixpeek_operator.extraction.registry import ExtractorRegistry
from mixpeek_operator.extraction.runner import InProcessRunner
from mixpeek_operator.ports.blobs import BlobStore
from mixpeek_operator.ports.cache import Cache
from mixpeek_operator.ports.compute import Runner

_HTTP_TIMEOUT_S = 60.0
_CREDENTIALS = ("AWS_", "AZURE_", "GOOGLE_")
"""What variables begin with that hold the credentials of object storage."""


@dataclass(frozen=True, slots=True)
class Engines:
    """The extractors there are, what runs them, and what embeds queries."""

    extractors: ExtractorRegistry
    runner: Runner
    inference: LocalInference | RayServeInference | RoutedInference


@contextlib.asynccontextmanager
async def open_engines(
    settings: Settings, cache: Cache, blobs: BlobStore, endpoints: FindEndpoints | None = None
) -> AsyncIterator[Engines]:
    """Open them until the block ends. `endpoints` knows the clusters that namespaces have of their own, whatever the
    engine of all others is.

    Raises NotEnabledError without Ray, UnavailableError when the local one does not start.
    """
    models = ModelRegistry(
        default=settings.embedding_model, model_path=settings.model_path, model_hub=settings.model_hub
    )
    extractors = ExtractorRegistry(models)
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=_HTTP_TIMEOUT_S))
        inference: LocalInference | RayServeInference
        if settings.engine == "ray" and settings.ray_serve_url:
            inference = RayServeInference(http, _shared(settings))
        else:
            inference = LocalInference(
                models,
                EdgeBm25(),
                cache,
                threads=settings.embedding_threads,
                batch_size=settings.embedding_batch_size,
            )
        stack.push_async_callback(inference.close)
        runner: Runner
        if settings.engine == "local":
            runner = InProcessRunner(extractors, inference)
        elif settings.ray_dashboard_url:
            runner = RayJobRunner(
                extractors, blobs, http, _shared(settings), environment=job_environment(settings, os.environ)
            )
        else:
            from mixpeek_operator.extraction.ray import process
            from mixpeek_operator.extraction.ray.data import RayDataRunner
            from mixpeek_operator.extraction.ray.local import connected

            await stack.enter_async_context(connected(settings.ray_address))
            parts = partial(process.runner, process.Models.of(settings))
            runner = RayDataRunner(extractors, parts, workers=process.workers(settings))
        if endpoints is None:
            yield Engines(extractors, runner, inference)
            return
        # The pods of a cluster of our making have credentials of their own.
        jobs = RayJobRunner(extractors, blobs, http, None, environment=variables(settings), endpoints=endpoints)
        served = RayServeInference(http, None, endpoints=endpoints)
        yield Engines(extractors, RoutedRunner(runner, jobs, endpoints), RoutedInference(inference, served, endpoints))


def job_environment(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a job: where its files and models are, and the credentials to read and write them.

    Without credentials in our own environment a job uses those of its pods.
    """
    return variables(settings) | {name: value for name, value in environment.items() if name.startswith(_CREDENTIALS)}


def _shared(settings: Settings) -> Endpoints:
    token = settings.ray_token.get_secret_value() if settings.ray_token else None
    return Endpoints(settings.ray_dashboard_url or "", settings.ray_serve_url, token)
