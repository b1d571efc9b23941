"""Helm from its Go module, and what our chart renders to."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.servers.kubernetes.control_plane import HERE, REPOSITORY, Missing

KUBERNETES = "--kube-version=1.36.0"
"""Without a cluster Helm takes the version it was built for, and one built from its module was built for none."""
CHART = REPOSITORY / "charts" / "mixpeek-operator"


@cache
def program() -> Path:
    """Return Helm, built when it is not there. Raises Missing."""
    built = subprocess.run([HERE / "build.sh", "helm"], capture_output=True, text=True)
    if built.returncode == 3:
        raise Missing(built.stderr.strip().splitlines()[-1])
    if built.returncode != 0:
        raise RuntimeError(f"building Helm failed:\n{built.stderr[-4000:]}")
    return Path(built.stdout.strip()) / "helm"


def helm(*arguments: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run Helm and return how it ended."""
    return subprocess.run([program(), *arguments], input=stdin, capture_output=True, text=True, timeout=300)


def render(
    values: dict[str, Any] | None = None, *arguments: str, release: str = "mixpeek", namespace: str = "mixpeek-system"
) -> list[dict[str, Any]]:
    """Return the objects of the chart with these values. Raises AssertionError with what Helm says."""
    done = helm(
        *("template", release, CHART, "--namespace", namespace, "--values", "-", KUBERNETES, *arguments),
        stdin=yaml.safe_dump(values or {}),
    )
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.load_all(done.stdout, yaml.CSafeLoader) if document]
