"""`execute` and `explain`: ask a retriever from a terminal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from mixpeek_operator.cli.options import (
    NamespaceOption,
    Output,
    OutputOption,
    Target,
    reaches_server,
)

RetrieverArgument = Annotated[str, typer.Argument(help="Retriever, by name or id.")]
InputOption = Annotated[
    list[str], typer.Option("--input", "-i", help="Input, NAME=VALUE; JSON values keep their type.")
]
_HIDDEN = {
    "_internal",
    "features",
    "document_id",
    "collection_id",
    "score",
    "root_object_id",
    "lineage_path",
    "vectors",
}


def inputs_of(pairs: list[str]) -> dict[str, Any]:
    """Return the inputs of `NAME=VALUE` pairs; numbers, booleans, lists and objects are read as JSON."""
    from mixpeek_operator.core.errors import BadRequestError

    values: dict[str, Any] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator:
            raise BadRequestError(f"--input takes NAME=VALUE, got {pair!r}")
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            values[name] = text
    return values


@reaches_server
def execute(
    retriever: RetrieverArgument,
    input_: InputOption = [],  # noqa: B006
    filters: Annotated[str | None, typer.Option("--filters", help="Filter, as JSON.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Documents to return.")] = 10,
    namespace: NamespaceOption = None,
    *,
    at: Target,
    output: OutputOption = Output.TABLE,
) -> None:
    """Run a retriever and print what it found."""
    from mixpeek_operator.cli import output as out
    from mixpeek_operator.cli.client import connect, quoted
    from mixpeek_operator.core.errors import BadRequestError

    body: dict[str, Any] = {"inputs": inputs_of(input_), "limit": limit}
    if filters:
        try:
            body["filters"] = json.loads(filters)
        except json.JSONDecodeError as error:
            raise BadRequestError(f"--filters is not JSON: {error.msg} at column {error.colno}") from error
    with connect(at) as client:
        answer = client.post(f"/v1/retrievers/{quoted(retriever)}/execute", body, namespace=namespace)
    if output is not Output.TABLE:
        out.emit(answer, output)
        return
    if answer["documents"]:
        print_documents(answer["documents"])
    stages = (answer.get("stage_statistics") or {}).get("stages") or {}
    timings = ", ".join(f"{name} {value.get('duration_ms', 0):.1f} ms" for name, value in stages.items())
    out.say(
        f"{out.counted(len(answer['documents']), 'documents')}, {answer.get('status')}; {timings}",
        colour="bright_black",
    )


def print_documents(
    documents: list[dict[str, Any]], *, title: str | None = None, fields: Sequence[str] | None = None
) -> None:
    """Print documents one a line: the score, then `fields`, or else what most of them have, as far as it fits."""
    from mixpeek_operator.cli import output as out

    if fields is None:
        found = Counter(name for document in documents for name in document if not _is_hidden(name))
        fields = [name for name, _ in found.most_common()]
    rows = []
    for position, document in enumerate(documents, 1):
        score = document.get("score")
        shown = [_text(document.get(name)) for name in fields]
        rows.append((position, f"{score:.3f}" if isinstance(score, int | float) else "", *shown))
    out.cards(["#", "SCORE", *(name.upper() for name in fields)], rows, title=title)


@reaches_server
def explain(
    retriever: RetrieverArgument,
    input_: InputOption = [],  # noqa: B006
    namespace: NamespaceOption = None,
    *,
    at: Target,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show how a retriever would run, without running it."""
    from mixpeek_operator.cli import output as out
    from mixpeek_operator.cli.client import connect, quoted

    with connect(at) as client:
        answer = client.post(
            f"/v1/retrievers/{quoted(retriever)}/explain", {"inputs": inputs_of(input_)}, namespace=namespace
        )
    if output is not Output.TABLE:
        out.emit(answer, output)
        return
    rows = [
        (
            step["stage_index"],
            step["stage_name"],
            step["stage_type"],
            step.get("estimated_input"),
            step.get("estimated_output"),
            f"{step.get('estimated_duration_ms') or 0:.1f} ms",
            step.get("estimated_cost_credits"),
        )
        for step in answer["execution_plan"]
    ]
    out.table(["#", "STAGE", "TYPE", "IN", "OUT", "TIME", "CREDITS"], rows)


def _is_hidden(name: str) -> bool:
    return name in _HIDDEN or name.startswith("_")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (execute, explain):
        app.command()(command)
