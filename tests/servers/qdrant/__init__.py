"""A Qdrant server for tests: a stand-in on Qdrant Edge, or a real one where `QDRANT_URL` is set."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.servers.process import Program, running


@contextlib.contextmanager
def standin(folder: Path, *options: str) -> Iterator[Program]:
    """Run the stand-in on `folder` until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)

    def command(port: int) -> list[str | Path]:
        module = [sys.executable, "-m", "tests.servers.qdrant"]
        return [*module, "--port", str(port), "--data", folder / "data", *options]

    with running(command, folder / "log") as server:
        yield server
