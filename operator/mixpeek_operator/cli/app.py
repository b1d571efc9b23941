"""`mixpeekctl`: declare, ingest and search from a terminal.

Exit codes of every command: 0 yes, 1 the answer is no (different, invalid, failed, timed out), 2 an error.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from mixpeek_operator import __version__
from mixpeek_operator.cli.commands import data, manifests, operator, resources, search, server

HELP = """Declare a multimodal search system in YAML, ingest into it and search it.

Commands that talk to a server find it by --server; --context, --kube-namespace or --kubeconfig, in a cluster;
MIXPEEK_SERVER; the local server if one listens; the kubeconfig's current context. They authenticate with
--api-key, MIXPEEK_API_KEY or, in a cluster, the Secret of the chart.

Exit codes: 0 yes; 1 the answer is no (different, invalid, failed, timed out); 2 an error."""

app = typer.Typer(
    name="mixpeekctl", help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"mixpeekctl {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Declare a multimodal search system in YAML, ingest into it and search it."""


for _group in (server, operator, manifests, resources, data, search):
    _group.register(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: run a command; an error becomes one line on stderr and exit code 2, never a traceback."""
    from mixpeek_operator.core.errors import MixpeekError, SpecError

    try:
        app(arguments)
    except SpecError as error:
        lines = [str(problem) for problem in error.problems] or [str(error)]
        sys.stderr.write("".join(f"error: {line}\n" for line in lines))
        sys.exit(2)
    except MixpeekError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"error: {place}{error.strerror or error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
