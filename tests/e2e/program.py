"""`python -m tests.e2e.program PROGRAM PATH TAG ARCHIVE`: an image that holds one static program, at PATH."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from tests.e2e.archive import Image, pack

if __name__ == "__main__":
    program, path, tag, archive = sys.argv[1:]
    out = Path(archive)
    if not out.exists() or out.stat().st_mtime < Path(program).stat().st_mtime:
        with tempfile.TemporaryDirectory() as folder:
            layer = Path(folder, "layer")
            layer.mkdir(mode=0o755)
            shutil.copy(program, layer / path.lstrip("/"))
            with out.with_suffix(".part").open("wb") as file:
                pack({tag: Image([layer], "", entrypoint=[path], user="65532")}, file)
            out.with_suffix(".part").replace(out)
