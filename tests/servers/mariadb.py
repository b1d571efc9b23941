"""A MariaDB of this machine (Debian: mariadb-server-core), on a free loopback port, with data in a temporary folder."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pymysql
import pytest

from tests.servers.process import installed, running

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
        listening = [*common, "--bind-address=127.0.0.1", "--skip-name-resolve"]
        with running(lambda port: [*listening, f"--port={port}"], folder / "log") as server:
            yield server.port
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def connect(port: int) -> pymysql.connections.Connection:
    return pymysql.connect(
        host="127.0.0.1", port=port, user=USER, password=PASSWORD, database="shop", autocommit=True, ssl_disabled=True
    )
