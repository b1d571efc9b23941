"""A wanted Ray cluster as a RayService, and what a RayService says of itself. Pure.

Made for ray.io/v1 as KubeRay 1.4 has it; docs/decisions/0011-compute.md says why each part is as it is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from mixpeek_operator.adapters.kubernetes_api import Api, Object
from mixpeek_operator.core.placeholders import secret_of
from mixpeek_operator.core.resource import API_GROUP, API_VERSION
from mixpeek_operator.ports.machines import Application, Cluster, Workers

SERVICES = Api("ray.io", "v1", "rayservices", "RayService")
CLUSTERS = Api("ray.io", "v1", "rayclusters", "RayCluster")
NAMESPACE_LABEL = f"{API_GROUP}/namespace-id"
HASH = f"{API_GROUP}/declared"
"""Annotation that tells a part that is no longer declared from one that was never there."""
GROUP = "workers"
_NAME_CHARACTERS = 47  # KubeRay's limit for a RayService
_IMPORT_PATH = "mixpeek_operator.extraction.ray.serve_app:build"
_DASHBOARD, _SERVE = 8265, 8000
_USER = 65532
_BOUNDS = re.compile(r"rayClusterConfig\.workerGroupSpecs\[\d+\]\.(replicas|minReplicas|maxReplicas)")


@dataclass(frozen=True, slots=True)
class Pods:
    """What holds for the pods of every cluster: what the settings say."""

    image: str
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    service_account: str | None = None
    secret: str | None = None
    """A Secret in each organization's Kubernetes namespace whose entries become variables of the pods."""
    secret_keys: Mapping[str, str] = field(default_factory=dict)
    """Variable → key of that Secret; with none, every entry under its own name."""
    secrets: str = "mixpeek-secrets"
    """The Secret that holds the organization's secrets."""
    environment: Mapping[str, str] = field(default_factory=dict)
    gpu_label: str = "nvidia.com/gpu.product"
    head_cpus: float = 1.0
    head_memory: str = "4Gi"
    worker_cpus: float = 2.0
    worker_memory: str = "8Gi"


def cluster_name(namespace_id: str) -> str:
    """Return the RayService's name: the id where it can be one, else a digest of it."""
    plain = f"ray-{namespace_id.replace('_', '-')}"
    # Only one underscore becomes a dash, so that no two ids share a name.
    if re.fullmatch(r"ns_[a-z0-9]+", namespace_id) and len(plain) <= _NAME_CHARACTERS:
        return plain
    return f"ray-{hashlib.sha256(namespace_id.encode()).hexdigest()[:20]}"


def dashboard_url(organization: str, namespace_id: str) -> str:
    """Return where the cluster takes jobs, inside Kubernetes."""
    return f"http://{cluster_name(namespace_id)}-head-svc.{organization}.svc:{_DASHBOARD}"


def serve_url(organization: str, namespace_id: str) -> str:
    """Return where the cluster answers requests, inside Kubernetes."""
    return f"http://{cluster_name(namespace_id)}-serve-svc.{organization}.svc:{_SERVE}"


def ray_service(cluster: Cluster, pods: Pods) -> Object:
    """Return the RayService, the same for the same cluster and pods."""
    apart = [item for item in cluster.applications if _apart(item, cluster, pods)]
    spec = {
        "serveConfigV2": _serve_config(cluster, {item.name for item in apart}),
        "rayClusterConfig": _ray_cluster(cluster, apart, pods),
    }
    labels = _labels(cluster)
    return {
        "apiVersion": SERVICES.api_version,
        "kind": SERVICES.kind,
        "metadata": {
            "name": cluster_name(cluster.namespace_id),
            "namespace": cluster.organization,
            "labels": labels,
            "annotations": {HASH: _digest([labels, spec])},
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": "Namespace",
                    "name": cluster.owner,
                    "uid": cluster.owner_uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": spec,
    }


def differences(wanted: Object, have: Object) -> tuple[str, ...]:
    """Return what of a RayService is not as wanted; what begins with `rayClusterConfig` needs another cluster."""
    found = dict.fromkeys(_named(path) for path in _paths(wanted["spec"], have.get("spec") or {}))
    metadata = have["metadata"]
    # What others add to labels and annotations is theirs. Where only the hash differs something is there that is no
    # longer declared, and that can only be a part of the pods.
    for part, what in (("labels", "labels"), ("annotations", "rayClusterConfig")):
        if any(_paths(wanted["metadata"][part], metadata.get(part) or {})) and not found:
            found[what] = None
    return tuple(found)


def _named(path: str) -> str:
    if path == "serveConfigV2":
        return "applications"
    return "bounds of the workers" if _BOUNDS.fullmatch(path) else path


def _paths(wanted: Any, have: Any, path: str = "") -> Iterator[str]:
    """Yield the paths at which `have` lacks something of `wanted` or says something else."""
    if isinstance(wanted, Mapping):
        found = have if isinstance(have, Mapping) else {}
        for key, value in wanted.items():
            yield from _paths(value, found.get(key), f"{path}.{key}" if path else key)
    elif isinstance(wanted, list) and isinstance(have, list) and len(wanted) == len(have):
        for index, (one, other) in enumerate(zip(wanted, have, strict=True)):
            yield from _paths(one, other, f"{path}[{index}]")
    elif wanted != have:
        yield path


def bounds(spec: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Return the fewest and most replicas of each worker group of a RayCluster's spec."""
    return {
        group["groupName"]: (int(group.get("minReplicas") or 0), int(group.get("maxReplicas") or 0))
        for group in spec.get("workerGroupSpecs") or ()
    }


def _apart(item: Application, cluster: Cluster, pods: Pods) -> bool:
    """Whether its replicas need pods of their own: another image, an environment, or a GPU where workers have none."""
    image = item.image is not None and item.image != pods.image
    return image or bool(item.environment) or bool(item.gpus and not cluster.workers.gpus)


def _serve_config(cluster: Cluster, apart: Collection[str]) -> str:
    config = {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": _SERVE},  # noqa: S104 - inside a pod
        "applications": [_application(item, cluster.namespace_id, item.name in apart) for item in cluster.applications],
    }
    return yaml.safe_dump(config, sort_keys=False, width=1000)


def _application(item: Application, namespace_id: str, apart: bool) -> Object:
    options: Object = {"num_cpus": item.cpus}
    if item.gpus:
        options["num_gpus"] = item.gpus
    if item.memory_gb:
        options["memory"] = int(item.memory_gb * 1e9)
    if apart:
        options["resources"] = {_group(item): 0.001}
    deployment: Object = {"name": "Realtime", "ray_actor_options": options}
    if item.min_replicas < item.max_replicas:
        deployment["autoscaling_config"] = {"min_replicas": item.min_replicas, "max_replicas": item.max_replicas}
    else:
        deployment["num_replicas"] = item.min_replicas
    return {
        "name": item.name,
        "route_prefix": item.route,
        "import_path": _IMPORT_PATH,
        "args": {"extractor": item.extractor, "version": item.version, "namespace_id": namespace_id},
        "deployments": [deployment],
    }


def _ray_cluster(cluster: Cluster, apart: Sequence[Application], pods: Pods) -> Object:
    own = [_group_apart(item, cluster, pods) for item in sorted(apart, key=lambda item: item.name)]
    groups = [_group_spec(GROUP, cluster.workers, cluster, pods), *own]
    # One group that grows is enough to need the autoscaler.
    grows = any(group["minReplicas"] < group["maxReplicas"] for group in groups)
    made: Object = {"enableInTreeAutoscaling": grows}
    if grows:
        made["autoscalerOptions"] = {
            "version": "v2",
            "imagePullPolicy": pods.pull_policy,
            "securityContext": _container_security(),
            "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],  # noqa: S108 - a volume of the pod's own
        }
    made["headGroupSpec"] = {
        # No work on the head: what a job does must not be able to take the cluster along.
        "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},  # noqa: S104 - inside a pod
        "template": _template(
            "ray-head",
            cluster,
            pods,
            cpus=pods.head_cpus,
            memory=pods.head_memory,
            ports=(("gcs", 6379), ("dashboard", _DASHBOARD), ("client", 10001), ("serve", _SERVE)),
            token=grows,
        ),
    }
    made["workerGroupSpecs"] = groups
    return made


def _group_spec(
    name: str, workers: Workers, cluster: Cluster, pods: Pods, *, params: Mapping[str, str] | None = None, **pod: Any
) -> Object:
    most = workers.maximum if workers.grows else workers.minimum
    return {
        "groupName": name,
        "replicas": workers.minimum,
        "minReplicas": workers.minimum,
        "maxReplicas": most,
        "rayStartParams": dict(params or {}),
        "template": _template(
            "ray-worker",
            cluster,
            pods,
            **{"cpus": pods.worker_cpus, "memory": pods.worker_memory, **pod},
            ports=(("serve", _SERVE),),
            workers=workers,
        ),
    }


def _group_apart(item: Application, cluster: Cluster, pods: Pods) -> Object:
    """Return a group with one replica of the application per pod; nothing else asks for its resource."""
    workers = replace(
        cluster.workers,
        minimum=item.min_replicas,
        maximum=item.max_replicas,
        autoscaling=True,
        gpus=-int(-item.gpus // 1),
        gpu_type=item.gpu_type or (cluster.workers.gpu_type if item.gpus else None),
    )
    return _group_spec(
        _group(item),
        workers,
        cluster,
        pods,
        # KubeRay hands the parameters to a shell, and Ray's autoscaler takes the quotes off again.
        params={"resources": f'"{{\\"{_group(item)}\\": 1}}"'},
        image=item.image,
        environment=item.environment,
        cpus=max(item.cpus, 0.1),
        memory=f"{int((item.memory_gb or 0) * 1e9) + 2_000_000_000}" if item.memory_gb else pods.worker_memory,
    )


def _group(item: Application) -> str:
    """The name of an application's own group, and of the resource that only its pods have."""
    return f"own-{hashlib.sha256(item.name.encode()).hexdigest()[:10]}"


def _template(
    container: str,
    cluster: Cluster,
    pods: Pods,
    *,
    cpus: float,
    memory: str,
    ports: Sequence[tuple[str, int]],
    workers: Workers | None = None,
    image: str | None = None,
    environment: Mapping[str, str] | None = None,
    token: bool = False,
) -> Object:
    limits = {"memory": memory}
    requests = {"cpu": f"{round(cpus * 1000)}m", "memory": memory}
    if workers is not None and workers.gpus:
        limits["nvidia.com/gpu"] = requests["nvidia.com/gpu"] = str(workers.gpus)
    main: Object = {
        "name": container,
        "image": image or pods.image,
        "imagePullPolicy": pods.pull_policy,
        "ports": [{"name": name, "containerPort": port} for name, port in ports],
        "env": [
            *(_from_secret(name, pods.secret, key) for name, key in sorted(pods.secret_keys.items()) if pods.secret),
            *(_variable(*pair, pods) for pair in sorted({**pods.environment, **(environment or {})}.items())),
        ],
        "resources": {"limits": limits, "requests": requests},
        "securityContext": _container_security(),
        "volumeMounts": [
            {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
            {"name": "data", "mountPath": "/data"},
        ],
    }
    if pods.secret and not pods.secret_keys:
        main["envFrom"] = [{"secretRef": {"name": pods.secret}}]
    spec: Object = {
        "automountServiceAccountToken": token,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [main],
        "volumes": [{"name": "scratch", "emptyDir": {}}, {"name": "data", "emptyDir": {}}],
    }
    if pods.service_account:
        spec["serviceAccountName"] = pods.service_account
    if pods.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in pods.pull_secrets]
    selector = dict(cluster.workers.node_selector)
    if workers is not None and workers.gpu_type:
        selector[pods.gpu_label] = workers.gpu_type
    if selector:
        spec["nodeSelector"] = selector
    tolerations = [_toleration(item) for item in cluster.workers.tolerations]
    if workers is not None and workers.gpus and not tolerations:
        # Nodes with GPUs are commonly kept for who asks for one.
        tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    if tolerations:
        spec["tolerations"] = tolerations
    return {"metadata": {"labels": _labels(cluster)}, "spec": spec}


def _variable(name: str, value: str, pods: Pods) -> Object:
    key = secret_of(value)
    return {"name": name, "value": value} if key is None else _from_secret(name, pods.secrets, key)


def _from_secret(name: str, secret: str, key: str) -> Object:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _toleration(given: Mapping[str, Any]) -> Object:
    spelled = {"toleration_seconds": "tolerationSeconds"}
    return {spelled.get(key, key): value for key, value in given.items() if value is not None}


def _container_security() -> Object:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _labels(cluster: Cluster) -> dict[str, str]:
    return {
        # A RayService's Service for the head selects by KubeRay's own value, whatever the pods say.
        "app.kubernetes.io/name": "kuberay",
        "app.kubernetes.io/part-of": "mixpeek",
        # The chart's network policies know the pods by it.
        "app.kubernetes.io/component": "engine",
        "app.kubernetes.io/managed-by": "mixpeek-operator",
        NAMESPACE_LABEL: cluster.namespace_id,
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
