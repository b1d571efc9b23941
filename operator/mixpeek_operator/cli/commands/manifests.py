"""`apply`, `validate`, `lint`, `diff`, `export`, `convert`, `generate`: the manifest from a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from mixpeek_operator.cli.options import (
    FilesArgument,
    Output,
    OutputOption,
    Target,
    reaches_server,
)


class Form(StrEnum):
    """The two ways to write a manifest."""

    KUBERNETES = "kubernetes"
    MANIFEST = "manifest"


class Mode(StrEnum):
    """What apply does with what exists already."""

    UPSERT = "upsert"
    CREATE_MISSING = "create_missing"
    CREATE_ONLY = "create_only"


ParameterOption = Annotated[
    list[str],
    typer.Option("--param", "-p", help="Value of a declared parameter, NAME=VALUE.", show_default=False),
]


def _parts(paths: Sequence[Path]) -> list[tuple[str, tuple[str, bytes, str]]]:
    from mixpeek_operator.manifest.files import manifest_files

    return [("manifest_file", (str(path), path.read_bytes(), "application/x-yaml")) for path in manifest_files(paths)]


def texts(paths: Sequence[Path]) -> list[tuple[str | None, str]]:
    """Return (place, text) of every manifest file. BadRequestError when one is no UTF-8."""
    from mixpeek_operator.core.errors import BadRequestError, Place
    from mixpeek_operator.manifest.files import manifest_files

    found: list[tuple[str | None, str]] = []
    for path in manifest_files(paths):
        try:
            found.append((str(path), path.read_text(encoding="utf-8")))
        except UnicodeDecodeError as error:
            raise BadRequestError(f"not UTF-8 at byte {error.start}", place=Place(str(path))) from error
    return found


def _parameters(pairs: Sequence[str]) -> dict[str, str]:
    from mixpeek_operator.core.errors import BadRequestError

    values: dict[str, str] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise BadRequestError(f"--param takes NAME=VALUE, got {pair!r}")
        values[name] = value
    return values


def _form(pairs: Sequence[str]) -> dict[str, str] | None:
    """The form fields that go with the files: the values of declared parameters, when there are any."""
    import json

    values = _parameters(pairs)
    return {"parameters": json.dumps(values)} if values else None


def _messages(answer: dict[str, Any]) -> None:
    from mixpeek_operator.cli import output

    for item in answer.get("warnings") or []:
        output.warn(f"warning: {item}")
    for item in answer.get("errors") or []:
        output.fail(f"error: {item}")


@reaches_server
def apply(
    files: FilesArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would happen, change nothing.")] = False,
    mode: Annotated[Mode, typer.Option(help="What to do with what exists: change, leave, refuse.")] = Mode.UPSERT,
    wait_seconds: Annotated[float, typer.Option("--timeout", help="Seconds to wait for Ready.")] = 120.0,
    seed: Annotated[bool, typer.Option("--wait-for-seed", help="Wait until seed objects are ingested.")] = False,
    acceptance: Annotated[bool, typer.Option("--run-acceptance", help="Run the acceptance steps.")] = False,
    param: ParameterOption = [],  # noqa: B006
    *,
    at: Target,
    output: OutputOption = Output.TABLE,
) -> None:
    """Create and update what the files declare; all of it or nothing."""

    from mixpeek_operator.cli import output as out
    from mixpeek_operator.cli.client import connect

    query = {
        "mode": mode.value,
        "dry_run": dry_run,
        "wait_for_seed": seed,
        "run_acceptance": acceptance,
        "wait_timeout_seconds": wait_seconds,
    }
    form = _form(param)
    with connect(at, timeout_s=wait_seconds + 600) as client:
        answer = client.request("POST", "/v1/manifest/apply", params=query, files=_parts(files), data=form)
    if output is not Output.TABLE:
        out.emit(answer, output)
    else:
        rows = [
            (
                item["resource_type"],
                item["name"],
                item["status"],
                item.get("error") or item.get("resource_id"),
            )
            for item in answer["resources"]
        ]
        if rows:
            out.table(["KIND", "NAME", "STATUS", "ID"], rows)
        _messages(answer)
        counts = [f"{answer.get(f'{word}_count') or 0} {word}" for word in ("created", "updated", "skipped", "failed")]
        if dry_run:
            out.say(f"dry run: {answer.get('would_create_count') or 0} would be created, nothing was changed")
        else:
            out.say(", ".join(counts))
        if answer.get("rollback_performed"):
            out.warn("a step failed, so everything this apply did was undone")
        for step in (answer.get("acceptance") or {}).get("steps") or []:
            out.say(f"acceptance {step.get('name')}: {'passed' if step.get('passed') else 'failed'}")
    judged = answer.get("acceptance")
    if not answer["success"] or (judged is not None and not judged.get("passed")):
        raise typer.Exit(1)


@reaches_server
def validate(
    files: FilesArgument,
    param: ParameterOption = [],  # noqa: B006
    *,
    at: Target,
    output: OutputOption = Output.TABLE,
) -> None:
    """Check files without changing anything; every mistake is reported with its place."""
    from mixpeek_operator.cli import output as out
    from mixpeek_operator.cli.client import connect

    with connect(at) as client:
        answer = client.request(
            "POST",
            "/v1/manifest/validate",
            files=_parts(files),
            data=_form(param),
        )
    if output is not Output.TABLE:
        out.emit(answer, output)
    else:
        _messages(answer)
        if answer["valid"]:
            counts = ", ".join(out.counted(count, kind) for kind, count in answer["resources"].items() if count)
            out.say(f"valid: {counts}", colour="green")
    if not answer["valid"]:
        raise typer.Exit(1)


@reaches_server
def lint(
    files: FilesArgument,
    skip_rules: Annotated[list[str], typer.Option("--skip-rule", help="Rule code to leave out.")] = [],  # noqa: B006
    *,
    at: Target,
    output: OutputOption = Output.TABLE,
) -> None:
    """Look for what is allowed but unwise; exit code 1 when a rule of severity error fires."""
    from mixpeek_operator.cli import output as out
    from mixpeek_operator.cli.client import connect

    with connect(at) as client:
        answer = client.request("POST", "/v1/manifest/lint", params={"skip_rules": skip_rules}, files=_parts(files))
    if output is not Output.TABLE:
        out.emit(answer, output)
    else:
        rows = [(item["severity"], item["code"], item.get("location"), item["message"]) for item in answer["results"]]
        if rows:
            out.table(["SEVERITY", "RULE", "PLACE", "MESSAGE"], rows)
        else:
            out.say("nothing to complain about", colour="green")
    if not answer["valid"]:
        raise typer.Exit(1)


@reaches_server
def diff(
    files: FilesArgument,
    param: ParameterOption = [],  # noqa: B006
    *,
    at: Target,
    output: OutputOption = Output.TABLE,
) -> None:
    """Compare files with the server: exit code 0 same, 1 different, 2 error, as `kubectl diff`."""
    from mixpeek_operator.cli import output as out
    from mixpeek_operator.cli.client import connect

    with connect(at) as client:
        answer = client.request(
            "POST",
            "/v1/manifest/diff",
            files=_parts(files),
            data=_form(param),
        )
    changed = [
        *answer["to_create"],
        *(item for item in answer["differences"] if item["action"] != "unchanged"),
    ]
    if output is not Output.TABLE:
        out.emit(answer, output)
    elif not changed:
        out.say("no differences", colour="green")
    else:
        out.table(["ACTION", "KIND", "NAME", "DETAILS"], [_difference(item) for item in changed])
        for item in answer.get("in_system_only") or []:
            out.say(f"on the server only: {item['resource_type']} {item['name']}", colour="bright_black")
    if changed:
        raise typer.Exit(1)


def _difference(item: dict[str, Any]) -> tuple[str, ...]:
    details = item.get("details")
    if isinstance(details, dict):
        lines = []
        for field, change in (details.get("fields") or details).items():
            if isinstance(change, dict) and {"old", "new"} & set(change):
                lines.append(f"{field}: {change.get('old')!r} → {change.get('new')!r}")
            else:
                lines.append(f"{field}: {change}")
        details = "\n".join(lines)
    return (item["action"], item["resource_type"], item["name"], str(details or ""))


@reaches_server
def export(
    namespace: Annotated[list[str], typer.Option("--namespace", "-n", help="Only these namespaces.")] = [],  # noqa: B006
    name: Annotated[str, typer.Option("--name", help="metadata.name of the manifest.")] = "exported",
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Write here, not to stdout.")] = None,
    *,
    at: Target,
    output: OutputOption = Output.YAML,
) -> None:
    """Write what the server holds as a manifest: names for ids, placeholders for secrets."""
    from mixpeek_operator.cli import output as out
    from mixpeek_operator.cli.client import connect

    form = "json" if output is Output.JSON else "yaml"
    with connect(at) as client:
        response = client.send(
            "GET",
            "/v1/manifest/export",
            params={"namespace_id": namespace, "format": form, "manifest_name": name},
        )
    if file is None:
        typer.echo(response.text, nl=False)
    else:
        file.write_text(response.text)
        out.say(f"wrote {file}")


@reaches_server
def generate(
    description: Annotated[str, typer.Argument(help="What the system should do, in a sentence.")],
    name: Annotated[str, typer.Option("--name", help="metadata.name of the manifest.")] = "generated",
    *,
    at: Target,
    output: OutputOption = Output.YAML,
) -> None:
    """Draft a manifest with the server's language model; it is validated before you see it."""
    from mixpeek_operator.cli.client import connect

    with connect(at) as client:
        response = client.send(
            "POST", "/v1/manifest/generate", params={"description": description, "manifest_name": name}
        )
    _documents(response.text, output)


def convert(
    files: FilesArgument,
    to: Annotated[Form, typer.Option("--to", help="What to write.")] = Form.KUBERNETES,
    output: OutputOption = Output.YAML,
) -> None:
    """Turn a manifest into Kubernetes documents or back, without loss and without a server."""
    from mixpeek_operator.manifest.convert import convert_files

    _documents(convert_files(texts(files), to=to.value), output)


def _documents(text: str, output: Output) -> None:
    """Print YAML as it is, or as JSON: one object, or a list of them as `kubectl` writes it."""
    if output is not Output.JSON:
        typer.echo(text, nl=False)
        return
    import yaml

    from mixpeek_operator.cli import output as out

    found = [item for item in yaml.safe_load_all(text) if item is not None]
    out.emit(found[0] if len(found) == 1 else {"apiVersion": "v1", "kind": "List", "items": found}, output)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (apply, validate, lint, diff, export, convert, generate):
        app.command()(command)
