"""`python -m tests.e2e.pause PROGRAM ARCHIVE`: the image of the container that holds a pod's namespaces."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from tests.e2e.images import Image, pack

if __name__ == "__main__":
    program, archive = (Path(argument) for argument in sys.argv[1:])
    if not archive.exists():
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(program, Path(folder, "pause"))
            Path(folder).chmod(0o755)
            pack(Image(Path(folder), "", entrypoint=["/pause"], user="65535"), "localhost/pause:e2e", archive)
