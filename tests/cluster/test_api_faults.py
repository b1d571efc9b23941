"""The API as a process of its own on a real cluster, while no operator runs."""

from __future__ import annotations

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


@pytest.fixture
def tenant(control_plane: ControlPlane, kubernetes_namespace: Callable[[], str]) -> Tenant:
    return Tenant(control_plane, kubernetes_namespace())


@pytest.fixture
def api(tenant: Tenant, tmp_path: Path) -> Iterator[Server]:
    with serving(
        tmp_path / "api",
        MIXPEEK_RESOURCES="kubernetes",
        MIXPEEK_KUBECONFIG=str(tenant.plane.kubeconfig),
        MIXPEEK_NAMESPACE=tenant.name,
        MIXPEEK_PRELOAD_MODEL="false",
        MIXPEEK_OUTBOUND_ALLOW_CIDRS="127.0.0.0/8",
    ) as server:
        yield server


def start_operator(tenant: Tenant, folder: Path) -> AbstractContextManager[OperatorProcess]:
    """Run the operator of one tenant."""
    return operating(
        folder / "operator",
        tenant.plane.kubeconfig,
        namespace=tenant.name,
        lease=tenant.name,
        drift_interval_s=3,
        outbound_allow_cidrs="127.0.0.0/8",
    )


def client(api: Server) -> httpx.Client:
    return httpx.Client(base_url=api.url, headers=api.headers, timeout=120, trust_env=False)


def test_without_an_operator_the_wait_ends_with_what_is_pending_and_its_return_converges(
    tenant: Tenant, api: Server, tmp_path: Path
) -> None:
    with client(api) as http:
        began = time.monotonic()
        answer = http.post("/v1/manifest/apply?deadline_seconds=5", content=MANIFEST).json()
        assert time.monotonic() - began >= 5
        assert {item["status"] for item in answer["resources"]} == {"pending"}, answer
        assert all(item["pending_reason"] for item in answer["resources"])
    with start_operator(tenant, tmp_path):
        eventually(lambda: tenant.all_ready(BUCKETS + 1), GRACE_S, say=tenant.everything)
