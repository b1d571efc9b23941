"""Operators in processes of their own: started, killed, stopped, asked for their metrics."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.servers.mixpeek import free_port

# A fork server imports the operator once; each start after that takes a fraction of a second.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["mixpeek_operator.cli.operating", "qdrant_client"])


class OperatorProcess:
    """One replica, of the installation that `program` (a mixpeekctl) is part of, or of ours.

    `settings` are those of `Settings`, except the ports.
    """

    def __init__(self, folder: Path, kubeconfig: Path, *, program: Path | None = None, **settings: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._program = program
        self.log = folder / "operator.log"
        self._port = free_port()
        self._settings = {
            "kubeconfig": kubeconfig,
            "data": folder / "data",
            "lease_namespace": "default",
            "probe_port": self._port,
            "log_format": "json",
            **settings,
        }
        self._process: Any = None

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    def start(self, within_s: float = 180) -> None:
        """Start it and wait until it has read everything."""
        self.launch()
        end = time.monotonic() + within_s
        while time.monotonic() < end and self._process.is_alive():
            if self.ready():
                return
            time.sleep(0.02)
        raise RuntimeError(f"the operator is not ready:\n{self.log.read_text()[-4000:]}")

    def launch(self) -> None:
        """Start it and wait for nothing."""
        if self._program is None:
            given = (self.log, self._settings, dict(os.environ))
            self._process = _context.Process(target=_run, args=given, daemon=True)
            self._process.start()
        else:
            self._process = _Installed(self._program, self.log, self._settings)

    def kill(self) -> None:
        """End it as `kill -9` does."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None

    def stop(self, within_s: float = 30) -> int:
        """End it in good order and return its exit code."""
        os.kill(self.pid, signal.SIGTERM)
        self._process.join(within_s)
        code = self._process.exitcode
        self.kill()
        assert code is not None, f"it did not end within {within_s} s"
        return int(code)

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def ready(self) -> bool:
        """Whether it says that it is ready."""
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{self._port}/readyz", timeout=2).status_code == 200
        return False

    def metrics(self) -> dict[str, float]:
        """Return the sum of each metric over its labels; {} while it does not answer."""
        totals: dict[str, float] = {}
        for sample in self._samples():
            totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
        return totals

    def labelled(self, name: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and values of one metric."""
        return [(sample.labels, sample.value) for sample in self._samples() if sample.name == name]

    def _samples(self) -> list[Sample]:
        with contextlib.suppress(httpx.HTTPError):
            text = httpx.get(f"http://127.0.0.1:{self._port}/metrics", timeout=5).text
            return [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return []

    def leads(self) -> bool:
        """Whether it says that it reconciles."""
        return self.metrics().get("mixpeek_leading") == 1.0


class _Installed(subprocess.Popen[bytes]):
    """`mixpeekctl operator`, to be handled as a process of multiprocessing."""

    def __init__(self, program: Path, log: Path, settings: dict[str, Any]) -> None:
        environment = {f"MIXPEEK_{name.upper()}": str(value) for name, value in settings.items()}
        with log.open("ab") as out:
            super().__init__([program, "operator"], stdout=out, stderr=out, env={**os.environ, **environment})

    def is_alive(self) -> bool:
        return self.poll() is None

    def join(self, timeout: float | None = None) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(timeout)

    @property
    def exitcode(self) -> int | None:
        return self.poll()


@contextlib.contextmanager
def operating(folder: Path, kubeconfig: Path, **settings: Any) -> Iterator[OperatorProcess]:
    """Run an operator until the block ends."""
    process = OperatorProcess(folder, kubeconfig, **settings)
    try:
        process.start()
        yield process
    finally:
        process.kill()


def _run(log: Path, settings: dict[str, Any], environment: dict[str, str]) -> None:
    # The fork server's own is that of the moment it was started in.
    os.environ.update(environment)
    from mixpeek_operator.cli.operating import run

    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    run(**settings)
