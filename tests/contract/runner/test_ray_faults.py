"""Workers, jobs and servers that die in the middle of a run on Ray."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.contract.runner.conftest import MODEL, ON_RAY, job_environment, models, registry
from tests.servers.mixpeek import free_port
from tests.servers.ray import RayCluster

from mixpeek_operator.adapters.local_blobs import LocalBlobs
from mixpeek_operator.core.clock import SystemClock
from mixpeek_operator.core.errors import RefusedError, UnavailableError
from mixpeek_operator.extraction.ray.endpoints import Endpoints
from mixpeek_operator.extraction.ray.job_api import ENDED, JobApi
from mixpeek_operator.extraction.ray.jobs import RayJobRunner, run_name
from mixpeek_operator.extraction.ray.mailbox import Mailbox
from mixpeek_operator.extraction.ray.worker import Work
from mixpeek_operator.extraction.runner import InProcessRunner, Run
from mixpeek_operator.ports.compute import RowFailure, Segment, SourceRow

pytestmark = list(ON_RAY)
PARAMETERS = {"dense_embedding": False}
WORK = Work("text_extractor", "v1", PARAMETERS, "ns_a")


class DiesOnce:
    """The runner of a worker whose process is killed by the first row that says so."""

    def __init__(self, runner: InProcessRunner, marker: Path) -> None:
        self._runner = runner
        self._marker = marker

    def prepare(self, *arguments: Any) -> DiesOnce:
        self._run: Run = self._runner.prepare(*arguments)
        return self

    def block(self, rows: Sequence[SourceRow]) -> list[Segment | RowFailure]:
        if any("kill me" in str(row.inputs.get("text")) for row in rows) and not self._marker.exists():
            self._marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self._run.block(rows)


def dies_once(marker: Path) -> Any:
    from mixpeek_operator.extraction.ray.process import runner

    return DiesOnce(runner(models(MODEL)), marker)


def row(number: int, text: str = "fine") -> SourceRow:
    return SourceRow(f"obj_{number:03}", {"text": f"{text} {number}"})


async def stream(*blocks: list[SourceRow]) -> AsyncIterator[Sequence[SourceRow]]:
    for block in blocks:
        yield block


async def test_a_worker_killed_in_a_batch_costs_a_retry_and_no_row(connected: RayCluster, tmp_path: Path) -> None:
    from mixpeek_operator.extraction.ray.data import RayDataRunner

    marker = tmp_path / "killed"
    runner = RayDataRunner(registry(), partial(dies_once, marker), ahead=3)
    blocks = [[row(100 * block + number) for number in range(80)] for block in range(4)]
    blocks[1][10] = row(110, "kill me")
    results = runner.run(
        extractor="text_extractor", version="v1", parameters=PARAMETERS, namespace_id="ns_a", rows=stream(*blocks)
    )
    found = [[item.source_id async for item in _each(block)] async for block in results]
    assert marker.exists(), "the worker was killed"
    assert found == [[each.id for each in block] for block in blocks]


async def _each(block: Sequence[Segment | RowFailure]) -> AsyncIterator[Segment | RowFailure]:
    for item in block:
        assert isinstance(item, Segment)
        yield item


async def job_of(run_id: str, blobs: LocalBlobs) -> str:
    control = await Mailbox(blobs, f"ns_a/runs/{run_name(WORK, run_id)}").control()
    assert control is not None
    return control.job


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs", b"", "", SystemClock())


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=30) as client:
        yield client


async def test_a_server_that_died_leaves_a_job_that_the_next_one_goes_on_with(
    cluster: RayCluster, blobs: LocalBlobs, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    endpoints = Endpoints(cluster.dashboard_url, token=cluster.token)
    environment = job_environment(tmp_path / "blobs", MODEL)
    runner = RayJobRunner(registry(), blobs, http, endpoints, environment=environment)
    api = JobApi(http, endpoints)

    def run(*blocks: list[SourceRow]) -> Any:
        return runner.run(
            extractor="text_extractor",
            version="v1",
            parameters=PARAMETERS,
            namespace_id="ns_a",
            rows=stream(*blocks),
            run_id="bat_1",
        )

    first = run([row(0)], [row(1)], [row(2)])
    [segment] = await anext(first)
    assert segment.source_id == "obj_000"
    job = await job_of("bat_1", blobs)
    started = (await _details(http, cluster, job))["start_time"]
    # The first server is gone here: it neither stops its job nor reads on.
    second = run([row(1)], [row(2)], [row(3)])
    assert [[item.source_id for item in block] async for block in second] == [["obj_001"], ["obj_002"], ["obj_003"]]
    assert await api.status(job) == ("SUCCEEDED", "Job finished successfully.")
    assert (await _details(http, cluster, job))["start_time"] == started, "no second job was started"
    await first.aclose()


async def test_closing_a_run_stops_its_job_and_the_run_can_be_done_again(
    cluster: RayCluster, blobs: LocalBlobs, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    endpoints = Endpoints(cluster.dashboard_url, token=cluster.token)
    environment = job_environment(tmp_path / "blobs", MODEL)
    runner = RayJobRunner(registry(), blobs, http, endpoints, environment=environment)

    def run() -> Any:
        return runner.run(
            extractor="text_extractor",
            version="v1",
            parameters=PARAMETERS,
            namespace_id="ns_a",
            rows=stream([row(0)], [row(1)]),
            run_id="bat_2",
        )

    first = run()
    await anext(first)
    job = await job_of("bat_2", blobs)
    await first.aclose()
    for _ in range(1200):
        found = await JobApi(http, endpoints).status(job)
        if found is not None and found[0] in ENDED:
            break
        await asyncio.sleep(0.1)
    assert found is not None
    assert found[0] == "STOPPED"
    assert [[item.source_id for item in block] async for block in run()] == [["obj_000"], ["obj_001"]]
    assert await blobs.delete_prefix("ns_a/") == 0


async def test_a_job_that_fails_says_why_without_its_secrets(
    cluster: RayCluster, blobs: LocalBlobs, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    secret = "sk_planted_secret"
    given = {"MIXPEEK_EMBEDDING_THREADS": secret, "AWS_SECRET_ACCESS_KEY": secret}
    environment = {**job_environment(tmp_path / "blobs", MODEL), **given}
    endpoints = Endpoints(cluster.dashboard_url, token=cluster.token)
    runner = RayJobRunner(registry(), blobs, http, endpoints, environment=environment)
    run = runner.run(
        extractor="text_extractor", version="v1", parameters={}, namespace_id="ns_a", rows=stream([row(0)])
    )
    with pytest.raises(UnavailableError, match=r"ended as FAILED(.|\n)*embedding_threads") as caught:
        await anext(run)
    assert secret not in str(caught.value)
    assert "***" in str(caught.value), "the job printed it"
    assert await blobs.delete_prefix("ns_a/") == 0


async def test_a_cluster_that_is_away_or_refuses_us(
    cluster: RayCluster, blobs: LocalBlobs, http: httpx.AsyncClient
) -> None:
    for endpoints, error, told in (
        (Endpoints(f"http://127.0.0.1:{free_port()}"), UnavailableError, "cannot be reached"),
        (Endpoints(cluster.dashboard_url, token="wrong"), RefusedError, "MIXPEEK_RAY_TOKEN"),
    ):
        runner = RayJobRunner(registry(), blobs, http, endpoints, environment={})
        run = runner.run(
            extractor="text_extractor", version="v1", parameters={}, namespace_id="ns_a", rows=stream([row(0)])
        )
        with pytest.raises(error, match=told):
            await anext(run)
    assert await blobs.delete_prefix("ns_a/") == 0


async def _details(http: httpx.AsyncClient, cluster: RayCluster, job: str) -> dict[str, Any]:
    url = f"{cluster.dashboard_url}/api/jobs/{job}"
    found = (await http.get(url, headers={"Authorization": f"Bearer {cluster.token}"})).raise_for_status()
    details: dict[str, Any] = found.json()
    assert job.startswith("ns_a-")
    assert "MIXPEEK" not in details["entrypoint"]
    return details
