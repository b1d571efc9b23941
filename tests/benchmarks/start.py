"""Start of the command line, and of a server until it is healthy."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.measure import Row, timed
from tests.servers.mixpeek import serving


def run(quick: bool) -> list[Row]:
    """Measure both starts, of code that is compiled: as pip leaves it, and the first start makes it."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    bare = timed(lambda: _python("-c", "pass"), repeat=5 if quick else 15, warm_up=1)
    help_ = timed(lambda: _python("-m", "mixpeek_operator.cli", "--help"), repeat=5 if quick else 15, warm_up=1)
    starts = []
    with tempfile.TemporaryDirectory() as folder:
        for index in range(3 if quick else 6):
            with serving(Path(folder) / str(index)) as server:
                starts.append(server.started_s)
    starts = sorted(starts[1:])
    return [
        Row(
            "mixpeekctl --help",
            f"{help_.median:.2f} s (p99 {help_.p99:.2f})",
            f"{bare.median:.2f} s (python -c pass)",
            f"{help_.median:.2f} s",
            "0.3 s",
        ),
        Row("serve until healthy", f"{starts[len(starts) // 2]:.2f} s", "–", f"{starts[-1]:.2f} s at most", "3 s"),
    ]


def _python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
