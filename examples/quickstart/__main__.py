"""The quickstart: serve, apply, ingest, search, in one command. Run it with `make quickstart`.

The server keeps its data in `.mixpeek/quickstart`, so a second run finds everything in place. On a terminal
the server stays up until Ctrl-C; elsewhere the command ends by itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from mixpeek_operator.cli import output
from mixpeek_operator.cli.client import Client, connect
from mixpeek_operator.cli.commands.data import TERMINAL, follow
from mixpeek_operator.cli.commands.search import print_documents
from mixpeek_operator.cli.options import Target
from mixpeek_operator.core.errors import MixpeekError

HERE = Path(__file__).parent
STATE = Path(os.environ.get("MIXPEEK_QUICKSTART_DATA", ".mixpeek/quickstart"))
NAMESPACE = "shop"
BUCKETS = ("products", "suppliers", "guides")
KEYS = {"products": "sku", "suppliers": "supplier_id"}


@dataclass(frozen=True, slots=True)
class Question:
    """What the quickstart asks a retriever, and the fields that it shows of the answers."""

    retriever: str
    title: str
    inputs: dict[str, Any]
    fields: tuple[str, ...]


QUESTIONS = (
    Question(
        "gift_finder",
        "Semantic, filtered: “keep soup hot on a hike”, at most 50 EUR",
        {"query": "keep soup hot on a hike", "max_price": 50},
        ("title", "category", "price"),
    ),
    Question(
        "care_advice",
        "Hybrid, by meaning and by word: “my pan is rusty, can it be saved?”",
        {"query": "my pan is rusty, can it be saved?"},
        ("topic", "text"),
    ),
    Question(
        "product_cards",
        "Joined with suppliers, reshaped: “a child who watches the moon and the stars”",
        {"query": "a child who watches the moon and the stars"},
        ("card", "from", "days"),
    ),
)


def main() -> int:
    """Run the quickstart and return its exit code."""
    # Ended from outside, the server is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    STATE.mkdir(parents=True, exist_ok=True)
    key = _key()
    output.say("starting the server ...")
    with _server(key) as (url, process), connect(Target(server=url, api_key=key)) as client:
        output.say(f"server {url}, log {_short(STATE / 'server.log')}\n")
        if not _apply(client):
            return 1
        for bucket in BUCKETS:
            if not _ingest(client, bucket):
                return 1
        for question in QUESTIONS:
            path = f"/v1/retrievers/{question.retriever}/execute"
            answer = client.post(path, {"inputs": question.inputs, "limit": 5}, namespace=NAMESPACE)
            output.say("")
            print_documents(answer["documents"], title=question.title, fields=question.fields)
        stays = sys.stdout.isatty()
        _farewell(url, stays=stays)
        if stays:
            process.wait()
            output.fail(f"the server ended by itself; see {STATE / 'server.log'}")
            return 1
    return 0


def _apply(client: Client) -> bool:
    manifest = HERE / "manifest.yaml"
    parts = [("manifest_file", (manifest.name, manifest.read_bytes(), "application/x-yaml"))]
    answer = client.request("POST", "/v1/manifest/apply", files=parts)
    if answer["success"] and answer["skipped_count"] == len(answer["resources"]):
        output.say(f"{_short(manifest)}: {output.counted(len(answer['resources']), 'resources')} unchanged")
        return True
    rows = [(item["resource_type"], item["name"], item["status"]) for item in answer["resources"]]
    output.table(["KIND", "NAME", "STATUS"], rows, title=f"Apply {_short(manifest)}")
    for error in answer.get("errors") or []:
        output.fail(error)
    output.say("")
    return bool(answer["success"])


def _ingest(client: Client, bucket: str) -> bool:
    """Put a bucket's objects in place and process them; what an earlier run has done is left alone."""
    if bucket == "guides":
        names = sorted((HERE / "data" / "guides").glob("*.txt"))
        there = {item.get("topic") for item in _objects(client, bucket)}
        absent = [file for file in names if file.stem not in there]
        for file in absent:
            _upload(client, bucket, file)
        added = len(absent)
    else:
        lines = (HERE / "data" / f"{bucket}.jsonl").read_text(encoding="utf-8").splitlines()
        key = KEYS[bucket]
        there = {item.get(key) for item in _objects(client, bucket)}
        missing = [item for item in map(json.loads, lines) if item[key] not in there]
        added = len(missing)
        if missing:
            answer = client.post(f"/v1/buckets/{bucket}/objects/batch", {"objects": missing}, namespace=NAMESPACE)
            for item in answer["failed"]:
                output.fail(f"object {item['object_index']}: {item['error']}")
    root = f"/v1/buckets/{bucket}/batches"
    batches = client.get(root, namespace=NAMESPACE)["results"]
    open_ = [item["batch_id"] for item in batches if item["status"] not in TERMINAL and item["status"] != "DRAFT"]
    if not added and any(item["status"] == "COMPLETED" for item in batches):
        output.say(f"{bucket}: {output.counted(len(there), 'objects')}, ingested by an earlier run")
        return True
    if not added and open_:
        path = f"{root}/{open_[0]}"  # an earlier run was interrupted; the server has taken its batch up again
    else:
        path = f"{root}/{client.post(root, {'filters': {'AND': []}}, namespace=NAMESPACE)['batch_id']}"
        client.post(f"{path}/submit", {}, namespace=NAMESPACE)
    done = follow(lambda: client.get(path, namespace=NAMESPACE), timeout_s=600, quiet=False)
    whole = bool(done["status"] == "COMPLETED")
    output.say(f"{bucket}: batch {done['status']}", colour="green" if whole else "red")
    for item in done.get("failed_objects") or []:
        output.fail(f"  {item['object_id']}: {item['error']}")
    return whole


def _objects(client: Client, bucket: str) -> list[dict[str, Any]]:
    answer = client.post(f"/v1/buckets/{bucket}/objects/list", {}, namespace=NAMESPACE, params={"limit": 1000})
    found: list[dict[str, Any]] = answer["results"]
    return [{**item, **(item.get("metadata") or {})} for item in found]


def _upload(client: Client, bucket: str, path: Path) -> None:
    slot = client.post(
        f"/v1/buckets/{bucket}/uploads",
        {
            "filename": path.name,
            "content_type": "text/plain",
            "blob_property": "content",
            "blob_type": "text",
            "object_metadata": {"topic": path.stem},
            "create_object_on_confirm": True,
        },
        namespace=NAMESPACE,
    )
    client.put_signed(slot["presigned_url"], path, {"Content-Type": "text/plain"})
    client.post(f"/v1/buckets/{bucket}/uploads/{slot['upload_id']}/confirm", {}, namespace=NAMESPACE)


def _farewell(url: str, *, stays: bool) -> None:
    ctl = _short(Path(sys.executable).parent / "mixpeekctl")
    serve = f"{ctl} serve --data {_short(STATE / 'data')} --port {url.rsplit(':', 1)[1]}"
    if stays:
        first = "The server runs until you press Ctrl-C. Go on in another terminal:"
    else:
        first = f"Go on with\n  {serve} &"
    output.say(
        f"""
{first}
  export MIXPEEK_SERVER={url} MIXPEEK_NAMESPACE={NAMESPACE}
  export MIXPEEK_API_KEY=$(cat {_short(STATE / "api-key")})
  {ctl} get all
  {ctl} execute gift_finder -i query='music without cables' -i max_price=150
  {ctl} explain product_cards -i query=lamp
The way of a request through the parts: docs/architecture.md"""
    )


def _short(path: Path) -> str:
    """Return a path as one would type it here."""
    # Not resolved: the interpreter of a virtual environment is a link.
    whole = path.absolute()
    return str(whole.relative_to(Path.cwd()) if whole.is_relative_to(Path.cwd()) else whole)


def _key() -> str:
    file = STATE / "api-key"
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(f"sk_{secrets.token_urlsafe(32)}")
    return file.read_text().strip()


@contextlib.contextmanager
def _server(key: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = _free_port(7007)
    url = f"http://127.0.0.1:{port}"
    log = STATE / "server.log"
    command = [
        sys.executable,
        "-m",
        "mixpeek_operator.cli",
        "serve",
        "--data",
        str(STATE / "data"),
        "--port",
        str(port),
    ]
    # What one start compiles the next one reads, whatever the shell says: else loading the model is mostly compiling.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["MIXPEEK_API_KEY"] = key
    with log.open("ab") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, env=environment, start_new_session=True)
    try:
        _wait_until_healthy(url, process, log)
        yield url, process
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        if process.poll() is None:
            process.kill()


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    with httpx.Client(timeout=2) as probe:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise SystemExit(
                    f"the server ended at start; the end of {log}:\n" + "\n".join(log.read_text().splitlines()[-5:])
                )
            with contextlib.suppress(httpx.HTTPError):
                if probe.get(f"{url}/v1/health").status_code == 200:
                    return
            time.sleep(0.05)
    raise SystemExit(f"the server was not healthy after 60 s; see {log}")


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise SystemExit("no free port on 127.0.0.1")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        output.say("\nstopped; another run goes on from here")
    except MixpeekError as error:
        output.fail(f"error: {error}")
        sys.exit(2)
