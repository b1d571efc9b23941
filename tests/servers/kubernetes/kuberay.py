"""The real KubeRay operator on a control plane without nodes: pods are said to be ready, and Ray is stood in for.

What it cannot show is anything of Ray itself. Pods get addresses of 10.0.0.0/24, which must lead nowhere but to this
machine: `sandboxed` runs a command where they are local and no other network exists.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from tests.servers.kubernetes.control_plane import HERE, ControlPlane, Missing, die_with_parent
from tests.servers.mixpeek import free_port

_ROUTE = "ip link set lo up && ip route add local 10.0.0.0/24 dev lo"
_NODE = "node"
_KINDS = ("rayclusters", "rayservices", "rayjobs")
BROKEN = "broken"
"""Version of an extractor that the stand-in for Ray Serve cannot deploy."""


def sandboxed(command: Sequence[str]) -> list[str]:
    """Return a command that runs `command` with loopback and the pods' addresses alone. Raises Missing."""
    unshare = ["unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
    try:
        tried = subprocess.run([*unshare, "sh", "-c", _ROUTE], capture_output=True, text=True, timeout=60)
    except FileNotFoundError as error:
        raise Missing("needs unshare(1) for a network of its own") from error
    if tried.returncode != 0:
        raise Missing(f"needs a user namespace with a network of its own: {tried.stderr.strip()}")
    return [*unshare, "sh", "-c", f'{_ROUTE} && exec "$@"', "sh", *command]


def ray_operator() -> str:
    """Return the KubeRay operator, built when it is not there. Raises Missing."""
    built = subprocess.run([HERE / "build.sh", "ray-operator"], capture_output=True, text=True)
    if built.returncode == 3:
        raise Missing(built.stderr.strip().splitlines()[-1])
    if built.returncode != 0:
        raise RuntimeError(f"building the KubeRay operator failed:\n{built.stderr[-4000:]}")
    return built.stdout.strip()


@contextlib.contextmanager
def kuberay(plane: ControlPlane) -> Iterator[FakeRay]:
    """Run KubeRay, ready pods and a stand-in for Ray until the block ends."""
    folder = ray_operator()
    plane.kubectl("apply", "--server-side", "-f", f"{folder}/kuberay-crds")
    names = [f"crd/{kind}.ray.io" for kind in _KINDS]
    _eventually(lambda: plane.kubectl("wait", "--for=condition=Established", *names, check=False) is not None)
    ray = FakeRay()
    pods = _ReadyPods(plane)
    log = (plane.folder / "ray-operator.log").open("ab")
    process = subprocess.Popen(
        [
            *(f"{folder}/ray-operator", "--metrics-addr", "127.0.0.1:0", "--enable-leader-election=false"),
            *("--health-probe-bind-address", f"127.0.0.1:{free_port()}", "--log-stdout-encoder", "console"),
            "--use-kubernetes-proxy",
        ],
        env={"KUBECONFIG": str(plane.kubeconfig), "HOME": str(plane.folder)},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        preexec_fn=die_with_parent,
    )
    ray.start()
    pods.start()
    try:
        yield ray
    finally:
        process.kill()
        process.wait()
        pods.stop()
        ray.stop()
        log.close()


class FakeRay:
    """The dashboard's API of Ray Serve and the proxy's health, at every pod's address."""

    def __init__(self) -> None:
        self.configs: list[dict[str, Any]] = []
        """Every configuration that KubeRay submitted, the latest last."""
        handler = type("Handler", (_Handler,), {"ray": self})
        self._servers = [ThreadingHTTPServer(("0.0.0.0", port), handler) for port in (8265, 8000)]

    def start(self) -> None:
        """Answer from now on."""
        for server in self._servers:
            threading.Thread(target=server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Answer no more."""
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def applications(self) -> dict[str, Any]:
        """What the latest configuration declares, by name."""
        return {item["name"]: item for item in self.configs[-1]["applications"]} if self.configs else {}

    def statuses(self) -> dict[str, Any]:
        """What Ray Serve would say of each."""
        found = {}
        for name, item in self.applications().items():
            failed = item["args"]["version"] == BROKEN
            message = "Traceback (most recent call last):\n  File x\nNotFoundError: no such version\n" if failed else ""
            status = "DEPLOY_FAILED" if failed else "RUNNING"
            found[name] = {"status": status, "message": message, "deployments": {}}
        return found


class _Handler(BaseHTTPRequestHandler):
    ray: ClassVar[FakeRay]

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.ray.configs.append(json.loads(body))
        self._answer({})

    def do_GET(self) -> None:
        if self.path.startswith("/-/healthz"):
            self._answer("success")
        elif self.path.startswith("/api/serve/applications"):
            self._answer({"applications": self.ray.statuses()})
        else:
            self._answer({}, 404)

    def _answer(self, body: Any, status: int = 200) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class _ReadyPods(threading.Thread):
    """A node that says of every pod that it runs there and is ready, and lets go of those that are deleted."""

    def __init__(self, plane: ControlPlane) -> None:
        super().__init__(daemon=True)
        self._plane = plane
        self._end = threading.Event()
        self._made = 0

    def stop(self) -> None:
        self._end.set()
        self.join()

    def run(self) -> None:
        self._plane.request("POST", "/api/v1/nodes", {"metadata": {"name": _NODE}})
        beats = 0
        while not self._end.wait(0.5):
            # KubeRay may have written in between, or removed a pod again: then the next round does.
            with contextlib.suppress(OSError):
                if beats % 10 == 0:
                    self._beat()
                beats += 1
                for pod in json.loads(self._plane.request("GET", "/api/v1/pods"))["items"]:
                    self._attend(pod)

    def _beat(self) -> None:
        now = _now()
        condition = {"type": "Ready", "status": "True", "lastHeartbeatTime": now, "lastTransitionTime": now}
        node = json.loads(self._plane.request("GET", f"/api/v1/nodes/{_NODE}"))
        node["status"]["conditions"] = [condition]
        self._plane.request("PUT", f"/api/v1/nodes/{_NODE}/status", node)

    def _attend(self, pod: dict[str, Any]) -> None:
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        if metadata.get("deletionTimestamp"):
            self._plane.request("DELETE", path, {"gracePeriodSeconds": 0})
        elif not pod["spec"].get("nodeName"):
            binding = {"metadata": {"name": metadata["name"]}, "target": {"kind": "Node", "name": _NODE}}
            self._plane.request("POST", f"{path}/binding", binding)
        elif not pod["status"].get("podIP"):
            self._start(pod, path)

    def _start(self, pod: dict[str, Any], path: str) -> None:
        self._made += 1
        now = _now()
        address = f"10.0.0.{self._made % 250 + 1}"
        containers = [
            {
                "name": item["name"],
                "image": item["image"],
                "imageID": "",
                "ready": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": now}},
            }
            for item in pod["spec"]["containers"]
        ]
        pod["status"] = {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": now,
            "containerStatuses": containers,
            "conditions": [
                {"type": name, "status": "True", "lastTransitionTime": now}
                for name in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
            ],
        }
        self._plane.request("PUT", f"{path}/status", pod)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _eventually(done: Any, within_s: float = 180) -> None:
    end = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < end, f"not within {within_s} s"
        time.sleep(0.2)
