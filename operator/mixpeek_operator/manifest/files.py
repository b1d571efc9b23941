"""Which files a path means: a manifest itself, or every manifest in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mixpeek_operator.core.errors import BadRequestError

SUFFIXES = (".yaml", ".yml", ".json")


def is_manifest(file: Path, *, root: Path) -> bool:
    """Return whether a file below `root` is read as a manifest: by its ending, and never in a hidden folder."""
    inside = file.relative_to(root) if file.is_relative_to(root) else file.resolve().relative_to(root.resolve())
    return file.suffix in SUFFIXES and not any(part.startswith(".") for part in inside.parts)


def manifest_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files to read; folders are walked in name order, hidden ones left out.

    Raises BadRequestError when there is none.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(item for item in path.rglob("*") if is_manifest(item, root=path) and item.is_file())
        else:
            found.append(path)
    if not found:
        raise BadRequestError(f"no manifest ({', '.join(SUFFIXES)}) in {', '.join(map(str, paths))}")
    return found
