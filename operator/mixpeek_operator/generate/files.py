"""The generated files: what each holds, writing them, and finding the stale ones."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path

import yaml

from mixpeek_operator import kinds
from mixpeek_operator.core.catalog import ExtractorInfo, StageInfo
from mixpeek_operator.core.errors import InternalError
from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.core.settings import Settings
from mixpeek_operator.generate.crds import definition
from mixpeek_operator.generate.install import CHART_FILES, install_files
from mixpeek_operator.generate.pages import extractor_page, index_page, kind_page, settings_page, stage_page

FOLDERS = ("crds", "docs/reference", CHART_FILES)
"""Folders that hold nothing but generated files."""
_HEADER = "# Generated from the models by `make generate`; edit them, not this file.\n"


def kind_schemas() -> dict[str, KindSchema]:
    """Return every kind's schema by module name; imports the `spec` modules only."""
    found: dict[str, KindSchema] = {}
    for info in sorted(pkgutil.iter_modules(kinds.__path__), key=lambda item: item.name):
        if info.name.startswith("_") or not info.ispkg:
            continue
        schema = getattr(importlib.import_module(f"{kinds.__name__}.{info.name}.spec"), "SCHEMA", None)
        if not isinstance(schema, KindSchema):
            raise InternalError(f"kinds/{info.name}/spec.py must define SCHEMA of type KindSchema")
        found[info.name] = schema
    return found


def generated(
    schemas: Mapping[str, KindSchema], stages: Mapping[str, StageInfo], extractors: Mapping[str, ExtractorInfo]
) -> dict[str, str]:
    """Return path → text of every generated file."""
    files: dict[str, str] = {}
    for module, kind in schemas.items():
        document = yaml.safe_dump(definition(kind), sort_keys=False, width=110, allow_unicode=True)
        files[f"crds/{kind.plural}.yaml"] = _HEADER + document
        files[f"docs/reference/{module}.md"] = kind_page(kind)
    definitions = {path: text for path, text in files.items() if path.startswith("crds/")}
    files |= install_files(schemas, definitions, _HEADER)
    entries = [
        (kind.name, f"{module}.md", (kind.spec.__doc__ or "").strip().splitlines()[0])
        for module, kind in schemas.items()
    ]
    for name, stage in sorted(stages.items()):
        files[f"docs/reference/stages/{name}.md"] = stage_page(stage)
        entries.append((f"stage {name}", f"stages/{name}.md", stage.description.split("\n")[0]))
    for name, info in sorted(extractors.items()):
        files[f"docs/reference/extractors/{name}.md"] = extractor_page(info)
        entries.append((f"{info.name}@{info.version}", f"extractors/{name}.md", info.description.split("\n")[0]))
    files["docs/reference/settings.md"] = settings_page(Settings)
    entries.append(("Settings", "settings.md", "Environment variables of a server."))
    files["docs/reference/index.md"] = index_page("Reference", entries)
    return files


def stale(root: Path, files: Mapping[str, str]) -> list[str]:
    """Return the paths that are missing, differ, or should not be there."""
    wrong = {path for path, text in files.items() if not (root / path).is_file() or (root / path).read_text() != text}
    return sorted(wrong | _left_over(root, files))


def write(root: Path, files: Mapping[str, str]) -> list[str]:
    """Write what changed and delete what is left over; return the paths touched."""
    touched = stale(root, files)
    for path in touched:
        target = root / path
        if path not in files:
            target.unlink()
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(files[path])
    return touched


def _left_over(root: Path, files: Mapping[str, str]) -> set[str]:
    present: set[str] = set()
    for folder in FOLDERS:
        present |= {path.relative_to(root).as_posix() for path in (root / folder).rglob("*") if path.is_file()}
    return {path for path in present - files.keys() if path.endswith((".md", ".yaml"))}
