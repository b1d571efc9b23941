"""`python -m mixpeek_operator.generate [--check] [--root DIR]`: write the generated files, or name the stale ones."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mixpeek_operator.core.catalog import ExtractorInfo, StageInfo
from mixpeek_operator.core.registry import discover
from mixpeek_operator.core.settings import Settings
from mixpeek_operator.extraction.models.registry import ModelRegistry
from mixpeek_operator.extraction.registry import ExtractorRegistry
from mixpeek_operator.generate.files import generated, kind_schemas, stale, write
from mixpeek_operator.retrieval import stages
from mixpeek_operator.retrieval.stage import Stage


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 1 when `--check` finds a stale file."""
    parser = argparse.ArgumentParser(prog="python -m mixpeek_operator.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 and name the stale files")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the repository (default: here)")
    options = parser.parse_args(arguments)
    files = generated(kind_schemas(), _stages(), _extractors())
    if options.check:
        wrong = stale(options.root, files)
        for path in wrong:
            sys.stderr.write(f"stale: {path}\n")
        if wrong:
            sys.stderr.write("run `make generate` and commit what it writes\n")
        return 1 if wrong else 0
    for path in write(options.root, files):
        sys.stdout.write(f"wrote {path}\n")
    return 0


def _stages() -> Mapping[str, StageInfo]:
    return {name: stage.info for name, stage in discover(stages, "STAGE", Stage).items()}


def _extractors() -> Mapping[str, ExtractorInfo]:
    models = ModelRegistry(default=str(Settings.model_fields["embedding_model"].default))
    return {info.id: info for info in ExtractorRegistry(models).extractors().values()}


if __name__ == "__main__":
    sys.exit(main())
