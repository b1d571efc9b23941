"""A real server in its own process, for benchmarks and end-to-end tests."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

KEY = "sk_benchmark_0123456789abcdef0123456789abcdef"


@dataclass(slots=True)
class Server:
    """Where a server is; `process` is replaced by `restart`."""

    url: str
    data: Path
    port: int
    process: subprocess.Popen[bytes]
    started_s: float
    """Seconds from the start of the process to the first healthy answer."""
    environment: dict[str, str]
    """Variables that it has beside ours."""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {KEY}"}

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it in good order."""
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=30)
        if self.process.poll() is None:
            self.kill()

    def restart(self, **environment: str) -> None:
        """Start it again on the same data and port, with these variables changed."""
        self.environment |= environment
        self.process, self.started_s = _start(self.data, self.port, self.environment)


@contextlib.contextmanager
def serving(data: Path, **environment: str) -> Iterator[Server]:
    """Run `mixpeekctl serve` on `data` and a free loopback port until the block ends."""
    port = free_port()
    process, started = _start(data, port, environment)
    server = Server(f"http://127.0.0.1:{port}", data, port, process, started, environment)
    try:
        yield server
    finally:
        server.stop()


def apply(client: httpx.Client, manifest: str) -> dict[str, Any]:
    """Apply a manifest and return the answer; raises when it did not succeed."""
    answer = client.post("/v1/manifest/apply", files={"manifest_file": ("m.yaml", manifest)}).raise_for_status()
    result: dict[str, Any] = answer.json()
    if not result["success"]:
        raise RuntimeError(f"apply failed: {result['errors']} {[r for r in result['resources'] if r.get('error')]}")
    return result


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(data: Path, port: int, environment: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], float]:
    data.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    with (data / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mixpeek_operator.cli", "serve", "--data", str(data), "--port", str(port)],
            stdout=log,
            stderr=log,
            env={**os.environ, "MIXPEEK_API_KEY": KEY, **environment},
            start_new_session=True,
        )
    # One client for all attempts: to make one costs as much time as a good part of the start.
    with httpx.Client(timeout=2) as probe:
        while time.perf_counter() - began < 180:
            if process.poll() is not None:
                raise RuntimeError(f"the server ended at start:\n{(data / 'server.log').read_text()[-4000:]}")
            with contextlib.suppress(httpx.HTTPError):
                if probe.get(f"http://127.0.0.1:{port}/v1/health").status_code == 200:
                    return process, time.perf_counter() - began
            time.sleep(0.02)
    process.kill()
    raise RuntimeError("the server was not healthy after 180 s")
