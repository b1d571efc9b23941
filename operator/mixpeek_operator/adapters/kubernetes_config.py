"""Where the API server is and who we are: from a kubeconfig, or from the service account of the pod we run in."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from mixpeek_operator.core.errors import RefusedError, SpecError, UnavailableError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TOKEN_LIFE_S = 60.0
"""A mounted token is rotated on disk by the kubelet; it is read again after this time."""
_EXEC_TIMEOUT_S = 60.0
_EXEC_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")


class Credentials:
    """Who we are, asked for before every request; the base is nobody, or a client certificate alone."""

    async def authorization(self, *, renew: bool = False) -> str | None:
        """Return the value of the Authorization header. `renew`: the last one was refused."""
        return None


class FixedToken(Credentials):
    """A header that never changes: a bearer token, or user and password."""

    def __init__(self, value: str) -> None:
        self._value = value

    async def authorization(self, *, renew: bool = False) -> str | None:
        return self._value


class FileToken(Credentials):
    """A token in a file that somebody else rotates."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._value = ""
        self._read_at = float("-inf")

    async def authorization(self, *, renew: bool = False) -> str | None:
        now = time.monotonic()
        if renew or now - self._read_at > _TOKEN_LIFE_S:
            try:
                self._value, self._read_at = self._path.read_text().strip(), now
            except OSError as error:
                raise UnavailableError(f"the token file {self._path} cannot be read: {error.strerror}") from error
        return f"Bearer {self._value}"


class ExecToken(Credentials):
    """A token, or a client certificate for `tls`, from a credential plugin (`users[].user.exec`)."""

    def __init__(
        self, command: Mapping[str, Any], folder: Path, cluster: Mapping[str, Any], tls: ssl.SSLContext
    ) -> None:
        self._command = command
        self._folder = folder
        self._cluster = cluster
        self._tls = tls
        self._value: str | None = None
        self._expires = float("-inf")
        self._turn = asyncio.Lock()

    async def authorization(self, *, renew: bool = False) -> str | None:
        refused = self._value
        async with self._turn:
            if time.time() >= self._expires or (renew and self._value == refused):
                await self._run()
            return self._value

    async def _run(self) -> None:
        program = str(self._command.get("command") or "")
        if "/" in program:
            program = str(self._folder / program)
        version = str(self._command.get("apiVersion") or _EXEC_VERSIONS[0])
        spec: dict[str, Any] = {"interactive": False}
        if self._command.get("provideClusterInfo"):
            spec["cluster"] = dict(self._cluster)
        info = {"apiVersion": version, "kind": "ExecCredential", "spec": spec}
        extra = {item["name"]: item["value"] for item in self._command.get("env") or ()}
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                *(str(item) for item in self._command.get("args") or ()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, **extra, "KUBERNETES_EXEC_INFO": json.dumps(info)},
            )
        except OSError as error:
            hint = self._command.get("installHint") or "install it or choose another context"
            raise RefusedError(f"the credential plugin {program!r} cannot run: {error.strerror}; {hint}") from error
        try:
            async with asyncio.timeout(_EXEC_TIMEOUT_S):
                out, err = await process.communicate()
        except TimeoutError as error:
            process.kill()
            await process.wait()
            raise UnavailableError(f"the credential plugin {program!r} gave no answer") from error
        if process.returncode != 0:
            text = err.decode(errors="replace").strip()[-500:]
            raise RefusedError(f"the credential plugin {program!r} failed: {text or process.returncode}")
        self._take(program, out)

    def _take(self, program: str, out: bytes) -> None:
        try:
            status = json.loads(out)["status"]
            certificate, key = status.get("clientCertificateData"), status.get("clientKeyData")
            expires = status.get("expirationTimestamp")
            until = float("inf") if expires is None else datetime.fromisoformat(expires).timestamp() - 10
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RefusedError(f"the credential plugin {program!r} did not print an ExecCredential") from error
        if certificate and key:
            _load_pair(self._tls, str(certificate).encode(), str(key).encode())
        self._value = f"Bearer {status['token']}" if status.get("token") else None
        self._expires = until


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach an API server."""

    server: str
    tls: ssl.SSLContext
    credentials: Credentials = field(default_factory=Credentials)
    namespace: str = "default"
    """Namespace of the context, or of our pod."""
    server_name: str | None = None
    """Name the server's certificate is for, when it is not the address's."""
    proxy: str | None = None


def connection(kubeconfig: Path | None = None, context: str | None = None) -> Connection:
    """Return the connection that a file, `$KUBECONFIG`, the pod, or `~/.kube/config` describes, in this order.

    Raises SpecError when there is none or it cannot be meant.
    """
    if kubeconfig is not None:
        return from_kubeconfig([kubeconfig], context)
    listed = [Path(item) for item in os.environ.get("KUBECONFIG", "").split(os.pathsep) if item]
    if listed:
        return from_kubeconfig(listed, context)
    if context is None and os.environ.get("KUBERNETES_SERVICE_HOST") and (SERVICE_ACCOUNT / "token").exists():
        return in_cluster()
    home = Path.home() / ".kube" / "config"
    if home.exists():
        return from_kubeconfig([home], context)
    raise SpecError("no Kubernetes cluster is configured; set KUBECONFIG or give a kubeconfig", code="no_cluster")


def in_cluster(folder: Path = SERVICE_ACCOUNT) -> Connection:
    """Return the connection of a pod's service account."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    tls = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    own = folder / "namespace"
    return Connection(
        f"https://{f'[{host}]' if ':' in host else host}:{port}",
        tls,
        FileToken(folder / "token"),
        own.read_text().strip() if own.exists() else "default",
    )


def from_kubeconfig(files: Sequence[Path], context: str | None = None) -> Connection:
    """Return the connection of a context (the current one by default); of several files the first that names wins."""
    found: dict[str, dict[str, tuple[dict[str, Any], Path]]] = {"clusters": {}, "users": {}, "contexts": {}}
    current = context
    for file in files:
        body = _read(file)
        current = current or body.get("current-context")
        for section, entries in found.items():
            for item in body.get(section) or ():
                entries.setdefault(item["name"], (item.get(section[:-1]) or {}, file.parent))
    if not current:
        raise SpecError("the kubeconfig has no current context; name one with --context", code="no_cluster")
    if current not in found["contexts"]:
        known = ", ".join(sorted(found["contexts"])) or "none"
        raise SpecError(f"the kubeconfig has no context {current!r}; it has {known}", code="no_cluster")
    chosen, _ = found["contexts"][current]
    for section in ("cluster", "user"):
        if chosen.get(section) not in found[f"{section}s"]:
            raise SpecError(f"context {current!r} names a {section} that is not there: {chosen.get(section)!r}")
    cluster, cluster_folder = found["clusters"][chosen["cluster"]]
    user, user_folder = found["users"][chosen["user"]]
    tls = _tls(cluster, cluster_folder)
    certificate, key = _data(user, "client-certificate", user_folder), _data(user, "client-key", user_folder)
    if certificate and key:
        _load_pair(tls, certificate, key)
    return Connection(
        str(cluster.get("server") or "").rstrip("/"),
        tls,
        _credentials(user, user_folder, cluster, tls),
        chosen.get("namespace") or "default",
        cluster.get("tls-server-name"),
        cluster.get("proxy-url"),
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        body = yaml.safe_load(file.read_text())
    except OSError as error:
        raise SpecError(f"the kubeconfig {file} cannot be read: {error.strerror}", code="no_cluster") from error
    except yaml.YAMLError as error:
        # The parser's message quotes the file, which holds credentials.
        raise SpecError(f"the kubeconfig {file} is not YAML", code="no_cluster") from error
    if not isinstance(body, dict):
        raise SpecError(f"the kubeconfig {file} is not a mapping", code="no_cluster")
    return body


def _credentials(user: Mapping[str, Any], folder: Path, cluster: Mapping[str, Any], tls: ssl.SSLContext) -> Credentials:
    if user.get("tokenFile"):
        return FileToken(folder / user["tokenFile"])
    if user.get("token"):
        return FixedToken(f"Bearer {user['token']}")
    if user.get("username") is not None:
        pair = f"{user['username']}:{user.get('password') or ''}".encode()
        return FixedToken(f"Basic {base64.b64encode(pair).decode()}")
    if user.get("exec"):
        return ExecToken(user["exec"], folder, cluster, tls)
    if user.get("auth-provider"):
        raise SpecError("auth-provider is gone from Kubernetes; use the provider's exec plugin", code="no_cluster")
    return Credentials()


def _tls(cluster: Mapping[str, Any], folder: Path) -> ssl.SSLContext:
    authority = _data(cluster, "certificate-authority", folder)
    tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
    if cluster.get("insecure-skip-tls-verify"):
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    return tls


def _data(section: Mapping[str, Any], name: str, folder: Path) -> bytes | None:
    """Return what stands in `<name>-data`, or in the file that `<name>` names."""
    try:
        if section.get(f"{name}-data"):
            return base64.b64decode(section[f"{name}-data"])
        return (folder / section[name]).read_bytes() if section.get(name) else None
    except (OSError, ValueError) as error:
        raise SpecError(f"{name} of the kubeconfig cannot be read", code="no_cluster") from error


def _load_pair(tls: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    # The ssl module takes a certificate from a file only; this one is gone again before anything is sent.
    with tempfile.NamedTemporaryFile() as file:
        file.write(certificate + b"\n" + key)
        file.flush()
        try:
            tls.load_cert_chain(file.name)
        except ssl.SSLError as error:
            raise SpecError("the client certificate and its key do not fit together", code="no_cluster") from error
