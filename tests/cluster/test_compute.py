"""Dedicated compute where KubeRay is not installed: it is said, and everything else goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.cluster.declared import Tenant, eventually, namespace
from tests.servers.kubernetes.control_plane import ControlPlane
from tests.servers.operator import operating

WITHIN_S = 60


def test_without_kuberay_a_dedicated_namespace_says_what_to_do_and_others_are_served(
    control_plane: ControlPlane, kubernetes_namespace: Callable[[], str], tmp_path: Path
) -> None:
    tenant = Tenant(control_plane, kubernetes_namespace())
    dedicated, shared = namespace("own", infrastructure={"computeTier": "dedicated_cpu"}), namespace("shared")
    with operating(
        tmp_path,
        control_plane.kubeconfig,
        namespace=tenant.name,
        lease=tenant.name,
        engine_image="mixpeek-engine:0.1.0",
    ):
        tenant.apply([dedicated])
        found = eventually(
            lambda: (now := tenant.condition(dedicated, "Synced")).get("reason") == "BackendUnavailable" and now,
            WITHIN_S,
            say=tenant.everything,
        )
        assert "install KubeRay" in found["message"]
        # Made after the watches have begun, so it is seen only if they work beside the one that cannot.
        tenant.apply([shared])
        eventually(lambda: tenant.ready(shared), WITHIN_S, say=tenant.everything)
        tenant.delete(dedicated, shared)
        eventually(lambda: not tenant.everything(), WITHIN_S, say=tenant.everything)
