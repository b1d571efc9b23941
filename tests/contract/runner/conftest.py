"""Runners under contract. A runner joins by one more parameter of `runner`."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import httpx
import pytest
from tests.servers.ray import RayCluster, ray_cluster

from mixpeek_operator.adapters.local_blobs import LocalBlobs
from mixpeek_operator.core.clock import SystemClock
from mixpeek_operator.extraction.models.registry import ModelRegistry
from mixpeek_operator.extraction.ray.endpoints import Endpoints
from mixpeek_operator.extraction.ray.jobs import RayJobRunner
from mixpeek_operator.extraction.ray.process import Models, inference
from mixpeek_operator.extraction.registry import ExtractorRegistry
from mixpeek_operator.extraction.runner import InProcessRunner
from mixpeek_operator.ports.compute import Runner

pytest.importorskip("torch", reason="needs mixpeek-operator[models]")

MODEL = "all-MiniLM-L6-v2"
Opens = Callable[[pytest.FixtureRequest, str], AbstractAsyncContextManager[Runner]]


@pytest.fixture(scope="session")
def cluster() -> Iterator[RayCluster]:
    # Not imported here: Ray reads its environment once, and `connected` sets it.
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs mixpeek-operator[ray]")
    with ray_cluster(cpus=4) as started:
        yield started


@pytest.fixture(scope="session")
def connected(cluster: RayCluster) -> Iterator[RayCluster]:
    """A cluster that this process is part of."""
    os.environ.update({name: value for name, value in cluster.environment.items() if name.startswith("RAY_")})
    import ray

    ray.init(address=cluster.address, namespace="mixpeek", log_to_driver=False, logging_level="error")
    yield cluster
    ray.shutdown()


def registry() -> ExtractorRegistry:
    """Extractors as the server declares them, whatever the model that is served."""
    return ExtractorRegistry(ModelRegistry(default=MODEL))


def models(served: str) -> Models:
    return Models(default=served, path=None, hub=False, threads=1, batch_size=32)


def job_environment(blobs: Path, served: str) -> dict[str, str]:
    return {
        "MIXPEEK_BLOBS_URL": blobs.as_uri(),
        "MIXPEEK_EMBEDDING_MODEL": served,
        "MIXPEEK_EMBEDDING_THREADS": "1",
    }


@contextlib.asynccontextmanager
async def in_process(request: pytest.FixtureRequest, served: str) -> AsyncIterator[Runner]:
    embedding = inference(models(served))
    yield InProcessRunner(registry(), embedding)
    await embedding.close()


@contextlib.asynccontextmanager
async def ray_data(request: pytest.FixtureRequest, served: str) -> AsyncIterator[Runner]:
    request.getfixturevalue("connected")
    from mixpeek_operator.extraction.ray.data import RayDataRunner
    from mixpeek_operator.extraction.ray.process import runner

    yield RayDataRunner(registry(), partial(runner, models(served)), ahead=1)


@contextlib.asynccontextmanager
async def ray_job(request: pytest.FixtureRequest, served: str) -> AsyncIterator[Runner]:
    cluster: RayCluster = request.getfixturevalue("cluster")
    root: Path = request.getfixturevalue("tmp_path") / "blobs"
    blobs = LocalBlobs(root, b"", "", SystemClock())
    environment = job_environment(root, served)
    async with httpx.AsyncClient(timeout=30) as http:
        shared = Endpoints(cluster.dashboard_url, token=cluster.token)
        yield RayJobRunner(registry(), blobs, http, shared, environment=environment, ahead=1)
    assert not await blobs.delete_prefix("ns_a/"), "a run leaves nothing in the blob store"


RUNNERS: dict[str, Opens] = {"in-process": in_process, "ray-data": ray_data, "ray-job": ray_job}
ON_RAY = (pytest.mark.slow, pytest.mark.filterwarnings("ignore"))
"""Ray warns of itself, from many places."""
PARAMETERS = [pytest.param(name, marks=ON_RAY if name.startswith("ray") else ()) for name in RUNNERS]


@pytest.fixture(params=PARAMETERS)
async def runner(request: pytest.FixtureRequest) -> AsyncIterator[Runner]:
    async with RUNNERS[request.param](request, MODEL) as runner:
        yield runner


@pytest.fixture(params=PARAMETERS)
async def runner_without_model(request: pytest.FixtureRequest) -> AsyncIterator[Runner]:
    async with RUNNERS[request.param](request, "absent-model") as runner:
        yield runner
