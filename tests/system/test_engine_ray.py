"""`mixpeekctl serve --engine ray` on one machine: a batch on Ray workers, a search, and nothing left behind."""

from __future__ import annotations

import contextlib
import importlib.util
import secrets
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.benchmarks.corpus import MANIFEST, NAMESPACE
from tests.servers.mixpeek import KEY, apply
from tests.servers.ray import processes
from tests.system.conftest import eventually
from tests.system.test_serve import refused, running

pytest.importorskip("torch", reason="needs mixpeek-operator[models]")

START_S = 300.0
TEXTS = ["a red bicycle for children", "a garden table of oak", "headphones without a cable"]


@pytest.mark.slow
def test_a_batch_on_ray_workers_is_searched_and_no_process_stays(tmp_path: Path) -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs mixpeek-operator[ray]")
    mark = secrets.token_hex(8)
    arguments = ("serve", "--engine", "ray", "--data", tmp_path / "data")
    setting = {"MIXPEEK_API_KEY": KEY, "MIXPEEK_EMBEDDING_THREADS": "1", "MIXPEEK_RAY_WORKERS": "1", "MARK": mark}
    with running(tmp_path / "log", *arguments, **setting) as server:
        assert eventually(lambda: _is_healthy(server.url), within_s=START_S), server.printed
        headers = {"Authorization": f"Bearer {KEY}", "X-Namespace": NAMESPACE}
        with httpx.Client(base_url=server.url, headers=headers, timeout=60) as http:
            apply(http, MANIFEST)
            objects = [{"text": text, "category": "c"} for text in TEXTS] + [{"text": 5 * "long " * 300}]
            made = http.post("/v1/buckets/texts/objects/batch", json={"objects": objects}).json()
            ids = [item["object_id"] for item in made["succeeded"]]
            assert len(ids) == len(objects), made
            batch = http.post("/v1/buckets/texts/batches", json={"object_ids": ids}).raise_for_status().json()
            path = f"/v1/buckets/texts/batches/{batch['batch_id']}"
            http.post(f"{path}/submit", json={}).raise_for_status()

            def state() -> Any:
                return http.get(path).json()

            assert eventually(lambda: state()["status"] not in ("PENDING", "IN_PROGRESS"), within_s=START_S), state()
            assert state()["status"] == "COMPLETED", state()
            answer = http.post("/v1/retrievers/by_text/execute", json={"inputs": {"query": "a bike for kids"}})
            assert answer.raise_for_status().json()["documents"][0]["text"] == TEXTS[0]
        assert len(processes(mark)) > 1, "Ray's processes are ours"
        assert server.stops() == 0, server.printed
        assert "Traceback" not in server.printed
    assert eventually(lambda: not processes(mark), within_s=30), processes(mark)


def test_an_engine_that_is_not_there_is_named(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert "--engine: Input should be 'local' or 'ray'" in refused("serve", "--data", data, "--engine", "spark")
    away = refused("serve", "--data", data, "--engine", "ray", "--port", 0, MIXPEEK_RAY_ADDRESS="127.0.0.1:1")
    assert "the Ray cluster at 127.0.0.1:1 cannot be reached" in away


def _is_healthy(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/v1/health", timeout=5).status_code == 200
    return False
