"""`examples/kubernetes` on a real API server: any order, no drift after status was written. And GitOps' view of it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.servers.kubernetes.control_plane import REPOSITORY, ControlPlane

from mixpeek_operator.core.settings import Settings
from mixpeek_operator.main import system

EXAMPLES = REPOSITORY / "examples" / "kubernetes"
GITOPS = REPOSITORY / "examples" / "gitops"
FILES = sorted(EXAMPLES.glob("*.yaml"))
READY = {
    "observedGeneration": 1,
    "conditions": [
        {"type": name, "status": "True", "reason": "Available", "lastTransitionTime": "2026-01-31T10:00:00Z"}
        for name in ("Ready", "Synced")
    ],
}


def test_the_files_go_in_any_order_and_a_second_apply_finds_no_difference(
    control_plane: ControlPlane, kubernetes_namespace: Callable[[], str]
) -> None:
    namespace = kubernetes_namespace()
    files = random.sample(FILES, len(FILES))
    here = ("-n", namespace)
    apply = ("apply", "--server-side", "--field-manager=gitops")
    control_plane.kubectl(*here, *apply, *(f"--filename={file}" for file in files))
    listed = (control_plane.kubectl(*here, "get", "mixpeek", "-o", "name") or "").split()
    assert len(listed) == sum(len(list(yaml.safe_load_all(file.read_text()))) for file in FILES)
    for name in listed:
        status, mine = json.dumps({"status": READY}), "--field-manager=mixpeek-operator"
        control_plane.kubectl(*here, "patch", name, "--subresource=status", "--type=merge", mine, "-p", status)
        control_plane.kubectl(*here, "annotate", name, mine, "mixpeek.com/id=set-by-the-operator")
    run = [control_plane.bin / "kubectl", "--kubeconfig", control_plane.kubeconfig, *here]
    diff = [*run, "diff", "--server-side", "--field-manager=gitops", "-f", EXAMPLES]
    done = subprocess.run(diff, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    control_plane.kubectl(*here, "wait", "--for=condition=Ready", "--timeout=5s", *listed)
    table = control_plane.kubectl(*here, "get", "mixpeek") or ""
    for column in ("READY", "SYNCED", "REASON", "AGE"):
        assert column in table


async def test_the_same_files_become_ready_on_one_machine(tmp_path: Path) -> None:
    text = "\n---\n".join(file.read_text() for file in FILES)
    async with (
        system(Settings(data=tmp_path, preload_model=False)) as running,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=running.app),
            base_url="http://server",
            headers={"Authorization": f"Bearer {running.bootstrap.key}"},
            timeout=60,
        ) as client,
    ):
        answer = await client.post("/v1/manifest/apply", files={"manifest_file": ("examples.yaml", text)})
    result = answer.json()
    assert result["success"], result
    assert {item["status"] for item in result["resources"]} == {"created"}


def test_every_file_for_gitops_names_what_is_here() -> None:
    kinds = {
        (item["kind"], item["metadata"]["name"]) for file in FILES for item in yaml.safe_load_all(file.read_text())
    }
    flux = yaml.safe_load((GITOPS / "flux" / "resources.yaml").read_text())["spec"]
    release = yaml.safe_load((GITOPS / "flux" / "operator.yaml").read_text())
    checked = {(item["kind"], item["name"]) for item in flux["healthChecks"]}
    assert checked - kinds == {("HelmRelease", release["metadata"]["name"])}
    assert (REPOSITORY / flux["path"]).is_dir()
    assert (REPOSITORY / release["spec"]["chart"]["spec"]["chart"] / "Chart.yaml").is_file()
    for name in ("operator", "resources"):
        source = yaml.safe_load((GITOPS / "argocd" / f"{name}.yaml").read_text())["spec"]["source"]
        assert (REPOSITORY / source["path"]).is_dir()


def condition(kind: str, status: str, reason: str = "Why", message: str = "more") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


@pytest.mark.parametrize(
    ("expected", "status", "deleting"),
    [
        ("Progressing", None, False),
        ("Progressing", {"observedGeneration": 1, "conditions": [condition("Ready", "True")]}, False),
        ("Healthy", {"observedGeneration": 2, "conditions": [condition("Ready", "True")]}, False),
        ("Progressing", {"observedGeneration": 2, "conditions": [condition("Ready", "False")]}, False),
        (
            "Degraded",
            {"observedGeneration": 2, "conditions": [condition("Ready", "False"), condition("Stalled", "True")]},
            False,
        ),
        (
            "Degraded",
            {"observedGeneration": 2, "conditions": [condition("Synced", "False"), condition("Ready", "False")]},
            False,
        ),
        ("Progressing", {"observedGeneration": 2, "conditions": [condition("Ready", "True")]}, True),
    ],
)
def test_argo_cd_sees_health_as_we_mean_it(expected: str, status: Any, deleting: bool) -> None:
    lupa = pytest.importorskip("lupa", reason="needs lupa (a Lua interpreter)")
    patch = yaml.safe_load((GITOPS / "argocd" / "health.yaml").read_text())
    rules = yaml.safe_load(patch["data"]["resource.customizations"])
    assert list(rules) == ["mixpeek.com/*"]
    lua = lupa.LuaRuntime()
    metadata: dict[str, Any] = {"generation": 2} | ({"deletionTimestamp": "now"} if deleting else {})
    lua.globals().obj = lua.table_from({"metadata": metadata, "status": status}, recursive=True)
    health = lua.execute(rules["mixpeek.com/*"]["health.lua"])
    assert health["status"] == expected
    assert health["message"]


async def test_the_credentials_job_writes_once_and_may_nothing_else(
    control_plane: ControlPlane, kubernetes_namespace: Callable[[], str], tmp_path: Path
) -> None:
    namespace = kubernetes_namespace()
    job = (REPOSITORY / "manifests/credentials/job.yaml").read_text().replace("mixpeek-system", namespace)
    control_plane.kubectl("-n", namespace, "apply", "-f", "-", stdin=job)
    token = control_plane.kubectl("-n", namespace, "create", "token", "mixpeek-credentials")
    (tmp_path / "token").write_text(token or "")
    (tmp_path / "namespace").write_text(namespace)
    (tmp_path / "ca.crt").write_bytes((control_plane.folder / "pki" / "ca.crt").read_bytes())
    host, _, port = control_plane.url.removeprefix("https://").partition(":")
    there = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port, "ACCOUNT": str(tmp_path)}
    script = REPOSITORY / "manifests/credentials/credentials.py"

    def run() -> str:
        environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()} | there
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    for _ in range(50):  # the role is known a moment after it was written
        if control_plane.kubectl(
            *("-n", namespace, "auth", "can-i", "create", "secrets"),
            f"--as=system:serviceaccount:{namespace}:mixpeek-credentials",
            check=False,
        ):
            break
        await asyncio.sleep(0.2)
    assert run() == "wrote the Secret mixpeek-credentials\n"
    found = control_plane.kubectl("-n", namespace, "get", "secret", "mixpeek-credentials", "-o", "json")
    data = json.loads(found or "")["data"]
    assert base64.b64decode(data["api-key"]).startswith(b"mxp_")
    assert len(data) == len(set(data.values())) == 7
    assert "nothing to do" in run()
    again = control_plane.kubectl("-n", namespace, "get", "secret", "mixpeek-credentials", "-o", "json")
    assert json.loads(again or "")["data"] == data
