"""The operator as it is installed: a service account with the generated role, and no right beyond it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from tests.cluster.declared import Object, Tenant, declare, eventually, namespace
from tests.servers.kubernetes.control_plane import REPOSITORY, ControlPlane
from tests.servers.operator import OperatorProcess

SECRET = "mixpeek-secrets"


@pytest.fixture
def tenant(control_plane: ControlPlane, kubernetes_namespace: Callable[[], str]) -> Tenant:
    return Tenant(control_plane, kubernetes_namespace())


@pytest.fixture
def operator(tenant: Tenant, tmp_path: Path) -> Iterator[OperatorProcess]:
    """An operator with no more rights than the generated role has; it is not started."""
    plane, name = tenant.plane, tenant.name
    here = ("-n", name)
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
    plane.kubectl(*here, "apply", "-f", "-", stdin=yaml.safe_dump_all([role, lease]))
    token = plane.service_account(name, "operator")
    for bound in ("operator", "leader"):
        plane.kubectl(*here, "create", "rolebinding", bound, f"--role={bound}", f"--serviceaccount={name}:operator")
    kubeconfig = plane.kubeconfig_for(tmp_path / "kubeconfig", namespace=name, token=token)
    settings = {"lease": "mixpeek", "lease_namespace": name, "namespace": name}
    made = OperatorProcess(tmp_path / "operator", kubeconfig, **settings)
    yield made
    made.kill()


def test_the_generated_role_is_enough_to_make_the_examples_ready_and_to_let_them_go(
    tenant: Tenant, operator: OperatorProcess
) -> None:
    plane, here = tenant.plane, ("-n", tenant.name)
    files = [f"--filename={file}" for file in sorted((REPOSITORY / "examples/kubernetes").glob("*.yaml"))]
    plane.kubectl(*here, "apply", "--server-side", *files)
    operator.start()
    names = (plane.kubectl(*here, "get", "mixpeek", "-o", "name") or "").split()
    try:
        plane.kubectl(*here, "wait", "--for=condition=Ready", "--timeout=90s", *names)
    except AssertionError as error:
        pytest.fail(f"{error}\n{operator.log.read_text()[-4000:]}")
    eventually(lambda: {event["involvedObject"]["kind"] for event in tenant.events()} >= {"Bucket", "Collection"}, 60)
    plane.kubectl(*here, "delete", "--timeout=60s", *names)
    assert "forbidden" not in operator.log.read_text().lower()


def test_a_retriever_is_ready_while_the_secrets_of_its_stages_are_there(
    tenant: Tenant, operator: OperatorProcess
) -> None:
    """The next drift check is minutes away: what is told here, the watch told."""
    inner = {"stage_id": "rerank", "parameters": {"query": "lamps", "model": "cohere/rerank-v3.5"}}
    stage = {
        "stageName": "web",
        "stageId": "document_enrich",
        "parameters": {"retriever_config": {"stages": [inner]}},
    }
    search = declare("Retriever", "search", {"stages": [stage]}, "news")
    rows = {"stageName": "rows", "stageId": "sql_lookup", "parameters": {"connection_id": "crm", "query": "SELECT 1"}}
    lookup = declare("Retriever", "lookup", {"stages": [rows]}, "news")
    operator.start()
    tenant.apply([namespace("news"), search, lookup])

    told = eventually(lambda: _missing(tenant, search), say=tenant.everything)
    assert told["message"] == (
        "there is no secret 'cohere_api_key', which stage 'web' names "
        "(stages[0].parameters.retriever_config.stages[0].parameters.model); "
        f"add it as a key of Secret {tenant.name}/{SECRET}, or create a secret with POST /v1/organizations/secrets"
    )
    # Connections are in a store that this operator does not share with the API.
    eventually(lambda: tenant.ready(lookup), say=tenant.everything)

    kubectl = ("-n", tenant.name)
    tenant.plane.kubectl(*kubectl, "create", "secret", "generic", SECRET, "--from-literal=other=1")
    _patch(tenant, {"cohere_api_key": "a2V5"})
    eventually(lambda: tenant.ready(search), 90, say=tenant.everything)
    _patch(tenant, {"cohere_api_key": None})
    eventually(lambda: _missing(tenant, search), 90, say=tenant.everything)
    _patch(tenant, {"cohere_api_key": "a2V5"})
    eventually(lambda: tenant.ready(search), 90, say=tenant.everything)
    tenant.plane.kubectl(*kubectl, "delete", "secret", SECRET)
    eventually(lambda: _missing(tenant, search), 90, say=tenant.everything)
    assert "a2V5" not in operator.log.read_text()


def _missing(tenant: Tenant, search: Object) -> Object:
    found = tenant.condition(search)
    return found if (found.get("status"), found.get("reason")) == ("False", "SecretMissing") else {}


def _patch(tenant: Tenant, data: Object) -> None:
    patch = json.dumps({"data": data})
    tenant.plane.kubectl("-n", tenant.name, "patch", "secret", SECRET, "--type=merge", "-p", patch)
