"""The servers behind the production adapters: FerretDB for MongoDB, Redis, S3Proxy for S3."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tests.servers.process import Program, installed, running

ACCESS_KEY, SECRET_KEY = "test", "testtesttest"
_S3PROXY = """
s3proxy.endpoint=http://{host}:{port}
s3proxy.authorization=aws-v2-or-v4
s3proxy.identity={access_key}
s3proxy.credential={secret_key}
jclouds.provider=filesystem-nio2
jclouds.identity=unused
jclouds.credential=unused
jclouds.filesystem.basedir={folder}
"""


@contextlib.contextmanager
def ferretdb(folder: Path, host: str = "127.0.0.1") -> Iterator[Program]:
    """Run a MongoDB-wire server that keeps its databases in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    program = installed("ferretdb") / "ferretdb"
    with running(lambda port: [program, f"{host}:{port}", folder / "data"], folder / "log", host) as server:
        yield server


@contextlib.contextmanager
def redis(folder: Path, host: str = "127.0.0.1") -> Iterator[Program]:
    """Run a Redis that keeps nothing on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    installed("redis-server")
    options = ["--save", "", "--appendonly", "no", "--protected-mode", "no", "--bind", host, "--dir", str(folder)]
    with running(lambda port: ["redis-server", "--port", str(port), *options], folder / "log", host) as server:
        yield server


@contextlib.contextmanager
def s3proxy(folder: Path, host: str = "127.0.0.1") -> Iterator[Program]:
    """Run an S3 server on the file system with the bucket `test`."""
    (folder / "data" / "test").mkdir(parents=True, exist_ok=True)
    jar = installed("s3proxy") / "s3proxy"

    def command(port: int) -> list[str | Path]:
        settings = folder / "s3proxy.conf"
        settings.write_text(
            _S3PROXY.format(host=host, port=port, access_key=ACCESS_KEY, secret_key=SECRET_KEY, folder=folder / "data")
        )
        return ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-jar", jar, "--properties", settings]

    with running(command, folder / "log", host) as server:
        yield server


@contextlib.contextmanager
def s3_credentials() -> Iterator[None]:
    """Put the credentials of `s3proxy` where every client of S3 looks."""
    ours = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": "us-east-1"}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
