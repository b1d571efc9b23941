"""Printing: tables for a person, JSON and YAML for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import typer

from mixpeek_operator.cli.options import Output

_COLOURS = {
    "created": "green", "updated": "yellow", "create": "green", "update": "yellow", "replace": "red",
    "delete": "red", "failed": "red", "refused": "red", "error": "red", "warning": "yellow", "info": "cyan",
    "True": "green", "False": "red", "COMPLETED": "green", "FAILED": "red", "COMPLETED_WITH_ERRORS": "yellow",
    "drifted": "yellow", "unchanged": "dim", "exists": "dim", "skipped": "dim", "would_create": "green",
}  # fmt: skip


def emit(value: Any, output: Output) -> None:
    """Write `value` to stdout as JSON or YAML."""
    if output is Output.JSON:
        typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))
        return
    import yaml

    typer.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip("\n"))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> None:
    """Print a table; words that name an outcome are coloured on a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, title_style="bold")
    for column in columns:
        grid.add_column(column, overflow="fold", justify="right" if column.startswith("#") else "left")
    for row in rows:
        grid.add_row(*(_cell(value, Text) for value in row))
    width = None if sys.stdout.isatty() else 160
    Console(width=width, highlight=False).print(grid)


def say(message: str, *, colour: str | None = None) -> None:
    """Print one line to stdout."""
    typer.secho(message, fg=colour)


def warn(message: str) -> None:
    """Print one line to stderr."""
    typer.secho(message, fg="yellow", err=True)


def fail(message: str) -> None:
    """Print one error line to stderr."""
    typer.secho(message, fg="red", err=True)


def _cell(value: Any, text: Any) -> Any:
    shown = "" if value is None else str(value)
    return text(shown, style=_COLOURS.get(shown, ""))
