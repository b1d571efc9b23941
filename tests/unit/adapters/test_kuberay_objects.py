"""A wanted Ray cluster as a RayService: the same for the same, within its bounds, and nothing secret in it."""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import replace
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixpeek_operator.adapters import _kuberay_objects as objects
from mixpeek_operator.extraction.ray import applications
from mixpeek_operator.ports.machines import Application, Cluster, Workers

LAW = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
IMAGE = "mixpeek-engine:0.1.0"
PODS = objects.Pods(IMAGE, environment={"MIXPEEK_BLOBS_URL": "s3://files"}, secret="ray-credentials")
PLATFORM = applications.of_platform("ns_one")
CLUSTER = Cluster("ns_one", "acme", "one", "uid-1", Workers(1, 3), (PLATFORM,))

COUNTS = st.integers(0, 100)
WORKERS = st.builds(
    lambda least, more, **rest: Workers(least, least + more, **rest),
    COUNTS,
    COUNTS,
    autoscaling=st.booleans(),
    gpus=st.integers(0, 8),
    gpu_type=st.none() | st.sampled_from(["A100", "NVIDIA-L4"]),
    node_selector=st.dictionaries(st.sampled_from(["pool", "zone"]), st.sampled_from(["a", "b"])),
)
APPLICATIONS = st.builds(
    lambda number, least, more, **rest: Application(
        f"ns_one.extractors.e{number}", f"/ns_one/extractors/e{number}", f"e{number}", "v1", least, least + more, **rest
    ),
    st.integers(0, 3),
    st.integers(1, 5),
    st.integers(0, 5),
    gpus=st.sampled_from([0.0, 0.5, 2.0]),
    image=st.sampled_from([None, IMAGE, "own:1"]),
    environment=st.dictionaries(st.sampled_from(["A", "B"]), st.sampled_from(["x", "${{ secrets.TOKEN }}"])),
)
CLUSTERS = st.builds(
    lambda workers, served: replace(CLUSTER, workers=workers, applications=(PLATFORM, *served)),
    WORKERS,
    st.lists(APPLICATIONS, max_size=4, unique_by=lambda item: item.name),
)


@LAW
@given(CLUSTERS)
def test_the_same_cluster_makes_the_same_object_and_differs_from_itself_in_nothing(cluster: Cluster) -> None:
    made = objects.ray_service(cluster, PODS)
    assert made == objects.ray_service(deepcopy(cluster), PODS)
    assert objects.differences(made, made) == ()
    assert objects.differences(made, _defaulted(made)) == (), "what the API server and others add is theirs"


@LAW
@given(CLUSTERS)
def test_every_group_is_within_its_bounds_and_the_autoscaler_is_there_when_one_can_grow(cluster: Cluster) -> None:
    spec = objects.ray_service(cluster, PODS)["spec"]["rayClusterConfig"]
    groups = spec["workerGroupSpecs"]
    assert all(group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] for group in groups)
    assert spec["enableInTreeAutoscaling"] == any(group["minReplicas"] < group["maxReplicas"] for group in groups)
    assert ("autoscalerOptions" in spec) == spec["enableInTreeAutoscaling"]
    assert len({group["groupName"] for group in groups}) == len(groups)
    assert "nvidia.com/gpu" not in str(spec["headGroupSpec"]), "the head does no work"
    worker = groups[0]["template"]["spec"]
    limits = worker["containers"][0]["resources"]["limits"]
    assert limits.get("nvidia.com/gpu") == (str(cluster.workers.gpus) if cluster.workers.gpus else None)


@LAW
@given(CLUSTERS)
def test_every_application_can_be_placed_and_no_secret_is_spelled_out(cluster: Cluster) -> None:
    made = objects.ray_service(cluster, PODS)
    config = yaml.safe_load(made["spec"]["serveConfigV2"])
    offered = str(made["spec"]["rayClusterConfig"]["workerGroupSpecs"])
    routes = [item["route_prefix"] for item in config["applications"]]
    assert len(set(routes)) == len(cluster.applications)
    assert all(route.startswith("/ns_one/") for route in routes)
    for item in config["applications"]:
        (deployment,) = item["deployments"]
        assert all(name in offered for name in deployment["ray_actor_options"].get("resources", {}))
    assert "${{" not in str(made)


@LAW
@given(CLUSTERS)
def test_what_is_no_longer_declared_is_noticed(cluster: Cluster) -> None:
    selected = replace(cluster, workers=replace(cluster.workers, node_selector={"pool": "a", "left": "over"}))
    less = replace(cluster, workers=replace(cluster.workers, node_selector={"pool": "a"}))
    assert objects.differences(objects.ray_service(less, PODS), objects.ray_service(selected, PODS)) == (
        "rayClusterConfig",
    )


@LAW
@given(CLUSTERS, CLUSTERS)
def test_two_clusters_differ_exactly_when_their_objects_do(one: Cluster, other: Cluster) -> None:
    first, second = (objects.ray_service(item, PODS) for item in (one, other))
    assert bool(objects.differences(first, second)) == (first != second)


@LAW
@given(st.text("abcXYZ019_-.", min_size=1, max_size=90), st.text("abcXYZ019_-.", min_size=1, max_size=90))
def test_a_name_is_what_kuberay_takes_and_each_id_has_its_own(one: str, other: str) -> None:
    name = objects.cluster_name(f"ns_{one}")
    assert re.fullmatch(r"[a-z][a-z0-9-]*[a-z0-9]", name)
    assert len(name) <= 47
    assert (name == objects.cluster_name(f"ns_{other}")) == (one == other)


def test_only_what_kuberay_changes_in_place_is_called_so() -> None:
    have = objects.ray_service(CLUSTER, PODS)

    def found(cluster: Cluster) -> tuple[str, ...]:
        return objects.differences(objects.ray_service(cluster, PODS), have)

    more = replace(
        CLUSTER, applications=(PLATFORM, Application("ns_one.extractors.x", "/ns_one/extractors/x", "x", "2"))
    )
    assert found(more) == ("applications",)
    assert found(replace(CLUSTER, workers=Workers(2, 5))) == ("bounds of the workers",)
    (path,) = found(replace(CLUSTER, workers=Workers(1, 3, node_selector={"pool": "a"})))[:1]
    assert path.startswith("rayClusterConfig.")


def _defaulted(made: Any) -> Any:
    found = deepcopy(made)
    found["metadata"] |= {"uid": "x", "resourceVersion": "7", "labels": {**made["metadata"]["labels"], "theirs": "1"}}
    found["spec"]["upgradeStrategy"] = {"type": "NewCluster"}
    for group in found["spec"]["rayClusterConfig"]["workerGroupSpecs"]:
        group["numOfHosts"] = 1
        for port in group["template"]["spec"]["containers"][0]["ports"]:
            port["protocol"] = "TCP"
    return found


def test_pods_have_the_labels_that_kuberays_services_select() -> None:
    head = objects.ray_service(CLUSTER, PODS)["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]
    assert head["metadata"]["labels"]["app.kubernetes.io/name"] == "kuberay"
