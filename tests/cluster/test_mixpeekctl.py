"""`mixpeekctl` finds the API by the kubeconfig and reaches it through the service proxy of a real API server."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError

import pytest
from tests.cluster.declared import eventually
from tests.servers.kubernetes.control_plane import ControlPlane
from tests.servers.mixpeek import KEY, Server, serving

from mixpeek_operator.cli.client import LOCAL
from mixpeek_operator.cli.cluster import find

NAME = "mixpeek-api"
LABELS = {"app.kubernetes.io/part-of": "mixpeek", "app.kubernetes.io/instance": "mixpeek"}
MANIFEST = """
version: "1.0"
namespaces:
  - name: shop
    feature_extractors: [{name: passthrough_extractor, version: v1}]
buckets:
  - name: files
    namespace: shop
    schema: {properties: {content: {type: text}}}
"""


def own_address() -> str:
    """This machine's address; the API server lets nobody through to loopback addresses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("the machine has no address but loopback, to which an API server lets nobody through")
        return str(probe.getsockname()[0])


@pytest.fixture
def namespace(kubernetes_namespace: Callable[[], str]) -> str:
    return kubernetes_namespace()


@pytest.fixture
def api(namespace: str, tmp_path: Path) -> Iterator[Server]:
    """Our API, which hands out links to its Service, as in a pod of the chart."""
    public = f"http://{NAME}.{namespace}.svc:7007"
    with serving(tmp_path / "data", MIXPEEK_HOST="0.0.0.0", MIXPEEK_PUBLIC_URL=public) as server:
        yield server


def publish(plane: ControlPlane, namespace: str, name: str, port: int, target: int, component: str = "api") -> None:
    """Make a Service, and a Pod behind it that no node runs: it says that it has this machine's address."""
    core = f"/api/v1/namespaces/{namespace}"
    labels = {**LABELS, "app.kubernetes.io/component": component}
    ports = [{"name": "http", "port": port, "targetPort": target}]
    service = {"metadata": {"name": name, "labels": labels}, "spec": {"ports": ports}}
    plane.request("POST", f"{core}/services", service)
    spec = {"automountServiceAccountToken": False, "containers": [{"name": "api", "image": "none"}]}
    text = json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    # The namespace's own service account, without which no Pod is taken, comes a moment after the namespace.
    eventually(lambda: plane.kubectl("-n", namespace, "create", "-f", "-", stdin=text, check=False) is not None)
    address = own_address()
    change = json.dumps({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}})
    plane.kubectl("-n", namespace, "patch", "pod", name, "--subresource=status", "--type=merge", "-p", change)
    # The controller makes Endpoints of Pods on nodes only; the proxy asks for the Pod behind each, and for no node.
    pod = {"kind": "Pod", "namespace": namespace, "name": name}
    subset = {"addresses": [{"ip": address, "targetRef": pod}], "ports": [{"name": "http", "port": target}]}
    plane.request("POST", f"{core}/endpoints", {"metadata": {"name": name}, "subsets": [subset]})

    def reached() -> bool:
        try:
            plane.request("GET", f"{core}/services/http:{name}:{port}/proxy/")
        except HTTPError as error:
            return b"no endpoints available" not in error.read()
        return True

    eventually(reached)


def keep_key(plane: ControlPlane, namespace: str) -> None:
    """Make the chart's Secret."""
    body = {
        "metadata": {"name": "mixpeek-credentials"},
        "data": {"api-key": base64.b64encode(KEY.encode()).decode()},
    }
    plane.request("POST", f"/api/v1/namespaces/{namespace}/secrets", body)


class Ctl:
    """Runs `mixpeekctl` as somebody who has a kubeconfig and nothing else."""

    def __init__(self, kubeconfig: Path, home: Path) -> None:
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "KUBECONFIG": str(kubeconfig),
        }

    def __call__(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mixpeek_operator.cli", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            env=self._environment | environment,
        )

    def done(self, *arguments: object, **environment: str) -> str:
        ran = self(*arguments, **environment)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout


def test_apply_upload_and_get_with_nothing_but_a_kubeconfig(
    control_plane: ControlPlane, namespace: str, api: Server, tmp_path: Path
) -> None:
    publish(control_plane, namespace, NAME, 7007, api.port)
    keep_key(control_plane, namespace)
    ctl = Ctl(control_plane.kubeconfig, tmp_path)
    manifest, file = tmp_path / "shop.yaml", tmp_path / "a.txt"
    manifest.write_text(MANIFEST)
    file.write_text("hello")
    where = ("--kube-namespace", namespace)
    ctl.done("apply", manifest, *where)
    # The link of the upload leads to the Service, which has no address here.
    assert "1 object put" in ctl.done("upload", "files", file, "-n", "shop", *where)
    assert "files" in ctl.done("get", "buckets", "-n", "shop", *where, "--context", "tests")


def test_who_may_use_the_service_and_read_no_secret_brings_the_key(
    control_plane: ControlPlane, namespace: str, api: Server, tmp_path: Path
) -> None:
    publish(control_plane, namespace, NAME, 7007, api.port)
    keep_key(control_plane, namespace)
    token = control_plane.service_account(namespace, "person")
    kubeconfig = control_plane.kubeconfig_for(tmp_path / "person", namespace=namespace, token=token)
    ctl = Ctl(kubeconfig, tmp_path)
    refused = ctl("get", "namespaces", "--context", "tests")
    assert refused.returncode == 2
    assert "cannot list resource" in refused.stderr

    here = ("-n", namespace, "create")
    rules = ("--verb=get,list", "--resource=services", "--resource=services/proxy")
    control_plane.kubectl(*here, "role", "person", *rules)
    control_plane.kubectl(*here, "rolebinding", "person", "--role=person", f"--serviceaccount={namespace}:person")
    eventually(lambda: "MIXPEEK_API_KEY" in ctl("get", "namespaces", "--context", "tests").stderr)
    # What a flag says counts before the environment.
    ctl.done("get", "namespaces", "--context", "tests", MIXPEEK_API_KEY=KEY, MIXPEEK_SERVER="http://elsewhere")


def test_what_was_looked_for_is_said(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    ctl = Ctl(control_plane.kubeconfig, tmp_path)
    empty = ctl("get", "buckets", "--kube-namespace", namespace).stderr
    assert f"Kubernetes namespace {namespace!r} of {control_plane.url} has no Service" in empty
    publish(control_plane, namespace, NAME, 7007, 9)
    assert namespace in ctl("get", "buckets", "--context", "tests").stderr.partition("it is in ")[2]
    # Nobody listens behind the Service.
    assert "error trying to reach service" in ctl("get", "buckets", "--kube-namespace", namespace).stderr
    both = ctl("get", "buckets", "--context", "tests", "--server", "http://127.0.0.1:1")
    assert "--server names a server" in both.stderr
    assert "no context 'none'" in ctl("get", "buckets", "--context", "none").stderr


def test_nothing_configured_says_what_was_tried(tmp_path: Path) -> None:
    with socket.socket() as probe:
        if probe.connect_ex(LOCAL) == 0:
            pytest.skip(f"a server listens at {LOCAL}, which would be used")
    (tmp_path / "empty").write_text("{}")
    ran = Ctl(tmp_path / "empty", tmp_path)("get", "buckets")
    assert ran.returncode == 2
    for tried in ("nothing listens at http://127.0.0.1:7007", "the kubeconfig has no current context", "--server"):
        assert tried in ran.stderr


def test_only_links_to_the_installations_own_services_go_through_the_proxy(
    control_plane: ControlPlane, namespace: str
) -> None:
    for name, component in ((NAME, "api"), ("mixpeek-objects", "objects")):
        labels = {**LABELS, "app.kubernetes.io/component": component}
        body = {"metadata": {"name": name, "labels": labels}, "spec": {"ports": [{"name": "http", "port": 7007}]}}
        control_plane.request("POST", f"/api/v1/namespaces/{namespace}/services", body)
    cluster = find(control_plane.kubeconfig, None, namespace)
    assert cluster.name == NAME
    services = f"{control_plane.url}/api/v1/namespaces/{namespace}/services"
    for host in (
        "mixpeek-objects",
        f"mixpeek-objects.{namespace}.svc",
        f"mixpeek-objects.{namespace}.svc.cluster.local",
    ):
        way = cluster.through(f"http://{host}:7070/shop/a%20b?X-Amz-Signature=s%2Fs")
        path = f"{services}/http:mixpeek-objects:7070/proxy/shop/a%20b?X-Amz-Signature=s%2Fs"
        assert way == (path, {"Host": f"{host}:7070"})
    for link in (
        "http://mixpeek-objects.elsewhere.svc/a",
        "https://s3.amazonaws.com/mixpeek-objects",
        "http://other/a",
    ):
        assert cluster.through(link) is None
