"""`upload` and `batch`: objects in, documents out."""

from __future__ import annotations

import json
import mimetypes
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from mixpeek_operator.cli.options import (
    NamespaceOption,
    Output,
    OutputOption,
    Target,
    reaches_server,
)

TERMINAL = {"COMPLETED", "COMPLETED_WITH_ERRORS", "FAILED", "CANCELED"}
_CHUNK = 200


@reaches_server
def upload(
    bucket: Annotated[str, typer.Argument(help="Bucket, by name or id.")],
    files: Annotated[list[Path], typer.Argument(help="Files to upload.", exists=True, dir_okay=False)],
    property_: Annotated[str, typer.Option("--property", help="Schema property that holds the file.")] = "content",
    field: Annotated[list[str], typer.Option("--field", help="Value for every object, NAME=VALUE.")] = [],  # noqa: B006
    namespace: NamespaceOption = None,
    *,
    at: Target,
    output: OutputOption = Output.TABLE,
) -> None:
    """Put files into a bucket. A .jsonl file holds one object a line; any other file becomes one object."""
    from mixpeek_operator.cli import output as out
    from mixpeek_operator.cli.client import connect, quoted

    fields = _fields(field)
    root = f"/v1/buckets/{quoted(bucket)}"
    made: list[str] = []
    failed: list[dict[str, Any]] = []
    with connect(at) as client:
        for path in _progress(files, "uploading", quiet=output is not Output.TABLE):
            if path.suffix == ".jsonl":
                for chunk in _chunks(path, fields):
                    answer = client.post(f"{root}/objects/batch", {"objects": chunk}, namespace=namespace)
                    made += [item["object_id"] for item in answer.get("succeeded") or []]
                    failed += [{"file": str(path), **item} for item in answer.get("failed") or []]
                continue
            kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            slot = client.post(
                f"{root}/uploads",
                {
                    "filename": path.name,
                    "content_type": kind,
                    "file_size_bytes": path.stat().st_size,
                    "blob_property": property_,
                    "object_metadata": fields,
                    "create_object_on_confirm": True,
                },
                namespace=namespace,
            )
            headers = {"Content-Type": kind, **slot.get("presigned_headers", {})}
            client.put_signed(slot["presigned_url"], path, headers)
            answer = client.post(f"{root}/uploads/{slot['upload_id']}/confirm", {}, namespace=namespace)
            made.append(str(answer.get("object_id") or answer.get("upload_id")))
    if output is not Output.TABLE:
        out.emit({"object_ids": made, "failed": failed}, output)
    else:
        out.say(f"{out.counted(len(made), 'objects')} put into bucket {bucket}", colour="green")
        for item in failed:
            out.fail(f"{item['file']} object {item.get('object_index')}: {item.get('error')}")
    if failed:
        raise typer.Exit(1)


@reaches_server
def batch(
    bucket: Annotated[str, typer.Argument(help="Bucket, by name or id.")],
    object_id: Annotated[list[str], typer.Option("--object", help="Only these objects.")] = [],  # noqa: B006
    collection: Annotated[list[str], typer.Option("--collection", help="Only these collections.")] = [],  # noqa: B006
    wait: Annotated[bool, typer.Option(help="Wait for the end and show progress.")] = True,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 3600.0,
    namespace: NamespaceOption = None,
    *,
    at: Target,
    output: OutputOption = Output.TABLE,
) -> None:
    """Run a bucket's objects through its collections; exit code 1 when an object or the batch failed."""
    from mixpeek_operator.cli import output as out
    from mixpeek_operator.cli.client import connect, quoted

    body: dict[str, Any] = {"collection_ids": list(collection) or None}
    if object_id:
        body["object_ids"] = list(object_id)
    else:
        # An empty conjunction is true of every object.
        body["filters"] = {"AND": []}
    with connect(at) as client:
        root = f"/v1/buckets/{quoted(bucket)}/batches"
        created = client.post(root, {k: v for k, v in body.items() if v is not None}, namespace=namespace)
        path = f"{root}/{created['batch_id']}"
        client.post(f"{path}/submit", {}, namespace=namespace)
        state = client.get(path, namespace=namespace)
        if wait:
            state = follow(
                lambda: client.get(path, namespace=namespace),
                timeout_s=timeout,
                quiet=output is not Output.TABLE,
            )
            if state["status"] not in TERMINAL:
                out.fail(f"timed out: batch {state['batch_id']} is {state['status']} after {timeout:g} s and goes on")
    if output is not Output.TABLE:
        out.emit(state, output)
    else:
        colour = {"COMPLETED": "green", "FAILED": "red"}.get(state["status"], "yellow")
        out.say(f"batch {state['batch_id']}: {state['status']}", colour=colour)
        for item in state.get("failed_objects") or []:
            out.fail(f"{item.get('object_id')}: {item.get('error')}")
    if wait and state["status"] != "COMPLETED":
        raise typer.Exit(1)


def follow(read: Any, *, timeout_s: float, quiet: bool) -> dict[str, Any]:
    """Poll a batch until it ends, with a progress bar on a terminal. After `timeout_s` the last state is returned."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    deadline = time.monotonic() + timeout_s
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        bar = progress.add_task("queued", total=None)
        delay = 0.05
        while True:
            state: dict[str, Any] = read()
            done, total = progress_of(state)
            progress.update(
                bar, description=str(state["status"]).lower().replace("_", " "), completed=done, total=total
            )
            if state["status"] in TERMINAL or time.monotonic() > deadline:
                return state
            time.sleep(delay)
            delay = min(delay * 1.5, 1.0)


def progress_of(state: dict[str, Any]) -> tuple[int, int | None]:
    """Return (rows done, rows known) over all tiers of a batch answer."""
    progress = state.get("progress") or {}
    done = int(progress.get("processed") or 0) + int(progress.get("failed") or 0)
    total = progress.get("total") or state.get("object_count") or None
    return done, None if total is None else int(total)


def _fields(pairs: list[str]) -> dict[str, Any]:
    from mixpeek_operator.core.errors import BadRequestError

    values: dict[str, Any] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator:
            raise BadRequestError(f"--field takes NAME=VALUE, got {pair!r}")
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            values[name] = text
    return values


def _chunks(path: Path, fields: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    from mixpeek_operator.core.errors import BadRequestError, Place

    chunk: list[dict[str, Any]] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                body = json.loads(line)
            except json.JSONDecodeError as error:
                raise BadRequestError(f"not JSON: {error.msg}", place=Place(str(path), number, error.colno)) from error
            if not isinstance(body, dict):
                raise BadRequestError("a line must hold one JSON object", place=Place(str(path), number))
            chunk.append({**fields, **body})
            if len(chunk) == _CHUNK:
                yield chunk
                chunk = []
    if chunk:
        yield chunk


def _progress(files: list[Path], word: str, *, quiet: bool) -> Iterator[Path]:
    from rich.console import Console
    from rich.progress import track

    return iter(track(files, description=word, console=Console(stderr=True), disable=quiet, transient=True))


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (upload, batch):
        app.command()(command)
