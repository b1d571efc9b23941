"""Dedicated compute with the real KubeRay operator, where pods' addresses lead nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.servers.kubernetes.control_plane import REPOSITORY, Missing, programs
from tests.servers.kubernetes.kuberay import ray_operator, sandboxed


def test_kuberay_makes_changes_and_removes_what_a_namespace_declares(tmp_path: Path) -> None:
    try:
        programs()
        ray_operator()
        command = sandboxed(
            [
                *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"),
                *("--basetemp", str(tmp_path / "inside"), "tests/cluster/kuberay_checks.py"),
            ]
        )
    except Missing as missing:
        pytest.skip(str(missing))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=REPOSITORY, env=kept, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
