"""Ray clusters of namespaces as RayServices of KubeRay.

The operator writes one RayService per namespace by server-side apply, and only when something differs. KubeRay does the
rest; what it leaves out is done here: it never hands new bounds of the workers to a cluster that runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixpeek_operator.adapters import _kuberay_objects as objects
from mixpeek_operator.adapters._kuberay_objects import (
    CLUSTERS,
    NAMESPACE_LABEL,
    SERVICES,
    Pods,
    cluster_name,
    dashboard_url,
    serve_url,
)
from mixpeek_operator.adapters.kubernetes_api import JSON_PATCH, KubernetesApi, Object
from mixpeek_operator.core.errors import ConflictError, NotFoundError, UnavailableError
from mixpeek_operator.ports.machines import ApplicationState, Cluster, ClusterState

__all__ = ["NAMESPACE_LABEL", "SERVICES", "KubeRayMachines", "Pods", "dashboard_url", "serve_url"]

MANAGER = "mixpeek-operator"
_BOUNDS = "bounds of running workers"


class KubeRayMachines:
    """The `Machines` port on KubeRay; an organization is a Kubernetes namespace."""

    def __init__(self, api: KubernetesApi, pods: Pods) -> None:
        self._api = api
        self._pods = pods

    async def observe(self, organization: str, namespace_id: str, wanted: Cluster | None = None) -> ClusterState | None:
        """The namespace's cluster, compared with `wanted` when given; None when there is none, or it is going."""
        service = await self._service(organization, namespace_id)
        if service is None:
            return None
        status = service.get("status") or {}
        active, pending = (status.get(f"{name}ServiceStatus") or {} for name in ("active", "pending"))
        ray_cluster = await self._ray_cluster(organization, active) or await self._ray_cluster(organization, pending)
        differs: tuple[str, ...] = ()
        if wanted is not None:
            body = objects.ray_service(wanted, self._pods)
            differs = objects.differences(body, service)
            if not differs and ray_cluster is not None and _bounds_differ(body, ray_cluster):
                differs = (_BOUNDS,)
        seen = int(status.get("observedGeneration") or 0) >= int(service["metadata"]["generation"])
        # While a second cluster is made the first one's applications are not looked at.
        shown = pending if pending.get("rayClusterName") else active
        workers = (ray_cluster or {}).get("status") or {}
        return ClusterState(
            name=service["metadata"]["name"],
            owner_uid=_owner(service),
            differs=differs,
            serving=_true(status, "Ready"),
            updating=bool(active.get("rayClusterName") and pending.get("rayClusterName")),
            applications=_applications(shown) if seen else {},
            workers_ready=int(workers.get("readyWorkerReplicas") or 0),
            workers_wanted=int(workers.get("desiredWorkerReplicas") or 0),
            problem=_message(workers, "ReplicaFailure"),
            dashboard_url=dashboard_url(organization, namespace_id),
            serve_url=serve_url(organization, namespace_id),
        )

    async def apply(self, wanted: Cluster) -> None:
        """Make or change the cluster, and give the bounds of the workers to the one that runs."""
        there = await self._service(wanted.organization, wanted.namespace_id)
        if there is not None and _owner(there) != wanted.owner_uid:
            raise ConflictError(f"RayService {there['metadata']['name']} belongs to another resource")
        body = objects.ray_service(wanted, self._pods)
        try:
            # Whoever changed one of our fields by hand is overruled: the namespace's declaration is what counts.
            written = await self._api.apply(SERVICES, body, manager=MANAGER, force=True)
        except NotFoundError as error:
            raise UnavailableError(
                "the API server does not serve rayservices.ray.io/v1; install KubeRay, or set "
                "infrastructure.compute_tier to shared"
            ) from error
        status = written.get("status") or {}
        for name in ("active", "pending"):
            running = await self._ray_cluster(wanted.organization, status.get(f"{name}ServiceStatus") or {})
            if running is not None:
                await self._pass_on_bounds(body, running)

    async def delete(self, organization: str, namespace_id: str) -> None:
        """Remove the RayService; Kubernetes removes what KubeRay made for it."""
        try:
            await self._api.delete(SERVICES, organization, cluster_name(namespace_id), propagation="Background")
        except NotFoundError:
            return

    async def _service(self, organization: str, namespace_id: str) -> Object | None:
        try:
            found = await self._api.get(SERVICES, organization, cluster_name(namespace_id))
        except NotFoundError:
            return None
        return None if found["metadata"].get("deletionTimestamp") else found

    async def _ray_cluster(self, organization: str, status: Mapping[str, Any]) -> Object | None:
        name = status.get("rayClusterName")
        if not name:
            return None
        try:
            return await self._api.get(CLUSTERS, organization, name)
        except NotFoundError:
            return None

    async def _pass_on_bounds(self, body: Object, running: Object) -> None:
        wanted = objects.bounds(body["spec"]["rayClusterConfig"])
        patch: list[Object] = []
        for index, group in enumerate(running["spec"].get("workerGroupSpecs") or ()):
            least, most = wanted.get(group["groupName"], (None, None))
            if least is None or most is None:
                continue
            at = f"/spec/workerGroupSpecs/{index}"
            # Nothing may have moved between our read and this write.
            patch.append({"op": "test", "path": f"{at}/groupName", "value": group["groupName"]})
            replicas = min(max(int(group.get("replicas") or 0), least), most)
            for key, value in (("minReplicas", least), ("maxReplicas", most), ("replicas", replicas)):
                if group.get(key) != value:
                    patch.append({"op": "add", "path": f"{at}/{key}", "value": value})
        if any(step["op"] != "test" for step in patch):
            metadata = running["metadata"]
            await self._api.patch(
                CLUSTERS, metadata["namespace"], metadata["name"], patch, kind=JSON_PATCH, manager=MANAGER
            )


def _bounds_differ(body: Object, running: Object) -> bool:
    wanted, have = objects.bounds(body["spec"]["rayClusterConfig"]), objects.bounds(running["spec"])
    return any(wanted[name] != have[name] for name in wanted.keys() & have.keys())


def _owner(service: Object) -> str:
    owners = service["metadata"].get("ownerReferences") or ()
    return next((str(item["uid"]) for item in owners if item.get("controller")), "")


def _applications(status: Mapping[str, Any]) -> dict[str, ApplicationState]:
    return {
        name: ApplicationState(str(state.get("status") or ""), _explained(state))
        for name, state in (status.get("applicationStatuses") or {}).items()
    }


def _explained(state: Mapping[str, Any]) -> str:
    """An application's message, else that of a deployment of it."""
    deployments = (state.get("serveDeploymentStatuses") or {}).values()
    messages = (state.get("message"), *(item.get("message") for item in deployments))
    return next((str(message) for message in messages if message), "")


def _condition(status: Mapping[str, Any], type: str) -> Mapping[str, Any]:
    return next((item for item in status.get("conditions") or () if item.get("type") == type), {})


def _true(status: Mapping[str, Any], type: str) -> bool:
    return _condition(status, type).get("status") == "True"


def _message(status: Mapping[str, Any], type: str) -> str:
    found = _condition(status, type)
    return str(found.get("message") or "") if found.get("status") == "True" else ""
