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
from pathlib import Path
from typing import Any

import httpx

from mixpeek_operator.cli import output
from mixpeek_operator.cli.client import Client, connect
from mixpeek_operator.cli.commands.data import follow
from mixpeek_operator.cli.commands.search import print_documents
from mixpeek_operator.core.errors import MixpeekError

HERE = Path(__file__).parent
STATE = Path(os.environ.get("MIXPEEK_QUICKSTART_DATA", ".mixpeek/quickstart"))
NAMESPACE = "shop"
BUCKETS = ("products", "suppliers", "guides")
QUESTIONS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (
        "gift_finder",
        "Semantic search with a filter: “keep soup hot on a hike”, at most 50 EUR",
        {"query": "keep soup hot on a hike", "max_price": 50},
    ),
    (
        "care_advice",
        "Hybrid search, dense and by word, fused: “my pan is rusty, can it be saved?”",
        {"query": "my pan is rusty, can it be saved?"},
    ),
    (
        "product_cards",
        "Joined with suppliers and reshaped: “a present for a child who likes the night sky”",
        {"query": "a present for a child who likes the night sky"},
    ),
)


def main() -> int:
    """Run the quickstart and return its exit code."""
    STATE.mkdir(parents=True, exist_ok=True)
    key = _key()
    with _server(key) as (url, process), connect(url, key) as client:
        output.say(f"server: {url}   (log: {STATE / 'server.log'})\n")
        if not _apply(client):
            return 1
        for bucket in BUCKETS:
            _ingest(client, bucket)
        for retriever, title, inputs in QUESTIONS:
            answer = client.post(
                f"/v1/retrievers/{retriever}/execute", {"inputs": inputs, "limit": 5}, namespace=NAMESPACE
            )
            output.say("")
            print_documents(answer["documents"], title=title)
        _farewell(url)
        if sys.stdout.isatty():
            output.say("The server runs until you press Ctrl-C.")
            with contextlib.suppress(KeyboardInterrupt):
                process.wait()
    return 0


def _apply(client: Client) -> bool:
    manifest = HERE / "manifest.yaml"
    parts = [("manifest_file", (manifest.name, manifest.read_bytes(), "application/x-yaml"))]
    answer = client.request("POST", "/v1/manifest/apply", files=parts)
    rows = [(item["resource_type"], item["name"], item["status"], item.get("error")) for item in answer["resources"]]
    output.table(["KIND", "NAME", "STATUS", "ERROR"], rows, title=f"apply {manifest}")
    for error in answer.get("errors") or []:
        output.fail(error)
    return bool(answer["success"])


def _ingest(client: Client, bucket: str) -> None:
    held = int(client.get(f"/v1/buckets/{bucket}", namespace=NAMESPACE)["object_count"])
    if bucket == "guides":
        wanted = sorted((HERE / "data" / "guides").glob("*.txt"))
        if held < len(wanted):
            for path in wanted:
                _upload(client, bucket, path)
    else:
        lines = (HERE / "data" / f"{bucket}.jsonl").read_text().splitlines()
        wanted = [json.loads(line) for line in lines]
        if held < len(wanted):
            answer = client.post(f"/v1/buckets/{bucket}/objects/batch", {"objects": wanted}, namespace=NAMESPACE)
            for item in answer["failed"]:
                output.fail(f"object {item['object_index']}: {item['error']}")
    if held >= len(wanted):
        output.say(f"{bucket}: {held} objects are there already")
        return
    root = f"/v1/buckets/{bucket}/batches"
    batch = client.post(root, {"filters": {"AND": []}}, namespace=NAMESPACE)
    path = f"{root}/{batch['batch_id']}"
    client.post(f"{path}/submit", {}, namespace=NAMESPACE)
    done = follow(lambda: client.get(path, namespace=NAMESPACE), timeout_s=600, quiet=False)
    output.say(f"{bucket}: {len(wanted)} objects ingested, batch {done['status']}")
    for item in done.get("failed_objects") or []:
        output.fail(f"  {item['object_id']}: {item['error']}")


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
    client.put_signed(slot["presigned_url"], path.read_bytes(), "text/plain")
    client.post(f"/v1/buckets/{bucket}/uploads/{slot['upload_id']}/confirm", {}, namespace=NAMESPACE)


def _farewell(url: str) -> None:
    output.say(
        f"""
Go on with
  export MIXPEEK_SERVER={url} MIXPEEK_API_KEY=$(cat {STATE / "api-key"}) MIXPEEK_NAMESPACE={NAMESPACE}
  .venv/bin/mixpeekctl get all
  .venv/bin/mixpeekctl execute gift_finder -i query='music without cables' -i max_price=150
  .venv/bin/mixpeekctl explain product_cards -i query=lamp
and read docs/architecture.md. Start the server again with
  .venv/bin/mixpeekctl serve --data {STATE / "data"}
"""
    )


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
    with log.open("ab") as sink:
        process = subprocess.Popen(
            command, stdout=sink, stderr=sink, env={**os.environ, "MIXPEEK_API_KEY": key}, start_new_session=True
        )
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
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(
                f"the server ended at start; the end of {log}:\n" + "\n".join(log.read_text().splitlines()[-5:])
            )
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/v1/health", timeout=2).status_code == 200:
                return
        time.sleep(0.1)
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
    except MixpeekError as error:
        output.fail(f"error: {error}")
        sys.exit(2)
