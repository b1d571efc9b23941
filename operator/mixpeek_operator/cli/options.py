"""Options that many commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Output(StrEnum):
    """How a command prints its answer."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


DEFAULT_SERVER = "http://127.0.0.1:7007"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Which server a command talks to, as its options say; `cli.client.connect` finds it."""

    server: Annotated[
        str | None,
        typer.Option("--server", help="Base URL of the server, or MIXPEEK_SERVER.", show_default=False),
    ] = None
    api_key: Annotated[
        str | None,
        typer.Option("--api-key", envvar="MIXPEEK_API_KEY", help="API key.", show_default=False),
    ] = None
    context: Annotated[
        str | None,
        typer.Option("--context", help="Context of the kubeconfig: the server of that cluster.", show_default=False),
    ] = None
    kube_namespace: Annotated[
        str | None,
        typer.Option("--kube-namespace", help="Kubernetes namespace it is installed in.", show_default=False),
    ] = None
    kubeconfig: Annotated[
        Path | None,
        typer.Option("--kubeconfig", help="Instead of KUBECONFIG or ~/.kube/config.", show_default=False),
    ] = None


def reaches_server(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with the fields of `Target` as options in the place of its parameter `at`."""
    own, options = inspect.signature(command, eval_str=True), inspect.signature(Target, eval_str=True)

    @functools.wraps(command)
    def run(**given: Any) -> None:
        at = Target(**{name: given.pop(name) for name in options.parameters})
        command(**given, at=at)

    parameters = [
        each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in own.parameters.items()
        for each in (options.parameters.values() if name == "at" else [parameter])
    ]
    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


NamespaceOption = Annotated[
    str | None,
    typer.Option("--namespace", "-n", envvar="MIXPEEK_NAMESPACE", help="Namespace, by name or id."),
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="table for a person, json or yaml for a program.")]
FilesArgument = Annotated[
    list[Path],
    typer.Argument(help="Manifest files or folders (every .yaml, .yml and .json in them).", exists=True),
]
