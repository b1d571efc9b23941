"""Options that many commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Output(StrEnum):
    """How a command prints its answer."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


DEFAULT_SERVER = "http://127.0.0.1:7007"

ServerOption = Annotated[
    str,
    typer.Option("--server", envvar="MIXPEEK_SERVER", help="Base URL of the server."),
]
KeyOption = Annotated[
    str | None,
    typer.Option("--api-key", envvar="MIXPEEK_API_KEY", help="API key.", show_default=False),
]
NamespaceOption = Annotated[
    str | None,
    typer.Option("--namespace", "-n", envvar="MIXPEEK_NAMESPACE", help="Namespace, by name or id."),
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="table for a person, json or yaml for a program.")]
FilesArgument = Annotated[
    list[Path],
    typer.Argument(help="Manifest files or folders (every .yaml, .yml and .json in them).", exists=True),
]
