"""Machines of a namespace's own: what a dedicated tier asks for, and what there is to say of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from mixpeek_operator.core.conditions import Finding
from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.core.lifecycle import Deletion, Step, Subject
from mixpeek_operator.core.resource import Resource
from mixpeek_operator.extraction.ray import applications
from mixpeek_operator.ports.machines import FAILED, Application, Cluster, ClusterState, Workers

LOOK_AGAIN_S = 5.0
"""Seconds between two looks at a cluster that is not ready, beside what a watch tells."""
_CLUSTERS_OF_OTHERS = ("ray_cluster_id", "ray_head_node_url", "ray_dashboard_url")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")


class Reason(StrEnum):
    """Why ComputeReady is what it is."""

    SHARED = "SharedCompute"
    """Surfaces when the namespace runs on the shared workers."""
    READY = "ClusterReady"
    """Surfaces when the namespace's Ray cluster serves."""
    UPDATING = "ClusterUpdating"
    """Surfaces when the cluster serves and another one is being made that will take over."""
    PROVISIONING = "ClusterProvisioning"
    """Surfaces when the cluster is there and does not serve yet."""
    MISSING = "ClusterMissing"
    """Surfaces when there is no cluster and nothing makes one."""
    FAILED = "ApplicationFailed"
    """Surfaces when what embeds the namespace's queries could not be deployed."""
    OWNED_BY_ANOTHER = "ClusterOwnedByAnother"
    """Surfaces when the Ray cluster belongs to another resource."""
    UNAVAILABLE = "ComputeUnavailable"
    """Surfaces when a dedicated tier is asked for where none can be had."""
    NOT_OURS = "ClusterNotOurs"
    """Surfaces when the namespace names a Ray cluster that somebody else made."""


@dataclass(frozen=True, slots=True)
class CreateCluster(Step):
    """Have a Ray cluster made."""

    cluster: Cluster

    verb: ClassVar[str] = "create"
    past: ClassVar[str] = "Created"

    def what(self) -> str:
        return f"Ray cluster of {self.cluster.namespace_id} with {described(self.cluster.workers)}"


@dataclass(frozen=True, slots=True)
class UpdateCluster(Step):
    """Change the Ray cluster."""

    cluster: Cluster
    differs: tuple[str, ...]
    in_place: bool
    """Whether its pods stay; else a second cluster takes over and jobs under way are retried."""

    verb: ClassVar[str] = "update"
    past: ClassVar[str] = "Updated"

    def what(self) -> str:
        how = "in place" if self.in_place else "by a new one that takes over"
        return f"Ray cluster of {self.cluster.namespace_id} {how} ({', '.join(self.differs[:5])})"


@dataclass(frozen=True, slots=True)
class DeleteCluster(Deletion):
    """Remove the Ray cluster; jobs under way end."""

    organization: str
    namespace_id: str

    def what(self) -> str:
        return f"Ray cluster of {self.namespace_id}"


def wanted(subject: Subject) -> Cluster | None:
    """Return the cluster that the namespace declares, None on the shared tier or where none can be had.

    Raises SpecError for what no node could be labelled with.
    """
    infrastructure = subject.spec.get("infrastructure") or {}
    if tier(subject.resource) == "shared" or not subject.facilities.dedicated_compute:
        return None
    metadata = subject.resource.metadata
    return Cluster(
        namespace_id=subject.id,
        organization=metadata.organization,
        owner=metadata.name,
        owner_uid=metadata.uid,
        workers=_workers(infrastructure),
        applications=(
            applications.of_platform(subject.id),
            *(item for item in (_realtime(subject, each) for each in subject.referrers) if item is not None),
        ),
    )


def tier(namespace: Resource) -> str:
    """Return the compute tier of a namespace."""
    return str((namespace.spec.get("infrastructure") or {}).get("compute_tier") or "shared")


def steps(want: Cluster | None, organization: str, namespace_id: str, have: ClusterState | None) -> list[Step]:
    """Return the steps to the wanted cluster, or to none."""
    if want is None:
        return [] if have is None else [DeleteCluster(organization, namespace_id)]
    if have is None:
        return [CreateCluster(want)]
    if have.owner_uid != want.owner_uid or not have.differs:
        return []
    return [UpdateCluster(want, have.differs, all(_in_place(path) for path in have.differs))]


def finding(subject: Subject, want: Cluster | None, have: ClusterState | None) -> Finding:
    """Return ComputeReady."""

    def no(reason: Reason, message: str, *, stalled: bool = False) -> Finding:
        return Finding("ComputeReady", False, reason, message, stalled)

    infrastructure = subject.spec.get("infrastructure") or {}
    named = [name for name in _CLUSTERS_OF_OTHERS if infrastructure.get(name)]
    if named:
        # Jobs are given the credentials of the storage, and whoever has them reads every tenant's files.
        message = (
            f"infrastructure.{named[0]}: jobs run only on clusters that this system makes (a dedicated compute_tier) "
            "or that its administrator names (MIXPEEK_RAY_DASHBOARD_URL); remove the field"
        )
        return no(Reason.NOT_OURS, message, stalled=True)
    declared = tier(subject.resource)
    if declared == "shared":
        return Finding("ComputeReady", True, Reason.SHARED)
    if want is None:
        message = (
            f"compute tier {declared} needs Kubernetes with KubeRay; set infrastructure.compute_tier to shared to run "
            "without machines of its own"
        )
        return no(Reason.UNAVAILABLE, message, stalled=True)
    if have is None:
        return no(Reason.MISSING, f"there is no Ray cluster of {want.namespace_id}", stalled=True)
    if have.owner_uid != want.owner_uid:
        return no(Reason.OWNED_BY_ANOTHER, f"Ray cluster {have.name} belongs to another resource", stalled=True)
    platform = want.applications[0]
    state = have.applications.get(platform.name)
    if state is not None and state.status in FAILED:
        return no(Reason.FAILED, f"{platform.name} is {state.status}: {state.last_line or 'no reason given'}")
    # A cluster begins to serve, or takes over, once all of its applications run.
    others = [f"{name} is {item.status}" for name, item in sorted(have.applications.items()) if item.status in FAILED]
    if not have.serving:
        found = have.problem or "; ".join(others) or f"{have.workers_ready} of {have.workers_wanted} workers are ready"
        return no(Reason.PROVISIONING, f"waits for Ray cluster {have.name}: {found}")
    if have.updating:
        why = f"; it waits: {'; '.join(others)}" if others else ""
        return Finding("ComputeReady", True, Reason.UPDATING, f"another cluster takes over from {have.name}{why}")
    return Finding("ComputeReady", True, Reason.READY)


def facts(have: ClusterState | None) -> dict[str, Any]:
    """Return what the status says of the cluster."""
    if have is None:
        return {}
    return {
        "ray_cluster": have.name,
        "ray_dashboard_url": have.dashboard_url,
        "ray_serve_url": have.serve_url,
        "workers_ready": have.workers_ready,
        "workers_wanted": have.workers_wanted,
    }


def described(workers: Workers) -> str:
    """`1 to 10 workers with 1 GPU (A100)`."""
    count = f"{workers.minimum} to {workers.maximum}" if workers.grows else str(workers.minimum)
    gpus = f" with {workers.gpus} GPU{'s' if workers.gpus != 1 else ''}" if workers.gpus else ""
    return f"{count} workers{gpus}{f' ({workers.gpu_type})' if workers.gpu_type else ''}"


def _workers(infrastructure: Mapping[str, Any]) -> Workers:
    given = infrastructure.get
    gpu = given("compute_tier") == "dedicated_gpu"
    autoscaling = given("autoscaling_enabled") is not False
    least = int(_or(given("min_workers"), 1))
    most = int(_or(given("max_workers"), 10))
    gpu_type = given("gpu_type") if gpu else None
    selector = dict(given("node_selector") or {})
    for name, value in (("gpu_type", gpu_type), *((f"node_selector.{key}", value) for key, value in selector.items())):
        if value is not None and not _LABEL_VALUE.fullmatch(value):
            raise SpecError(
                f"infrastructure.{name}: {value!r} is no value of a node label; use letters, digits, '-', '_' and '.', "
                "at most 63"
            )
    return Workers(
        # Nothing could ever run on a cluster without workers that does not grow.
        minimum=least if autoscaling else max(least, 1),
        maximum=most,
        autoscaling=autoscaling,
        gpus=int(_or(given("gpus_per_worker"), 1)) if gpu else 0,
        gpu_type=gpu_type,
        node_selector=selector,
        tolerations=tuple(given("tolerations") or ()),
    )


def _realtime(subject: Subject, extractor: Resource) -> Application | None:
    if extractor.kind != "Extractor" or extractor.deleting:
        return None
    return applications.of_extractor(subject.id, extractor.name, extractor.spec, subject.catalog)


def _in_place(path: str) -> bool:
    return not path.startswith("rayClusterConfig")


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
