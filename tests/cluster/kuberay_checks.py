"""Dedicated compute from the Namespace to KubeRay's pods. Run by test_kuberay.py where there is no network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.cluster.declared import Object, Tenant, condition, declare, eventually, namespace
from tests.servers.kubernetes.control_plane import ControlPlane
from tests.servers.kubernetes.kuberay import BROKEN, FakeRay, kuberay
from tests.servers.operator import OperatorProcess, operating

IMAGE = "mixpeek-engine:0.1.0"
WITHIN_S = 90


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    made = ControlPlane(tmp_path_factory.mktemp("plane"))
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture(scope="module")
def ray(plane: ControlPlane) -> Iterator[FakeRay]:
    with kuberay(plane) as made:
        yield made


@pytest.fixture(scope="module")
def operator(plane: ControlPlane, ray: FakeRay, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    folder = tmp_path_factory.mktemp("operator")
    with operating(folder, plane.kubeconfig, engine_image=IMAGE, drift_interval_s=3, log_level="info") as process:
        yield process


@pytest.fixture(scope="module")
def tenant(plane: ControlPlane, operator: OperatorProcess) -> Tenant:
    plane.kubectl("create", "namespace", "acme")
    return Tenant(plane, "acme")


def dedicated(**infrastructure: Any) -> Object:
    given = {"computeTier": "dedicated_gpu", "minWorkers": 1, "maxWorkers": 3, "gpuType": "A100", **infrastructure}
    return namespace("news", infrastructure=given)


def extractor(version: str, **spec: Any) -> Object:
    given = {"version": version, "realtime": True, "source": {"containerImage": IMAGE}, **spec}
    return declare("Extractor", "text_extractor", given, "news")


def found(tenant: Tenant, kind: str) -> list[Object]:
    answer = tenant.plane.kubectl("-n", tenant.name, "get", kind, "-o", "json", "--show-managed-fields")
    return list(json.loads(answer or "{}")["items"])


def one(tenant: Tenant, kind: str) -> Object:
    (only,) = found(tenant, kind)
    return only


def test_a_dedicated_namespace_gets_a_ray_cluster_that_kuberay_makes(tenant: Tenant, ray: FakeRay) -> None:
    made = dedicated()
    tenant.apply([made])
    eventually(lambda: tenant.ready(made), WITHIN_S, say=tenant.everything)
    assert tenant.condition(made, "ComputeReady")["reason"] == "ClusterReady"
    status = tenant.get(made)["status"]
    service = one(tenant, "rayservices.ray.io")
    assert status["rayCluster"] == service["metadata"]["name"]
    services = {item["metadata"]["name"] for item in found(tenant, "services")}
    for url in (status["rayServeUrl"], status["rayDashboardUrl"]):
        assert url.removeprefix("http://").partition(".")[0] in services
    pods = {item["metadata"]["labels"]["ray.io/node-type"]: item for item in found(tenant, "pods")}
    worker, head = pods["worker"]["spec"], pods["head"]["spec"]
    assert worker["nodeSelector"] == {"nvidia.com/gpu.product": "A100"}
    assert worker["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in worker["tolerations"]
    assert [item["name"] for item in head["containers"]] == ["ray-head", "autoscaler"]
    assert "nvidia.com/gpu" not in head["containers"][0]["resources"]["limits"]
    assert all(item["securityContext"]["readOnlyRootFilesystem"] for item in head["containers"])
    assert list(ray.applications()) == [f"{status['id']}.text_extractor_v1"]


def test_bounds_reach_the_cluster_that_runs(tenant: Tenant) -> None:
    before = one(tenant, "rayclusters.ray.io")
    tenant.apply([dedicated(minWorkers=2, maxWorkers=5)])

    def changed() -> bool:
        group = one(tenant, "rayclusters.ray.io")["spec"]["workerGroupSpecs"][0]
        return (group["minReplicas"], group["maxReplicas"]) == (2, 5)

    eventually(changed, WITHIN_S)
    eventually(lambda: len(found(tenant, "pods")) == 3, WITHIN_S)
    assert one(tenant, "rayclusters.ray.io")["metadata"]["uid"] == before["metadata"]["uid"]


def test_a_realtime_extractor_is_served_changed_in_place_and_tells_what_fails(tenant: Tenant, ray: FakeRay) -> None:
    cluster = one(tenant, "rayclusters.ray.io")["metadata"]["uid"]
    made = extractor("v1")
    tenant.apply([made])
    eventually(lambda: tenant.ready(made), WITHIN_S, say=tenant.everything)
    status, own = tenant.get(made)["status"], tenant.get(dedicated())["status"]
    name = f"{own['id']}.extractors.text_extractor"
    assert status["endpoint"] == f"{own['rayServeUrl']}/{own['id']}/extractors/text_extractor"
    assert ray.applications()[name]["args"]["version"] == "v1"

    tenant.apply([extractor(BROKEN)])
    failed = eventually(
        lambda: (now := tenant.condition(made, "EndpointReady")).get("reason") == "DeployFailed" and now, WITHIN_S
    )
    assert failed["message"].endswith("NotFoundError: no such version")
    assert ray.applications()[name]["args"]["version"] == BROKEN
    assert condition(one(tenant, "rayservices.ray.io"))["status"] == "True", "KubeRay does not tell"
    assert tenant.condition(dedicated(), "Ready")["status"] == "True"

    tenant.apply([extractor("v1")])
    eventually(lambda: tenant.ready(made), WITHIN_S, say=tenant.everything)
    assert one(tenant, "rayclusters.ray.io")["metadata"]["uid"] == cluster
    tenant.delete(made)
    eventually(lambda: name not in ray.applications(), WITHIN_S)


def test_what_another_changed_is_corrected_and_nothing_else_is_written(
    tenant: Tenant, operator: OperatorProcess
) -> None:
    name = one(tenant, "rayservices.ray.io")["metadata"]["name"]
    edit = json.dumps({"spec": {"serveConfigV2": "applications: []"}})
    tenant.plane.kubectl("-n", tenant.name, "patch", "rayservice", name, "--type=merge", "-p", edit)

    def corrected() -> bool:
        return bool(yaml.safe_load(one(tenant, "rayservices.ray.io")["spec"]["serveConfigV2"])["applications"])

    eventually(corrected, WITHIN_S)
    eventually(lambda: tenant.ready(dedicated()), WITHIN_S)
    before = one(tenant, "rayservices.ray.io")["metadata"]
    visits = operator.metrics()["mixpeek_reconciles_total"]
    eventually(lambda: operator.metrics()["mixpeek_reconciles_total"] > visits + 5, WITHIN_S)
    after = one(tenant, "rayservices.ray.io")["metadata"]
    assert after["generation"] == before["generation"]
    assert [item for item in after["managedFields"] if item["manager"] == "mixpeek-operator"] == [
        item for item in before["managedFields"] if item["manager"] == "mixpeek-operator"
    ]


def test_it_goes_with_its_namespace(tenant: Tenant) -> None:
    tenant.delete(dedicated())
    eventually(lambda: not tenant.everything(), WITHIN_S, say=tenant.everything)
    for kind in ("rayservices.ray.io", "rayclusters.ray.io", "pods", "services"):
        eventually(lambda kind=kind: not found(tenant, kind), WITHIN_S, say=lambda kind=kind: found(tenant, kind))
