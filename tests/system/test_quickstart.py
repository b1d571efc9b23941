"""The quickstart as a stranger runs it: the answers a person would expect, and a second run that changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.system.conftest import eventually

ROOT = Path(__file__).parents[2]
COLUMNS = 80


def command() -> list[str]:
    return [sys.executable, "-m", "examples.quickstart"]


def environment(state: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MIXPEEK_")}
    return {**kept, "MIXPEEK_QUICKSTART_DATA": str(state), "COLUMNS": str(COLUMNS)}


def run(state: Path) -> str:
    """Run the quickstart and return what it prints to stdout."""
    ran = subprocess.run(
        command(), capture_output=True, text=True, cwd=ROOT, env=environment(state), timeout=400, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def answers(printed: str, title: str) -> list[str]:
    """Return the lines of the table under a title."""
    _, _, after = printed.partition(title)
    lines = after.splitlines()
    return lines[3 : lines.index("", 1)]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quickstart")


@pytest.fixture(scope="module")
def first(state: Path) -> str:
    return run(state)


@pytest.mark.slow
def test_the_answers_are_what_a_person_expects(first: str) -> None:
    soup = answers(first, "“keep soup hot on a hike”")
    assert "Vacuum food flask" in soup[0]
    assert len(soup) == 5
    assert all(float(line.split()[-1]) <= 50 for line in soup)

    pan = answers(first, "“my pan is rusty, can it be saved?”")
    assert [line.split()[2] for line in pan[:3]] == ["cast-iron"] * 3

    stars = answers(first, "“a child who watches the moon and the stars”")
    assert "Telescope, 70 mm (149.0 EUR)" in stars[0]
    assert "The Paper Mill, Italy" in stars[0]
    assert stars[0].split()[-1] == "5"
    for line in stars:
        assert "None" not in line
        assert "{{" not in line


@pytest.mark.slow
def test_it_fits_the_screen_and_says_how_to_go_on(first: str, state: Path) -> None:
    tables = first[: first.index("Go on with")].replace(str(state), "")
    assert max(map(len, tables.splitlines())) <= COLUMNS
    assert "created" in first
    assert "execute gift_finder" in first
    assert f"serve --data {state / 'data'}" in first
    assert "Traceback" not in first


@pytest.mark.slow
def test_a_second_run_changes_nothing(first: str, state: Path) -> None:
    before = len((state / "server.log").read_text())
    second = run(state)
    assert "10 resources unchanged" in second
    for bucket, held in (("products", 210), ("suppliers", 10), ("guides", 8)):
        assert f"{bucket}: {held} objects, ingested by an earlier run" in second
    for title in ("“keep soup hot on a hike”", "“my pan is rusty, can it be saved?”", "“a child who watches"):
        assert answers(first, title) == answers(second, title)
    log = (state / "server.log").read_text()[before:]
    assert "objects/batch" not in log
    assert "/submit" not in log
    assert "/uploads" not in log
    assert '"event":"acting"' not in log


@pytest.mark.slow
@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_broken_off_leaves_no_server_behind(tmp_path: Path, with_signal: signal.Signals) -> None:
    with (tmp_path / "printed").open("wb") as sink:
        running = subprocess.Popen(
            command(), stdout=sink, stderr=sink, cwd=ROOT, env=environment(tmp_path), start_new_session=True
        )
    lock = tmp_path / "data" / "lock"
    try:
        pid = eventually(lambda: int(lock.read_text() or 0) if lock.exists() else 0)
        assert pid
        time.sleep(1)
        running.send_signal(with_signal)
        assert running.wait(timeout=25) in (0, 143)
    finally:
        running.kill()
        running.wait()
    assert not Path(f"/proc/{pid}").exists()
    assert "Traceback" not in (tmp_path / "printed").read_text()
