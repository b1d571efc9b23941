"""Fixtures of a real control plane: a shared one to use, and private ones to break."""

from __future__ import annotations

import fcntl
import itertools
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.kubernetes.control_plane import REPOSITORY, ControlPlane, Missing, Shared, programs, read_state

_START_S = 180
_numbers = itertools.count()
_supervisors: list[subprocess.Popen[bytes]] = []
"""Those that this process started: they outlive it where other workers still need them."""


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The control plane of this test run, one for all of its workers; tests keep to namespaces of their own.

    `MIXPEEK_TEST_CONTROL_PLANE` names the folder of one that `supervise` keeps running: short turns for developers.
    """
    if running := os.environ.get("MIXPEEK_TEST_CONTROL_PLANE"):
        state = read_state(Path(running) / "state.json")
        assert state is not None, f"no control plane is running in {running}"
        yield Shared(Path(running), state)
        return
    try:
        programs()
    except Missing as missing:
        pytest.skip(str(missing))
    base = tmp_path_factory.getbasetemp()
    # Under xdist every worker has a folder of its own inside the run's.
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "control-plane"
    folder.mkdir(exist_ok=True)
    with (folder / "users").open("ab") as users:
        with (folder / "start").open("ab") as start:
            fcntl.flock(start, fcntl.LOCK_EX)
            fcntl.flock(users, fcntl.LOCK_SH)
            state = read_state(folder / "state.json") or _supervised(folder)
        yield Shared(folder, state)


@pytest.fixture
def private_control_plane(control_plane: ControlPlane, tmp_path: Path) -> Iterator[ControlPlane]:
    """A control plane of this test's own, whose parts it may stop and kill."""
    plane = ControlPlane(tmp_path / "control-plane")
    try:
        plane.up()
        yield plane
    finally:
        plane.down()


@pytest.fixture
def kubernetes_namespace(control_plane: ControlPlane) -> Iterator[Callable[[], str]]:
    """Makes namespaces that end with the test."""
    made: list[str] = []

    def make() -> str:
        name = f"test-{next(_numbers)}-{uuid.uuid4().hex[:8]}"
        control_plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        made.append(name)
        return name

    yield make
    for name in made:
        control_plane.request("DELETE", f"/api/v1/namespaces/{name}")


def _supervised(folder: Path) -> dict[str, str]:
    log = folder / "supervisor.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.servers.kubernetes.supervise", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=REPOSITORY,
            start_new_session=True,
        )
    _supervisors.append(process)
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        state = read_state(folder / "state.json")
        if state is not None:
            return state
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"the control plane did not start:\n{log.read_text()[-4000:]}")
