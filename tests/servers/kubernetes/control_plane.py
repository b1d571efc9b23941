"""A real Kubernetes control plane (etcd, kube-apiserver, kube-controller-manager) as processes on loopback."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import secrets
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from tests.servers.kubernetes.pki import Authority
from tests.servers.mixpeek import free_port

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[2]
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager")
ADMIN = "admin"
_READY_S = 90
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_libc = ctypes.CDLL(None, use_errno=True)


class Missing(Exception):
    """The programs cannot be had here; the message says what is needed."""


def programs() -> Path:
    """Return the folder of the programs, built when they are not there. Raises Missing."""
    built = subprocess.run([HERE / "build.sh"], capture_output=True, text=True)
    if built.returncode == 3:
        raise Missing(built.stderr.strip().splitlines()[-1])
    if built.returncode != 0:
        raise RuntimeError(f"building the control plane failed:\n{built.stderr[-4000:]}")
    return Path(built.stdout.strip())


class ControlPlane:
    """One control plane in `folder`. Its parts may be stopped, killed and started again by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = programs()
        self.kubeconfig = folder / "kubeconfig"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ports = {name: free_port() for name in ("api", "etcd", "peer", "controllers")}
        self._token = secrets.token_hex(16)
        self.url = f"https://127.0.0.1:{self._ports['api']}"

    # -- life --------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Start every part, wait until controllers work, and install our definitions."""
        self._prepare()
        for name in PROGRAMS:
            self.start(name)
        self._until(lambda: self.kubectl("-n", "default", "get", "serviceaccount", "default", check=False) is not None)
        self.install_definitions()

    def down(self) -> None:
        """Stop every part, the last started first."""
        for name in reversed(PROGRAMS):
            self.stop(name)

    def start(self, name: str) -> None:
        """Start a part and wait until it serves."""
        log = (self.folder / f"{name}.log").open("ab")
        self._processes[name] = subprocess.Popen(
            [self.bin / name, *self._arguments(name)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        log.close()
        if name == "kube-apiserver":
            self._until(self.ready, name)

    def stop(self, name: str) -> None:
        """Stop a part in good order."""
        process = self._processes.pop(name, None)
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self, name: str) -> None:
        """End a part as `kill -9` does."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def restart(self, name: str) -> None:
        """Stop and start a part."""
        self.stop(name)
        self.start(name)

    def compact(self) -> None:
        """Make etcd forget all history, as it does of itself after a while: watches that want it are expired."""
        etcd = f"http://127.0.0.1:{self._ports['etcd']}/v3/kv"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def call(name: str, body: dict[str, Any]) -> dict[str, Any]:
            with opener.open(urllib.request.Request(f"{etcd}/{name}", json.dumps(body).encode()), timeout=30) as answer:
                return dict(json.loads(answer.read()))

        revision = call("range", {"key": "AA=="})["header"]["revision"]
        call("compaction", {"revision": revision, "physical": True})

    def ready(self) -> bool:
        """Whether the API server answers that it is ready."""
        try:
            self.request("GET", "/readyz")
        except OSError:
            return False
        return True

    # -- use ---------------------------------------------------------------------------------------------------

    def request(self, method: str, path: str, body: Any = None) -> bytes:
        """Send one request as cluster admin; cheaper than a kubectl process. Raises OSError."""
        user = yaml.safe_load(self.kubeconfig.read_text())["users"][0]["user"]
        headers = {"Authorization": f"Bearer {user['token']}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        context = ssl.create_default_context(cafile=str(self.folder / "pki" / "ca.crt"))
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(urllib.request.Request(self.url + path, data, headers, method=method), timeout=10) as answer:
            return bytes(answer.read())

    def kubectl(self, *arguments: str | Path, stdin: str | None = None, check: bool = True) -> str | None:
        """Run kubectl as cluster admin and return what it prints; without `check` None when it fails."""
        done = subprocess.run(
            [self.bin / "kubectl", "--kubeconfig", self.kubeconfig, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "HOME": str(self.folder)},
        )
        if done.returncode == 0:
            return done.stdout
        if check:
            raise AssertionError(f"kubectl {' '.join(map(str, arguments))}: {done.stderr.strip()}")
        return None

    def refused(self, *arguments: str | Path, stdin: str | None = None) -> str:
        """Run kubectl and return why it failed; an AssertionError when it did not."""
        done = subprocess.run(
            [self.bin / "kubectl", "--kubeconfig", self.kubeconfig, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "HOME": str(self.folder)},
        )
        assert done.returncode != 0, done.stdout
        return done.stderr

    def install_definitions(self) -> None:
        """Install `crds/` and wait until each is served."""
        files = [file for file in sorted((REPOSITORY / "crds").glob("*.yaml")) if file.stem != "kustomization"]
        self.kubectl("apply", "--server-side", *(f"--filename={file}" for file in files))
        names = [f"crd/{file.stem}.mixpeek.com" for file in files]
        # `kubectl wait` fails on a definition that has no conditions yet.
        self._until(lambda: self.kubectl("wait", "--for=condition=Established", *names, check=False) is not None)
        # Discovery learns of a definition a moment later.
        self._until(lambda: self.kubectl("get", "mixpeek", check=False) is not None)

    def kubeconfig_for(self, path: Path, *, namespace: str = "default", **user: Any) -> Path:
        """Write a kubeconfig for another user (`token`, `client-certificate`, `exec`…, with `-` as `_`)."""
        return self._write_kubeconfig(path, {key.replace("_", "-"): value for key, value in user.items()}, namespace)

    def service_account(self, namespace: str, name: str) -> str:
        """Make a service account without any permission and return a token of it."""
        self.kubectl("-n", namespace, "create", "serviceaccount", name)
        token = self.kubectl("-n", namespace, "create", "token", name)
        assert token
        return token.strip()

    # -- details -----------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        authority = Authority(self.folder / "pki")
        authority.server("apiserver", ["127.0.0.1", "10.96.0.1"], ["localhost", "kubernetes", "kubernetes.default.svc"])
        authority.client("client", "certified", "system:masters")
        authority.service_account_keys()
        rows = [(self._token, ADMIN, "system:masters")]
        rows.append((secrets.token_hex(16), "system:kube-controller-manager", "system:authenticated"))
        tokens = self.folder / "tokens.csv"
        tokens.touch(mode=0o600)
        tokens.write_text("".join(f'{token},{user},{user},"{group}"\n' for token, user, group in rows))
        self._write_kubeconfig(self.kubeconfig, {"token": self._token}, "default")
        self._write_kubeconfig(self.folder / "controllers.kubeconfig", {"token": rows[1][0]}, "default")

    def _write_kubeconfig(self, path: Path, user: dict[str, Any], namespace: str) -> Path:
        authority = base64.b64encode((self.folder / "pki" / "ca.crt").read_bytes()).decode()
        body = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "tests",
            "clusters": [{"name": "tests", "cluster": {"server": self.url, "certificate-authority-data": authority}}],
            "users": [{"name": "user", "user": user}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "user", "namespace": namespace}}],
        }
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(body))
        return path

    def _arguments(self, name: str) -> list[str]:
        pki, ports = self.folder / "pki", self._ports
        client, peer = f"http://127.0.0.1:{ports['etcd']}", f"http://127.0.0.1:{ports['peer']}"
        if name == "etcd":
            return [
                *("--name", "tests", "--data-dir", str(self.folder / "etcd"), "--unsafe-no-fsync"),
                *("--log-level", "warn", "--listen-client-urls", client, "--advertise-client-urls", client),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--initial-cluster", f"tests={peer}"),
            ]
        if name == "kube-apiserver":
            return [
                *("--etcd-servers", client, "--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1"),
                # The loopback address may not be an endpoint of the service `kubernetes`.
                *("--endpoint-reconciler-type", "none", "--secure-port", str(ports["api"])),
                *("--tls-cert-file", str(pki / "apiserver.crt"), "--tls-private-key-file", str(pki / "apiserver.key")),
                *("--client-ca-file", str(pki / "ca.crt"), "--token-auth-file", str(self.folder / "tokens.csv")),
                *("--authorization-mode", "RBAC", "--profiling=false", "--service-cluster-ip-range", "10.96.0.0/16"),
                *("--service-account-issuer", "https://kubernetes.default.svc"),
                *("--service-account-key-file", str(pki / "sa.pub")),
                *("--service-account-signing-key-file", str(pki / "sa.key")),
            ]
        config = str(self.folder / "controllers.kubeconfig")
        return [
            *("--kubeconfig", config, "--authentication-kubeconfig", config, "--authorization-kubeconfig", config),
            *("--bind-address", "127.0.0.1", "--secure-port", str(ports["controllers"]), "--leader-elect=false"),
            *("--use-service-account-credentials", "--service-account-private-key-file", str(pki / "sa.key")),
            *("--root-ca-file", str(pki / "ca.crt"), "--profiling=false"),
        ]

    def _until(self, done: Any, name: str | None = None) -> None:
        end = time.monotonic() + _READY_S
        while not done():
            process = self._processes.get(name or "kube-apiserver")
            if process is not None and process.poll() is not None:
                raise RuntimeError(f"{name or 'kube-apiserver'} ended:\n{self._tail(name or 'kube-apiserver')}")
            if time.monotonic() > end:
                raise RuntimeError(
                    f"the control plane is not ready after {_READY_S} s:\n{self._tail('kube-apiserver')}"
                )
            time.sleep(0.1)

    def _tail(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-3000:]


class Shared(ControlPlane):
    """A control plane that another process started and stops: to be used, not to be broken."""

    def __init__(self, folder: Path, state: dict[str, Any]) -> None:
        self.folder = folder
        self.bin = Path(state["bin"])
        self.kubeconfig = folder / "kubeconfig"
        self.url = state["url"]
        self._processes = {}


def write_state(plane: ControlPlane, path: Path) -> None:
    """Say in `path` where a control plane is; others read it whole or not at all."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({"url": plane.url, "bin": str(plane.bin)}))
    fresh.replace(path)


def read_state(path: Path) -> dict[str, Any] | None:
    """Return what `write_state` wrote, None before."""
    with contextlib.suppress(FileNotFoundError):
        return dict(json.loads(path.read_text()))
    return None


def die_with_parent() -> None:
    """Have the kernel end this process when its parent ends."""
    _libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL)
