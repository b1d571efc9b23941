"""`get`, `describe`, `wait`, `delete`: any declared resource from a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixpeek_operator.cli.options import (
    NamespaceOption,
    Output,
    OutputOption,
    Target,
    reaches_server,
)

if TYPE_CHECKING:
    from mixpeek_operator.cli.client import Client

KINDS = ("namespaces", "buckets", "collections", "extractors", "taxonomies", "clusters", "retrievers")
_SHORT = {"ns": "namespaces", "bkt": "buckets", "col": "collections", "ext": "extractors", "tax": "taxonomies",
          "taxonomy": "taxonomies", "clust": "clusters", "ret": "retrievers"}  # fmt: skip

_COUNTED = ("object", "document", "stage", "node")

KindArgument = Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}; singular and short names work.")]


def plural(kind: str) -> str:
    """Return the plural for any spelling of a kind. Raises BadRequestError naming the kinds."""
    from mixpeek_operator.core.errors import BadRequestError

    word = kind.lower()
    word = _SHORT.get(word, word)
    word = word if word in KINDS else f"{word}s"
    if word not in KINDS:
        raise BadRequestError(f"unknown kind {kind!r}; use one of {', '.join(KINDS)} or 'all'")
    return word


def condition(resource: dict[str, Any], type: str) -> dict[str, Any]:
    """Return one condition of an envelope, {} while it has none."""
    for item in (resource.get("status") or {}).get("conditions") or []:
        if item.get("type") == type:
            return dict(item)
    return {}


@reaches_server
def get(
    kind: KindArgument,
    name: Annotated[str | None, typer.Argument(help="Name or id; all of the kind when absent.")] = None,
    namespace: NamespaceOption = None,
    *,
    at: Target,
    output: OutputOption = Output.TABLE,
) -> None:
    """List resources of a kind ('all' for every kind), or print one."""
    from mixpeek_operator.cli import output as out
    from mixpeek_operator.cli.client import connect
    from mixpeek_operator.core.errors import BadRequestError

    with connect(at) as client:
        if kind == "all" and name is not None:
            raise BadRequestError("name a kind to get one resource")
        if name is not None:
            found: list[dict[str, Any]] = [_one(client, plural(kind), name, namespace)]
        else:
            kinds: Iterable[str] = KINDS if kind == "all" else (plural(kind),)
            found = [item for each in kinds for item in _all(client, each, namespace)]
    if output is not Output.TABLE:
        out.emit(found[0] if name is not None else found, output)
        return
    if not found:
        out.warn("no resources found")
        return
    rows = [
        (
            item["kind"],
            item["spec"].get("namespace", ""),
            _name(item),
            _state(item),
            _holds(item.get("status") or {}),
            _age(item["metadata"].get("creationTimestamp")),
            item["metadata"]["annotations"].get("mixpeek.com/id", ""),
        )
        for item in found
    ]
    out.table(["KIND", "NAMESPACE", "NAME", "STATUS", "HOLDS", "AGE", "ID"], rows, spare=["AGE", "ID"])
    for item in found:
        if advice := _advice(item):
            out.warn(f"{item['kind']} {_name(item)}: {advice}")


def _name(item: dict[str, Any]) -> str:
    return str(item["spec"].get("name") or item["metadata"]["name"])


def _state(item: dict[str, Any]) -> str:
    if item["metadata"].get("deletionTimestamp"):
        return "Deleting"
    ready = condition(item, "Ready")
    return "Ready" if ready.get("status") == "True" else str(ready.get("reason") or "Pending")


def _advice(item: dict[str, Any]) -> str:
    """Return what keeps a resource from being ready, '' when nothing does."""
    ready = condition(item, "Ready")
    if ready.get("status") == "True" and not item["metadata"].get("deletionTimestamp"):
        return ""
    return str(ready.get("message") or "")


def _holds(status: dict[str, Any]) -> str:
    from mixpeek_operator.cli.output import counted

    held = [
        counted(int(status[f"{one}_count"]), f"{one}s") for one in _COUNTED if status.get(f"{one}_count") is not None
    ]
    if status.get("tier"):
        held.append(f"tier {status['tier']}")
    return ", ".join(held)


@reaches_server
def describe(
    kind: KindArgument,
    name: Annotated[str, typer.Argument(help="Name or id.")],
    namespace: NamespaceOption = None,
    *,
    at: Target,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one resource whole: declaration, status, conditions, events."""
    from mixpeek_operator.cli import output as out
    from mixpeek_operator.cli.client import connect

    with connect(at) as client:
        item = _one(client, plural(kind), name, namespace)
        path = f"{_path(plural(kind), name)}/events"
        events = client.get(path, params=_in(namespace))["results"]
    if output is not Output.TABLE:
        out.emit({**item, "events": events}, output)
        return
    import yaml

    metadata = item["metadata"]
    where = f" in namespace {item['spec']['namespace']}" if item["spec"].get("namespace") else ""
    out.say(f"{item['kind']} {_name(item)}{where}, {metadata['annotations'].get('mixpeek.com/id')}")
    out.say(f"generation {metadata['generation']}, {_age(metadata.get('creationTimestamp'))} old")
    state = _state(item)
    out.say(f"{state}: {_advice(item)}".rstrip(": "), colour="green" if state == "Ready" else "yellow")
    out.say("\nspec:")
    out.say(_indent(yaml.safe_dump(item["spec"], sort_keys=False, allow_unicode=True)))
    status = {key: value for key, value in (item.get("status") or {}).items() if key not in ("conditions", "id")}
    if status:
        out.say("status:")
        out.say(_indent(yaml.safe_dump(status, sort_keys=False, allow_unicode=True)))
    rows = [
        (each["type"], each["status"], each["reason"], each.get("message", ""))
        for each in (item.get("status") or {}).get("conditions") or []
    ]
    out.say("")
    out.table(["CONDITION", "STATUS", "REASON", "MESSAGE"], rows)
    if events:
        out.say("")
        out.table(
            ["AGE", "TYPE", "EVENT", "MESSAGE"],
            [(_age(e["at"]), e["type"], e["reason"], e["message"]) for e in events],
        )


@reaches_server
def wait(
    resource: Annotated[str, typer.Argument(help="KIND/NAME, e.g. collection/articles.")],
    for_: Annotated[str, typer.Option("--for", help="condition=NAME or delete.")] = "condition=Ready",
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 60.0,
    namespace: NamespaceOption = None,
    *,
    at: Target,
    output: OutputOption = Output.TABLE,
) -> None:
    """Wait until a condition is True or the resource is gone; exit code 1 when time runs out."""
    from mixpeek_operator.cli import output as out
    from mixpeek_operator.cli.client import connect
    from mixpeek_operator.core.errors import BadRequestError, NotFoundError

    kind, separator, name = resource.partition("/")
    wanted = for_.removeprefix("condition=")
    if not separator or (for_ != "delete" and not for_.startswith("condition=")):
        raise BadRequestError("use KIND/NAME and --for condition=NAME or --for delete")
    deadline = time.monotonic() + timeout
    last: dict[str, Any] = {}
    with connect(at) as client:
        while True:
            try:
                item = _one(client, plural(kind), name, namespace)
            except NotFoundError:
                if for_ == "delete":
                    break
                raise
            last = condition(item, wanted)
            if for_ != "delete" and last.get("status") == "True":
                break
            if time.monotonic() >= deadline:
                state = f"{last.get('reason') or 'still there'}: {last.get('message') or ''}".rstrip(": ")
                out.fail(f"timed out after {timeout:g} s: {resource} is {state}")
                raise typer.Exit(1)
            time.sleep(0.2)
    if output is Output.TABLE:
        out.say(f"{resource} {'deleted' if for_ == 'delete' else 'condition met'}")
    else:
        out.emit({"resource": resource, "for": for_, "condition": last or None}, output)


@reaches_server
def delete(
    kind: Annotated[str | None, typer.Argument(help="Kind; leave out with --file.")] = None,
    name: Annotated[str | None, typer.Argument(help="Name or id.")] = None,
    file: Annotated[
        list[Path], typer.Option("--file", "-f", help="Delete what these manifests declare.", exists=True)
    ] = [],  # noqa: B006
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    cascade: Annotated[bool, typer.Option("--cascade", help="Delete what refers to it, too.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is gone.")] = True,
    timeout: Annotated[float, typer.Option(help="Seconds to wait; the deletion goes on after that.")] = 60.0,
    namespace: NamespaceOption = None,
    *,
    at: Target,
    output: OutputOption = Output.TABLE,
) -> None:
    """Delete a resource with its data, or all that manifests declare, dependents first.

    What others refer to is marked and goes when the last of them has gone; a namespace goes with all that is in it.
    Exit code 1 when something is still there after --timeout.
    """
    from mixpeek_operator.cli import output as out
    from mixpeek_operator.cli.client import connect
    from mixpeek_operator.core.errors import BadRequestError

    if file:
        targets = _declared(file)
    elif kind and name:
        targets = [(plural(kind), name, namespace)]
    else:
        raise BadRequestError("name a KIND and a NAME, or --file")
    if not yes:
        out.say("This deletes, with all data:")
        for each, called, _ in targets:
            out.say(f"  {each}/{called}{' and all that refers to it' if cascade or each == 'namespaces' else ''}")
        typer.confirm("Go on?", abort=True)
    tell = out.say if output is Output.TABLE else None
    with connect(at) as client:
        deletions = [_mark(client, target, cascade) for target in targets]
        if wait:
            _until_gone(client, deletions, timeout, tell)
    for item in deletions:
        if tell is None:
            continue
        if item.missing:
            tell(f"{item} was not there")
        elif not item.gone and not wait:
            tell(f"{item} is being deleted")
    left = [item for item in deletions if not item.gone]
    if tell is None:
        out.emit([item.answer() for item in deletions], output)
    elif wait:
        for item in left:
            out.fail(f"{item} is not gone after {timeout:g} s: {item.why or 'the deletion is under way'}")
    if wait and left:
        raise typer.Exit(1)


@dataclass(slots=True)
class _Deletion:
    """One deletion that was asked for."""

    kind: str
    name: str
    namespace: str | None
    gone: bool = False
    missing: bool = False
    why: str = ""
    """What it waits for."""

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"

    def answer(self) -> dict[str, Any]:
        waiting = [self.why] if self.why and not self.gone else []
        found = {"kind": self.kind, "name": self.name, "deleted": self.gone and not self.missing}
        return {**found, "waiting_for": waiting, **({"missing": True} if self.missing else {})}


def _mark(client: Client, target: tuple[str, str, str | None], cascade: bool) -> _Deletion:
    from mixpeek_operator.core.errors import NotFoundError

    item = _Deletion(*target)
    params = {**_in(item.namespace), "wait_seconds": "0", **({"referrers": "delete"} if cascade else {})}
    try:
        item.gone = client.delete(_path(item.kind, item.name), params=params)["deleted"]
    except NotFoundError:
        item.gone = item.missing = True
    return item


def _until_gone(
    client: Client, deletions: Sequence[_Deletion], timeout_s: float, tell: Callable[[str], None] | None
) -> None:
    """Look until all are gone or the time is over; say when one is gone, and what one waits for when that changes."""
    from mixpeek_operator.cli import output as out
    from mixpeek_operator.core.errors import NotFoundError

    deadline = time.monotonic() + timeout_s
    told: set[int] = set()
    while True:
        for place, item in enumerate(deletions):
            why = item.why
            if not item.gone:
                try:
                    found = _one(client, item.kind, item.name, item.namespace)
                except NotFoundError:
                    item.gone = True
                else:
                    why = _deletion_waits_for(found)
            if item.gone and not item.missing and place not in told and tell is not None:
                told.add(place)
                tell(f"{item} deleted")
            elif not item.gone and why and why != item.why and tell is not None:
                out.warn(f"{item} waits: {why}")
            item.why = why
        if all(item.gone for item in deletions) or time.monotonic() >= deadline:
            return
        time.sleep(0.2)


def _deletion_waits_for(item: dict[str, Any]) -> str:
    if (item.get("status") or {}).get("observed_generation") != item["metadata"]["generation"]:
        return ""
    return str(condition(item, "Ready").get("message") or "")


def _declared(files: list[Path]) -> list[tuple[str, str, str | None]]:
    from mixpeek_operator.cli.commands.manifests import texts
    from mixpeek_operator.manifest.convert import declared_resources

    return list(reversed(declared_resources(texts(files))))


def _one(client: Client, kind: str, name: str, namespace: str | None) -> dict[str, Any]:
    found: dict[str, Any] = client.get(_path(kind, name), params=_in(namespace))
    return found


def _all(client: Client, kind: str, namespace: str | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/v1/resources/{kind}", params=_in(namespace))["results"]
    return found


def _path(kind: str, name: str) -> str:
    from mixpeek_operator.cli.client import quoted

    return f"/v1/resources/{kind}/{quoted(name)}"


def _in(namespace: str | None) -> dict[str, str]:
    return {"namespace": namespace} if namespace else {}


def _age(timestamp: str | None) -> str:
    if not timestamp:
        return ""
    from datetime import UTC, datetime

    seconds = int((datetime.now(UTC) - datetime.fromisoformat(timestamp.replace("Z", "+00:00"))).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{max(seconds, 0)}s"


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.rstrip("\n").splitlines())


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (get, describe, wait, delete):
        app.command()(command)
