"""A server program on a free loopback port: started, waited for, killed, started again, stopped."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.servers.mixpeek import free_port

_HERE = Path(__file__).parent
_START_S = 120
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_libc = ctypes.CDLL(None, use_errno=True)


def installed(name: str) -> Path:
    """Return the folder of a server's program, installed when it is not there; skips the test when it cannot be."""
    done = subprocess.run([_HERE / "install.sh", name], capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    if done.returncode != 0:
        raise RuntimeError(f"installing {name} failed:\n{done.stderr[-4000:]}")
    return Path(done.stdout.strip())


class Program:
    """One program that listens on `host`; `command` gives its command line for a port."""

    def __init__(self, command: Callable[[int], Sequence[str | Path]], log: Path, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = free_port()
        self._command = command
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it takes connections. RuntimeError with its log when it dies."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(part) for part in self._command(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # A test run that is killed leaves nothing behind.
                preexec_fn=lambda: _libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL),
            )
        end = time.monotonic() + _START_S
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1):
                return
            time.sleep(0.02)
        self.kill()
        raise RuntimeError(f"{self._command(self.port)[0]} did not start:\n{self._log.read_text()[-4000:]}")

    def kill(self) -> None:
        """End it as `kill -9` does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Let it hang: connections are taken by the kernel and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End a pause."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def running(command: Callable[[int], Sequence[str | Path]], log: Path, host: str = "127.0.0.1") -> Iterator[Program]:
    """Run a program until the block ends."""
    program = Program(command, log, host)
    try:
        program.start()
        yield program
    finally:
        program.kill()
