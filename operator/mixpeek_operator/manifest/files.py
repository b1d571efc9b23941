"""Which files a path means: a manifest itself, or every manifest in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mixpeek_operator.core.errors import BadRequestError

SUFFIXES = (".yaml", ".yml", ".json")


def manifest_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files to read; folders are walked in name order. Raises BadRequestError when there is none."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(item for item in path.rglob("*") if item.suffix in SUFFIXES and item.is_file())
        else:
            found.append(path)
    if not found:
        raise BadRequestError(f"no manifest ({', '.join(SUFFIXES)}) in {', '.join(map(str, paths))}")
    return found
