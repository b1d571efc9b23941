"""`serve` and `up`: run the whole system in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixpeek_operator.cli.options import FilesArgument

DataOption = Annotated[Path | None, typer.Option("--data", help="Directory of the embedded stores.")]
HostOption = Annotated[str | None, typer.Option("--host", help="Address to listen on.")]
PortOption = Annotated[int | None, typer.Option("--port", help="Port to listen on; 0 picks a free one.")]
EngineOption = Annotated[
    str | None, typer.Option("--engine", help="What runs extractors: local, this process; or ray, started if need be.")
]


def serve(
    data: DataOption = None, host: HostOption = None, port: PortOption = None, engine: EngineOption = None
) -> None:
    """Run the system until told to stop. The first start prints an API key once."""
    from mixpeek_operator.cli.serving import run

    run(data=data, host=host, port=port, engine=engine)


def up(
    files: FilesArgument,
    data: DataOption = None,
    host: HostOption = None,
    port: PortOption = None,
    engine: EngineOption = None,
) -> None:
    """Serve, apply the files, and apply them again whenever they change."""
    from mixpeek_operator.cli.serving import run

    run(data=data, host=host, port=port, engine=engine, watch=list(files))


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (serve, up):
        app.command()(command)
