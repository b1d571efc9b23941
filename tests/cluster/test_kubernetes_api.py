"""The client for the Kubernetes API, on a real one."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.servers.kubernetes.control_plane import ControlPlane

from mixpeek_operator.adapters.kubernetes_api import DEFINITIONS, EVENTS, JSON_PATCH, SECRETS, Api, KubernetesApi
from mixpeek_operator.adapters.kubernetes_config import FileToken, connection, from_kubeconfig
from mixpeek_operator.core.errors import (
    AlreadyExistsError,
    ConflictError,
    NotFoundError,
    RefusedError,
    SpecError,
    UnavailableError,
)

CONFIG_MAPS = Api("", "v1", "configmaps", "ConfigMap")
BUCKETS = Api("mixpeek.com", "v1alpha1", "buckets", "Bucket")


@pytest.fixture
async def api(control_plane: ControlPlane) -> AsyncIterator[KubernetesApi]:
    async with KubernetesApi(connection(control_plane.kubeconfig)) as made:
        yield made


def config_map(namespace: str, name: str, **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": data,
    }


async def test_objects_are_written_read_and_deleted(
    api: KubernetesApi, kubernetes_namespace: Callable[[], str]
) -> None:
    namespace = kubernetes_namespace()
    await api.health()
    made = await api.create(CONFIG_MAPS, config_map(namespace, "one", a="1"))
    with pytest.raises(AlreadyExistsError):
        await api.create(CONFIG_MAPS, config_map(namespace, "one"))
    assert (await api.get(CONFIG_MAPS, namespace, "one"))["data"] == {"a": "1"}
    changed = await api.replace(CONFIG_MAPS, {**made, "data": {"a": "2"}})
    with pytest.raises(ConflictError):
        await api.replace(CONFIG_MAPS, {**made, "data": {"a": "3"}})
    assert changed["data"] == {"a": "2"}
    merged = await api.patch(CONFIG_MAPS, namespace, "one", {"data": {"a": None, "b": "4"}})
    assert merged["data"] == {"b": "4"}
    patch = [{"op": "replace", "path": "/data/b", "value": "5"}]
    assert (await api.patch(CONFIG_MAPS, namespace, "one", patch, kind=JSON_PATCH))["data"] == {"b": "5"}
    rehearsed = await api.patch(CONFIG_MAPS, namespace, "one", {"data": {"c": "6"}}, dry_run=True)
    assert rehearsed["data"] == {"b": "5", "c": "6"}
    with pytest.raises(ConflictError):
        await api.delete(CONFIG_MAPS, namespace, "one", uid="another")
    await api.delete(CONFIG_MAPS, namespace, "one", uid=made["metadata"]["uid"])
    with pytest.raises(NotFoundError):
        await api.get(CONFIG_MAPS, namespace, "one")


async def test_a_long_list_is_read_in_pages(
    api: KubernetesApi, kubernetes_namespace: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace = kubernetes_namespace()
    monkeypatch.setattr("mixpeek_operator.adapters.kubernetes_api._PAGE", 7)
    await asyncio.gather(*(api.create(CONFIG_MAPS, config_map(namespace, f"m{n:02}")) for n in range(30)))
    page = await api.list(CONFIG_MAPS, namespace, fields="metadata.name!=kube-root-ca.crt")
    assert [item["metadata"]["name"] for item in page.items] == [f"m{n:02}" for n in range(30)]
    assert {item["kind"] for item in page.items} == {"ConfigMap"}


async def test_apply_owns_fields_and_names_who_else_does(
    api: KubernetesApi, kubernetes_namespace: Callable[[], str]
) -> None:
    namespace = kubernetes_namespace()
    await api.apply(CONFIG_MAPS, config_map(namespace, "one", a="1", b="1"), manager="first")
    with pytest.raises(ConflictError, match=r"\.data\.a.*first"):
        await api.apply(CONFIG_MAPS, config_map(namespace, "one", a="2"), manager="second")
    forced = await api.apply(CONFIG_MAPS, config_map(namespace, "one", a="2"), manager="second", force=True)
    assert forced["data"] == {"a": "2", "b": "1"}
    left = await api.apply(CONFIG_MAPS, config_map(namespace, "one"), manager="first")
    assert left["data"] == {"a": "2"}


async def test_a_watch_goes_on_from_a_version(api: KubernetesApi, kubernetes_namespace: Callable[[], str]) -> None:
    namespace = kubernetes_namespace()
    page = await api.list(CONFIG_MAPS, namespace)
    await api.create(CONFIG_MAPS, config_map(namespace, "one"))
    await api.delete(CONFIG_MAPS, namespace, "one")
    seen = []
    async for event in api.watch(CONFIG_MAPS, namespace, resource_version=page.resource_version, timeout_s=3):
        seen.append((event.type, event.object["metadata"].get("name")))
    assert [item for item in seen if item[1] == "one"] == [("ADDED", "one"), ("DELETED", "one")]


async def test_what_the_schema_refuses_names_the_fields(
    api: KubernetesApi, kubernetes_namespace: Callable[[], str]
) -> None:
    namespace = kubernetes_namespace()
    body = {
        "apiVersion": BUCKETS.api_version,
        "kind": "Bucket",
        "metadata": {"name": "one", "namespace": namespace},
        "spec": {"namespace": "", "deletionPolicy": "Never"},
    }
    with pytest.raises(SpecError) as refused:
        await api.create(BUCKETS, body)
    assert {"spec.namespace", "spec.deletionPolicy"} <= {problem.place.path for problem in refused.value.problems}
    body["spec"] = {"namespace": "shop", "colour": "red"}
    with pytest.raises(SpecError, match="colour"):
        await api.create(BUCKETS, body)
    with pytest.raises(SpecError, match="colour"):
        await api.apply(BUCKETS, body, manager="me")


async def test_what_rbac_lacks_is_named(
    control_plane: ControlPlane, kubernetes_namespace: Callable[[], str], tmp_path: Path
) -> None:
    namespace = kubernetes_namespace()
    token = control_plane.service_account(namespace, "reader")
    file = control_plane.kubeconfig_for(tmp_path / "kubeconfig", token=token, namespace=namespace)
    async with KubernetesApi(connection(file)) as api:
        assert api.connection.namespace == namespace
        with pytest.raises(RefusedError, match=r'cannot get resource "secrets".*reader|reader.*cannot get resource'):
            await api.get(SECRETS, namespace, "any")
        with pytest.raises(RefusedError, match=r"customresourcedefinitions"):
            await api.list(DEFINITIONS)


async def test_a_rotated_token_is_taken_up(
    control_plane: ControlPlane, kubernetes_namespace: Callable[[], str], tmp_path: Path
) -> None:
    namespace = kubernetes_namespace()
    token = control_plane.service_account(namespace, "rotating")
    control_plane.kubectl(
        "-n", namespace, "create", "rolebinding", "view", "--clusterrole=view", f"--serviceaccount={namespace}:rotating"
    )
    held = tmp_path / "token"
    held.write_text("expired")
    file = control_plane.kubeconfig_for(tmp_path / "kubeconfig", tokenFile=str(held))
    async with KubernetesApi(connection(file)) as api:
        with pytest.raises(RefusedError, match="credentials"):
            await api.list(EVENTS, namespace)
        held.write_text(token)
        await api.list(EVENTS, namespace)
        assert isinstance(api.connection.credentials, FileToken)


async def test_client_certificates_and_plugins_are_credentials(control_plane: ControlPlane, tmp_path: Path) -> None:
    pki = control_plane.folder / "pki"
    pair = {"client_certificate": str(pki / "client.crt"), "client_key": str(pki / "client.key")}
    async with KubernetesApi(connection(control_plane.kubeconfig_for(tmp_path / "a", **pair))) as api:
        await api.list(DEFINITIONS)
    status = {
        "clientCertificateData": (pki / "client.crt").read_text(),
        "clientKeyData": (pki / "client.key").read_text(),
        "expirationTimestamp": "2100-01-01T00:00:00Z",
    }
    runs = tmp_path / "runs"
    code = (
        f"import json, os, pathlib; pathlib.Path({str(runs)!r}).open('a').write('.'); "
        "info = json.loads(os.environ['KUBERNETES_EXEC_INFO']); "
        f"print(json.dumps({{'apiVersion': info['apiVersion'], 'kind': 'ExecCredential', 'status': {status!r}}}))"
    )
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "args": ["-c", code]}
    async with KubernetesApi(connection(control_plane.kubeconfig_for(tmp_path / "b", exec=plugin))) as api:
        await asyncio.gather(*(api.list(DEFINITIONS) for _ in range(5)))
    assert runs.read_text() == "."
    plugin["args"] = ["-c", "import sys; sys.exit('log in first')"]
    async with KubernetesApi(connection(control_plane.kubeconfig_for(tmp_path / "c", exec=plugin))) as api:
        with pytest.raises(RefusedError, match="log in first"):
            await api.health()


async def test_an_api_server_that_is_away_is_unavailable(control_plane: ControlPlane, tmp_path: Path) -> None:
    text = control_plane.kubeconfig.read_text().replace(control_plane.url, "https://127.0.0.1:9")
    (tmp_path / "kubeconfig").write_text(text)
    async with KubernetesApi(connection(tmp_path / "kubeconfig")) as api:
        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:9"):
            await api.health()


def test_several_files_are_one_configuration_and_mistakes_name_what_is_there(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_text(json.dumps({"contexts": [{"name": "elsewhere", "context": {"cluster": "tests", "user": "user"}}]}))
    found = from_kubeconfig([other, control_plane.kubeconfig], "elsewhere")
    assert found.server == control_plane.url
    with pytest.raises(SpecError, match="elsewhere, tests"):
        from_kubeconfig([other, control_plane.kubeconfig], "absent")
    other.write_text("{")
    with pytest.raises(SpecError, match="not YAML"):
        from_kubeconfig([other])
