"""The API as a process of its own on a real cluster: killed, without an operator, and with secrets that are rotated."""

from __future__ import annotations

import base64
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from tests.cluster.declared import Tenant, eventually
from tests.servers.kubernetes.control_plane import ControlPlane
from tests.servers.mixpeek import Server, serving
from tests.servers.operator import OperatorProcess, operating
from tests.servers.process import running

BUCKETS = 40
GRACE_S = 120
MANIFEST = """
version: "1.0"
namespaces:
  - name: shop
    feature_extractors: [{name: passthrough_extractor, version: v1}]
buckets:
""" + "".join(
    f"  - {{name: bucket_{number}, namespace: shop, schema: {{properties: {{title: {{type: string}}}}}}}}\n"
    for number in range(BUCKETS)
)
GUARDED = """
version: "1.0"
namespaces:
  - name: shop
    feature_extractors: [{{name: passthrough_extractor, version: v1}}]
    infrastructure: {{qdrant_url: "{url}", qdrant_api_key: "${{{{ secrets.QDRANT_KEY }}}}"}}
buckets:
  - {{name: notes, namespace: shop, schema: {{properties: {{title: {{type: string}}}}}}}}
collections:
  - name: titles
    namespace: shop
    source: {{type: bucket, bucket_ids: [notes]}}
    feature_extractor: {{feature_extractor_name: passthrough_extractor, version: v1}}
"""
OLD, NEW = "planted-first-3f9c", "planted-second-8a1d"


@pytest.fixture
def tenant(control_plane: ControlPlane, kubernetes_namespace: Callable[[], str]) -> Tenant:
    return Tenant(control_plane, kubernetes_namespace())


@pytest.fixture
def vectors(tmp_path: Path) -> Iterator[str]:
    """URL of the vector server of every namespace that has none of its own."""
    command = [sys.executable, "-m", "tests.servers.qdrant", "--data", str(tmp_path / "vectors"), "--port"]
    with running(lambda port: [*command, str(port)], tmp_path / "vectors.log") as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture
def api(tenant: Tenant, vectors: str, tmp_path: Path) -> Iterator[Server]:
    with serving(
        tmp_path / "api",
        MIXPEEK_RESOURCES="kubernetes",
        MIXPEEK_KUBECONFIG=str(tenant.plane.kubeconfig),
        MIXPEEK_NAMESPACE=tenant.name,
        MIXPEEK_QDRANT_URL=vectors,
        MIXPEEK_PRELOAD_MODEL="false",
        MIXPEEK_OUTBOUND_ALLOW_CIDRS="127.0.0.0/8",
    ) as server:
        yield server


@pytest.fixture
def operator(tenant: Tenant, vectors: str, tmp_path: Path) -> Iterator[OperatorProcess]:
    with start_operator(tenant, vectors, tmp_path) as process:
        yield process


def start_operator(tenant: Tenant, vectors: str, folder: Path) -> AbstractContextManager[OperatorProcess]:
    """Run the operator of one tenant."""
    return operating(
        folder / "operator",
        tenant.plane.kubeconfig,
        namespace=tenant.name,
        lease=tenant.name,
        qdrant_url=vectors,
        drift_interval_s=3,
        outbound_allow_cidrs="127.0.0.0/8",
    )


def client(api: Server) -> httpx.Client:
    return httpx.Client(base_url=api.url, headers=api.headers, timeout=120, trust_env=False)


@pytest.mark.parametrize("written", [1, BUCKETS // 2, BUCKETS])
def test_an_apply_whose_api_is_killed_is_whole_or_gone(
    operator: OperatorProcess, tenant: Tenant, api: Server, written: int
) -> None:
    with client(api) as http, pytest.raises(httpx.HTTPError):

        def kill() -> None:
            path = f"/apis/mixpeek.com/v1alpha1/namespaces/{tenant.name}/buckets"
            eventually(lambda: len(json.loads(tenant.plane.request("GET", path))["items"]) >= written, GRACE_S)
            api.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            # The answer comes too late to be seen, or the connection breaks: either way nobody is told.
            http.post("/v1/manifest/apply?deadline_seconds=60", content=MANIFEST)
            raise httpx.ReadError("the apply was faster than its end")
        finally:
            killer.join()
    api.restart()

    def settled() -> bool:
        found = tenant.everything()
        return not found or tenant.all_ready(BUCKETS + 1)

    eventually(settled, GRACE_S, say=tenant.everything)
    time.sleep(2)
    assert settled()
    with client(api) as http:
        again = http.post("/v1/manifest/apply?deadline_seconds=90", content=MANIFEST).json()
    assert again["success"], again
    assert tenant.all_ready(BUCKETS + 1)


def test_without_an_operator_the_wait_ends_with_what_is_pending_and_its_return_converges(
    tenant: Tenant, api: Server, vectors: str, tmp_path: Path
) -> None:
    with client(api) as http:
        began = time.monotonic()
        answer = http.post("/v1/manifest/apply?deadline_seconds=5", content=MANIFEST).json()
        assert time.monotonic() - began >= 5
        assert {item["status"] for item in answer["resources"]} == {"pending"}, answer
        assert all(item["pending_reason"] for item in answer["resources"])
    with start_operator(tenant, vectors, tmp_path):
        eventually(lambda: tenant.all_ready(BUCKETS + 1), GRACE_S, say=tenant.everything)


def test_a_rotated_secret_counts_without_a_restart_and_no_value_is_told_anywhere(
    operator: OperatorProcess, tenant: Tenant, api: Server, tmp_path: Path
) -> None:
    keys = [OLD]

    def command(port: int) -> list[str]:
        store = str(tmp_path / "qdrant")
        return [
            *(sys.executable, "-m", "tests.servers.qdrant", "--data", store),
            *("--port", str(port), "--api-key", keys[-1]),
        ]

    processes = operator.pid, api.process.pid
    with running(command, tmp_path / "qdrant.log") as qdrant, client(api) as http:
        http.post(
            "/v1/organizations/secrets", json={"secret_name": "QDRANT_KEY", "secret_value": OLD}
        ).raise_for_status()
        text = GUARDED.format(url=f"http://127.0.0.1:{qdrant.port}")
        made = http.post("/v1/manifest/apply?deadline_seconds=90", content=text).json()
        assert made["success"] and tenant.all_ready(3), made["errors"]

        def reads() -> bool:
            found = http.get("/v1/collections/titles/documents", headers={"X-Namespace": "shop"})
            return found.status_code == 200

        assert reads()
        qdrant.kill()
        keys.append(NEW)
        qdrant.start()
        eventually(lambda: not tenant.all_ready(3), GRACE_S, say=tenant.everything)
        assert not reads()
        data = json.dumps({"data": {"QDRANT_KEY": base64.b64encode(NEW.encode()).decode()}})
        tenant.plane.kubectl("-n", tenant.name, "patch", "secret", "mixpeek-secrets", "--type=merge", "-p", data)
        eventually(lambda: tenant.all_ready(3), GRACE_S, say=tenant.everything)
        eventually(reads, 30)
        exported = http.get("/v1/manifest/export").text
    assert processes == (operator.pid, api.process.pid)
    assert "${{ secrets.QDRANT_KEY }}" in exported
    eventually(lambda: operator.metrics().get("mixpeek_events_unwritten") == 0, 60)
    told = {
        "resources": json.dumps(tenant.everything()),
        "events": tenant.plane.kubectl("-n", tenant.name, "get", "events", "-o", "json") or "",
        "export": exported,
        "operator's log": operator.log.read_text(),
        "API's log": (api.data / "server.log").read_text(),
    }
    for where, text in told.items():
        assert text, where
        for value in (OLD, NEW, *(base64.b64encode(key.encode()).decode() for key in (OLD, NEW))):
            assert value not in text, where
