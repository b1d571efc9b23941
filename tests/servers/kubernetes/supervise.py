"""Runs one control plane for as long as any test process holds the lock `users`: `python -m … FOLDER`.

A process of its own, so that a test worker may end before the others, or be killed, without harm to them.
"""

from __future__ import annotations

import fcntl
import sys
from pathlib import Path

from tests.servers.kubernetes.control_plane import ControlPlane, write_state


def main(folder: Path) -> None:
    """Start, say where, wait for the last user to go, stop."""
    plane = ControlPlane(folder)
    try:
        plane.up()
        write_state(plane, folder / "state.json")
        with (folder / "users").open("ab") as users:
            fcntl.flock(users, fcntl.LOCK_EX)
            (folder / "state.json").unlink()
            plane.down()
    finally:
        plane.down()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
