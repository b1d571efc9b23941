"""A MariaDB of this machine (Debian: mariadb-server-core), on a free loopback port, with data in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pymysql
import pytest

from tests.servers.process import installed

PASSWORD = "a-password"
USER = "owner"


@contextlib.contextmanager
def mariadb() -> Iterator[int]:
    """Run a server until the block ends; its port. Skips the test where none can be installed."""
    installed("mariadbd")
    program = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("needs mariadbd (Debian: mariadb-server-core)")
    folder = Path(tempfile.mkdtemp(prefix="mariadb-", dir="/tmp"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "data" / "mysql").mkdir(parents=True)
    shown = Path(program).resolve().parent.parent / "share" / "mysql"
    common = [
        program, "--no-defaults", f"--datadir={folder / 'data'}", f"--lc-messages-dir={shown}", "--user=root",
        "--innodb-buffer-pool-size=16M", f"--socket={folder / 'socket'}", f"--pid-file={folder / 'pid'}",
    ]  # fmt: skip
    tables = [shown / name for name in ("mysql_system_tables.sql", "mysql_system_tables_data.sql")]
    setup = "CREATE DATABASE IF NOT EXISTS mysql;\nUSE mysql;\n" + "\n".join(path.read_text() for path in tables)
    setup += (
        f"\nFLUSH PRIVILEGES;\nCREATE DATABASE shop CHARACTER SET utf8mb4;\n"
        f"CREATE USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}';\n"
        f"GRANT ALL ON *.* TO '{USER}'@'%';\n"
    )
    try:
        bootstrap = [*common, "--bootstrap"]
        subprocess.run(bootstrap, input=setup.encode(), check=True, capture_output=True, cwd=folder)
        with (folder / "log").open("wb") as log:
            command = [*common, f"--port={port}", "--bind-address=127.0.0.1", "--skip-name-resolve"]
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=dict(os.environ))
        try:
            _await(process, port, folder / "log")
            yield port
        finally:
            process.terminate()
            process.wait(60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def connect(port: int) -> pymysql.connections.Connection:
    return pymysql.connect(
        host="127.0.0.1", port=port, user=USER, password=PASSWORD, database="shop", autocommit=True, ssl_disabled=True
    )


def _await(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(log.read_text())
        try:
            connect(port).close()
        except pymysql.err.OperationalError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
        else:
            return
    raise RuntimeError("MariaDB does not answer: " + log.read_text())
