"""A real Ray cluster of one node in its own processes, with its dashboard."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.servers.mixpeek import free_port

START_S = 180.0
TOKEN = secrets.token_hex(16)
"""One for all clusters of this process: Ray reads it once, when it is imported."""


@dataclass(frozen=True, slots=True)
class RayCluster:
    """Where a cluster is, and what its clients need in their environment."""

    address: str
    dashboard_url: str
    token: str
    environment: dict[str, str]


@contextlib.contextmanager
def ray_cluster(*, cpus: int = 2, **environment: str) -> Iterator[RayCluster]:
    """Run a cluster until the block ends; its processes have `environment`. Its token authentication is on."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # Ray's sockets need a short path
    given = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))),
        "MIXPEEK_TEST_CLUSTER": str(folder),
        **environment,
    }
    try:
        for attempt in range(3):
            process, port, dashboard = _start(folder / str(attempt), cpus, {**os.environ, **given})
            try:
                # Ray gives a node 30 seconds to come up, too few on a machine that is busy.
                if _is_up(process, f"http://127.0.0.1:{dashboard}"):
                    yield RayCluster(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", TOKEN, given)
                    return
            finally:
                _end(process, str(folder))
        raise RuntimeError(f"Ray did not start:\n{(folder / str(attempt) / 'log').read_text()[-4000:]}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, cpus: int, environment: dict[str, str]) -> tuple[subprocess.Popen[bytes], int, int]:
    folder.mkdir()
    port, dashboard, agent, client = (free_port() for _ in range(4))
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--disable-usage-stats",
        "--node-ip-address=127.0.0.1", f"--port={port}", f"--num-cpus={cpus}",
        f"--object-store-memory={100 * 2**20}", f"--temp-dir={folder}", f"--ray-client-server-port={client}",
        "--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={agent}",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    return process, port, dashboard


def _is_up(process: subprocess.Popen[bytes], url: str) -> bool:
    began = time.monotonic()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    while time.monotonic() - began < START_S and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/api/jobs/", headers=headers, timeout=5).status_code == 200:
                return True
        time.sleep(0.2)
    return False


def _end(process: subprocess.Popen[bytes], mark: str) -> None:
    """End the cluster in order, and whoever of it then still runs at once: Ray's processes leave their session."""
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=30)
    while left := processes(mark):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.poll()
        time.sleep(0.1)
    process.wait()


def processes(mark: str) -> list[int]:
    """Ids of the processes that have `mark` in their environment, this one left out."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes() and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return found
