"""A PostgreSQL of the package pgserver, on a free loopback port, with its data in a temporary folder."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.servers.mixpeek import free_port

PASSWORD = "a-password"
USER = "owner"
_NOBODY = 65534


def binaries() -> Path:
    """Return the folder of the server's programs; skips the test when the package is not there."""
    spec = importlib.util.find_spec("pgserver")
    if spec is None or spec.origin is None:
        pytest.skip("needs the package pgserver")
    return Path(spec.origin).parent / "pginstall" / "bin"


@contextlib.contextmanager
def postgres() -> Iterator[int]:
    """Run a server until the block ends; its port. PostgreSQL refuses to run as root, so then it runs as nobody."""
    programs = binaries()
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))
    user = _NOBODY if os.geteuid() == 0 else None
    if user is not None:
        os.chown(folder, user, user)
    port = free_port()
    data, secret = folder / "data", folder / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C"}
    initdb = [
        programs / "initdb",
        "-D",
        data,
        "-U",
        USER,
        f"--pwfile={secret}",
        "--auth=scram-sha-256",
        "-N",
        "-E",
        "UTF8",
    ]
    try:
        subprocess.run(initdb, check=True, capture_output=True, user=user, group=user, env=environment, cwd=folder)
        command = [
            programs / "postgres", "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1",
            "-c", f"unix_socket_directories={folder}", "-c", "fsync=off", "-c", "shared_buffers=16MB",
        ]  # fmt: skip
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, user=user, group=user, env=environment, cwd=folder
            )
        try:
            _await(process, port, folder / "log")
            yield port
        finally:
            process.terminate()
            process.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def connect(port: int) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(
        host="127.0.0.1", port=port, dbname="postgres", user=USER, password=PASSWORD, autocommit=True
    )


def _await(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(log.read_text())
        try:
            connect(port).close()
        except psycopg.OperationalError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
        else:
            return
    raise RuntimeError("PostgreSQL does not answer: " + log.read_text())
