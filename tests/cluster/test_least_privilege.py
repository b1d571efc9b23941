"""The operator as it is installed: a service account with the generated role, and no right beyond it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.servers.kubernetes.control_plane import REPOSITORY, ControlPlane
from tests.servers.operator import OperatorProcess


def test_the_generated_role_is_enough_to_make_the_examples_ready_and_to_let_them_go(
    control_plane: ControlPlane, kubernetes_namespace: Callable[[], str], tmp_path: Path
) -> None:
    namespace = kubernetes_namespace()
    here = ("-n", namespace)
    roles = {
        item["metadata"]["name"]: item
        for item in yaml.safe_load_all((REPOSITORY / "manifests/base/cluster-roles.yaml").read_text())
    }
    role = {**roles["mixpeek-operator"], "kind": "Role", "metadata": {"name": "operator"}}
    lease = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "leader"},
        "rules": [
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
            {
                "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"],
                "resourceNames": ["mixpeek"],
                "verbs": ["get", "update", "patch"],
            },
        ],
    }
    control_plane.kubectl(*here, "apply", "-f", "-", stdin=yaml.safe_dump_all([role, lease]))
    token = control_plane.service_account(namespace, "operator")
    for name in ("operator", "leader"):
        account = f"--serviceaccount={namespace}:operator"
        control_plane.kubectl(*here, "create", "rolebinding", name, f"--role={name}", account)
    kubeconfig = control_plane.kubeconfig_for(tmp_path / "kubeconfig", namespace=namespace, token=token)
    files = [f"--filename={file}" for file in sorted((REPOSITORY / "examples/kubernetes").glob("*.yaml"))]
    control_plane.kubectl(*here, "apply", "--server-side", *files)
    settings = {"lease": "mixpeek", "lease_namespace": namespace, "namespace": namespace}
    operator = OperatorProcess(tmp_path / "operator", kubeconfig, **settings)
    operator.start()
    try:
        names = (control_plane.kubectl(*here, "get", "mixpeek", "-o", "name") or "").split()
        try:
            control_plane.kubectl(*here, "wait", "--for=condition=Ready", "--timeout=90s", *names)
        except AssertionError as error:
            pytest.fail(f"{error}\n{operator.log.read_text()[-4000:]}")
        events = json.loads(control_plane.kubectl(*here, "get", "events", "-o", "json") or "")["items"]
        assert {event["involvedObject"]["kind"] for event in events} >= {"Bucket", "Collection"}
        control_plane.kubectl(*here, "delete", "--timeout=60s", *names)
        assert "forbidden" not in operator.log.read_text().lower()
    finally:
        operator.stop()
