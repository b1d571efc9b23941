"""The lease that replicas compete for, as a Lease of coordination.k8s.io."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC
from typing import Any

from mixpeek_operator.adapters.kubernetes_api import LEASES, KubernetesApi, Object
from mixpeek_operator.core.clock import Clock
from mixpeek_operator.core.errors import AlreadyExistsError, ConflictError, NotFoundError
from mixpeek_operator.ports.leases import Lease


class KubernetesLeases:
    """One Lease object, made when it is first taken."""

    def __init__(self, api: KubernetesApi, namespace: str, name: str, clock: Clock) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._clock = clock
        self._object: Object | None = None

    async def read(self) -> Lease:
        """The lease as it is; one without a version when there is none."""
        try:
            self._object = await self._api.get(LEASES, self._namespace, self._name)
        except NotFoundError:
            self._object = None
            return Lease()
        return _lease(self._object)

    async def write(self, lease: Lease) -> Lease:
        """Write over the version that `lease` carries. Raises ConflictError when another was faster."""
        body: dict[str, Any] = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"namespace": self._namespace, "name": self._name},
            "spec": self._spec(lease),
        }
        try:
            if not lease.version:
                self._object = await self._api.create(LEASES, body)
            else:
                body["metadata"]["resourceVersion"] = lease.version
                self._object = await self._api.replace(LEASES, body)
        except (AlreadyExistsError, NotFoundError) as error:
            raise ConflictError(f"the lease {self._namespace}/{self._name} was changed by another") from error
        return replace(_lease(self._object), duration_s=lease.duration_s)

    def _spec(self, lease: Lease) -> dict[str, Any]:
        now = self._clock.now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        before = (self._object or {}).get("spec") or {}
        same = before.get("holderIdentity") == lease.holder
        spec: dict[str, Any] = {
            "leaseDurationSeconds": max(1, math.ceil(lease.duration_s)),
            "leaseTransitions": lease.transitions,
            "acquireTime": before.get("acquireTime", now) if same else now,
            "renewTime": now,
        }
        if lease.holder:
            # An empty identity is refused; a lease that was given back has none.
            spec["holderIdentity"] = lease.holder
        return spec


def _lease(item: Object) -> Lease:
    spec = item.get("spec") or {}
    return Lease(
        holder=spec.get("holderIdentity") or "",
        duration_s=float(spec.get("leaseDurationSeconds") or 0),
        transitions=int(spec.get("leaseTransitions") or 0),
        version=str(item["metadata"]["resourceVersion"]),
    )
