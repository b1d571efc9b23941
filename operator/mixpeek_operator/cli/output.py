"""Printing: tables for a person, JSON and YAML for a program."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import typer

from mixpeek_operator.cli.options import Output

_GOOD = ("created", "create", "would_create", "True", "Ready", "Available", "COMPLETED", "succeeded", "passed")
_CHANGED = ("updated", "update", "warning", "drifted", "COMPLETED_WITH_ERRORS", "Warning")
_BAD = ("failed", "refused", "error", "False", "FAILED", "replace", "delete", "rolled_back", "missing")
_QUIET = ("unchanged", "exists", "skipped", "info")
_COLOURS = {
    word: colour
    for words, colour in ((_GOOD, "green"), (_CHANGED, "yellow"), (_BAD, "red"), (_QUIET, "dim"))
    for word in words
}
_GAP = 2
_LEAST = 16
"""Columns of characters that a cut text keeps at least."""


def emit(value: Any, output: Output) -> None:
    """Write `value` to stdout as JSON or YAML."""
    if output is Output.JSON:
        typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))
        return
    import yaml

    typer.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120).rstrip("\n"))


def screen_width() -> int | None:
    """Return the columns of the terminal (or of COLUMNS), None when nobody looks and lines may be of any length."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit():
        return shutil.get_terminal_size().columns
    return None


def table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None, spare: Sequence[str] = ()
) -> None:
    """Print a table; words that name an outcome are coloured on a terminal.

    On a narrow terminal the columns named in `spare` are left out, the first of them first, and then the last
    column is folded into lines.
    """
    shown = [["" if value is None else str(value) for value in row] for row in rows]
    names = list(columns)
    width = screen_width()
    for name in spare:
        if width is not None and name in names and _natural(names, shown) > width:
            place = names.index(name)
            names.pop(place)
            shown = [[*row[:place], *row[place + 1 :]] for row in shown]
    _print(names, shown, title, width)


def cards(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None, width: int = 120) -> None:
    """Print one line per row and nothing folded: long texts are cut, and columns that do not fit left out.

    `width` is for when nobody looks; a terminal knows its own.
    """
    shown = [["" if value is None else " ".join(str(value).split()) for value in row] for row in rows]
    names = list(columns)
    room = screen_width() or width
    while len(names) > 1:
        widths = _widths(names, shown)
        longest = max(range(len(names)), key=lambda place: widths[place])
        over = sum(widths) + _GAP * (len(widths) - 1) - room
        if over <= 0:
            break
        left = widths[longest] - over
        if left >= _LEAST:
            shown = [[_cut(cell, left) if i == longest else cell for i, cell in enumerate(row)] for row in shown]
            break
        names.pop()
        shown = [row[:-1] for row in shown]
    _print(names, shown, title, room)


def say(message: str, *, colour: str | None = None) -> None:
    """Print one line to stdout."""
    typer.secho(message, fg=colour)


def warn(message: str) -> None:
    """Print one line to stderr."""
    typer.secho(message, fg="yellow", err=True)


def fail(message: str) -> None:
    """Print one error line to stderr."""
    typer.secho(message, fg="red", err=True)


def counted(number: int, plural: str) -> str:
    """Return `1 bucket`, `2 buckets`, `1 taxonomy`, `1 batch`."""
    if number == 1:
        for ending, one in (("ies", "y"), ("ches", "ch"), ("s", "")):
            if plural.endswith(ending):
                return f"1 {plural.removesuffix(ending)}{one}"
    return f"{number} {plural}"


def _print(names: Sequence[str], rows: Sequence[Sequence[str]], title: str | None, width: int | None) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if title:
        typer.secho(title, bold=True)
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for place, name in enumerate(names):
        last = place == len(names) - 1
        numbers = bool(rows) and all(_is_number(row[place]) for row in rows)
        grid.add_column(name, overflow="fold", no_wrap=not last, justify="right" if numbers else "left")
    for row in rows:
        grid.add_row(*(Text(cell, style=_COLOURS.get(cell, "")) for cell in row))
    Console(width=width or max(_natural(names, rows) + 8, 40), highlight=False).print(grid)


def _widths(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    from rich.cells import cell_len

    return [
        max(cell_len(name), *(cell_len(line) for row in rows for line in row[place].split("\n")), 0)
        for place, name in enumerate(names)
    ]


def _natural(names: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    return sum(_widths(names, rows)) + _GAP * (len(names) - 1)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1].rstrip()}…"


def _is_number(text: str) -> bool:
    try:
        float(text.removesuffix(" ms"))
    except ValueError:
        return False
    return True
