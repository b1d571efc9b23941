"""`mixpeekctl serve` and `up` as processes: keys, locks, signals, wrong settings, files that are followed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.benchmarks.corpus import texts
from tests.servers.mixpeek import KEY, apply, free_port
from tests.system.conftest import eventually

QUICK_S = 8.0
"""Seconds in which a server has to end, on a machine that is busy with other tests."""
MANIFEST = """version: "1.0"
namespaces:
  - name: followed
    feature_extractors: [{name: text_extractor, version: v1}]
buckets:
  - name: notes
    namespace: followed
    description: first
    schema: {properties: {text: {type: text, required: true}, category: {type: string}}}
collections:
  - name: notes
    namespace: followed
    source: {type: bucket, bucket_ids: [notes]}
    feature_extractor: {feature_extractor_name: text_extractor, version: v1, input_mappings: {text: text}}
"""


class Process:
    """A running `mixpeekctl serve` or `up`; what it prints goes to a file."""

    def __init__(self, log: Path, *arguments: object, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        command = [sys.executable, "-m", "mixpeek_operator.cli", *map(str, arguments), "--port", str(self.port)]
        with log.open("wb") as sink:
            self.process = subprocess.Popen(command, stdout=sink, stderr=sink, env=_environment(environment))

    @property
    def printed(self) -> str:
        return self._log.read_text()

    def prints(self, text: str, *, times: int = 1) -> None:
        assert eventually(lambda: self.printed.count(text) >= times), f"no {text!r} in:\n{self.printed}"

    def is_healthy(self) -> None:
        def check() -> bool:
            assert self.process.poll() is None, self.printed
            with contextlib.suppress(httpx.HTTPError):
                return httpx.get(f"{self.url}/v1/health", timeout=5).status_code == 200
            return False

        assert eventually(check), self.printed

    def stops(self, with_signal: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code. Fails when the end takes longer than `QUICK_S`."""
        self.process.send_signal(with_signal)
        return self.process.wait(timeout=QUICK_S)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def _environment(given: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MIXPEEK_")}
    return {**kept, "MIXPEEK_PRELOAD_MODEL": "false", **given}


@contextlib.contextmanager
def running(log: Path, *arguments: object, **environment: str) -> Iterator[Process]:
    process = Process(log, *arguments, **environment)
    try:
        yield process
    finally:
        process.end()


def refused(*arguments: object, **environment: str) -> str:
    """Run a command that has to end with exit code 2, and return what it says about it."""
    command = [sys.executable, "-m", "mixpeek_operator.cli", *map(str, arguments)]
    ran = subprocess.run(
        command, capture_output=True, text=True, env=_environment(environment), timeout=60, check=False
    )
    assert ran.returncode == 2, ran
    assert "Traceback" not in ran.stderr
    assert ran.stderr.startswith("error: ")
    return ran.stderr


def test_the_first_start_prints_a_key_once_and_signals_end_it_in_good_order(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(tmp_path / "first.log", "serve", "--data", data) as first:
        first.is_healthy()
        (key,) = re.findall(r"API key, shown only now: (sk_\S+)", first.printed)
        get = httpx.get(f"{first.url}/v1/resources/namespaces", headers={"Authorization": f"Bearer {key}"})
        assert get.status_code == 200
        lock = refused("serve", "--data", data, "--port", first.port)
        assert f"{data} is in use by process {first.process.pid}" in lock
        assert "Address already in use" in refused("serve", "--data", tmp_path / "other", "--port", first.port)
        assert first.stops() == 0
    with running(tmp_path / "second.log", "serve", "--data", data) as second:
        second.is_healthy()
        assert "API key" not in second.printed
        get = httpx.get(f"{second.url}/v1/resources/namespaces", headers={"Authorization": f"Bearer {key}"})
        assert get.status_code == 200
        assert second.stops(signal.SIGINT) == 0


@pytest.mark.parametrize(
    ("environment", "arguments", "said"),
    [
        ({"MIXPEEK_PORT": "abc"}, (), "MIXPEEK_PORT: Input should be a valid integer"),
        ({"MIXPEEK_LOG_LEVEL": "loud", "MIXPEEK_WORKERS": "0"}, (), "MIXPEEK_LOG_LEVEL: Input should be 'debug'"),
        ({}, ("--port", 99999), "--port: Input should be less than or equal to 65535"),
        ({}, ("--host", "no.such.host.invalid"), "cannot listen on no.such.host.invalid:"),
        ({"MIXPEEK_API_KEY": "schlüssel"}, ("--port", 0), "MIXPEEK_API_KEY must be printable"),
    ],
)
def test_a_wrong_setting_is_named(
    tmp_path: Path, environment: dict[str, str], arguments: tuple[Any, ...], said: str
) -> None:
    assert said in refused("serve", "--data", tmp_path / "data", *arguments, **environment)


def test_a_data_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refused("serve", "--data", tmp_path / "file")


def test_a_stop_during_a_batch_and_while_the_model_loads_is_quick_and_loses_nothing(tmp_path: Path) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "X-Namespace": "followed"}
    setting = {"MIXPEEK_API_KEY": KEY, "MIXPEEK_PRELOAD_MODEL": "true"}
    arguments = ("serve", "--data", tmp_path / "data")
    with running(tmp_path / "first.log", *arguments, **setting) as first:
        first.is_healthy()
        assert "API key" not in first.printed
        with httpx.Client(base_url=first.url, headers=headers, timeout=60) as http:
            apply(http, MANIFEST)
            made = http.post("/v1/buckets/notes/objects/batch", json={"objects": texts(400)}).raise_for_status().json()
            ids = [item["object_id"] for item in made["succeeded"]]
            batch = http.post("/v1/buckets/notes/batches", json={"object_ids": ids}).raise_for_status().json()
            path = f"/v1/buckets/notes/batches/{batch['batch_id']}"
            http.post(f"{path}/submit", json={}).raise_for_status()
        assert first.stops() == 0  # the model is loading, the batch waits for it
    with running(tmp_path / "second.log", *arguments, **setting) as second:
        second.is_healthy()
        with httpx.Client(base_url=second.url, headers=headers, timeout=60) as http:
            begun = eventually(lambda: (http.get(path).json().get("progress") or {}).get("processed"))
            assert begun or http.get(path).json()["status"] == "COMPLETED"
        assert second.stops() == 0  # in the middle of it, or just after
    with running(tmp_path / "third.log", *arguments, **setting) as third:
        third.is_healthy()
        with httpx.Client(base_url=third.url, headers=headers, timeout=60) as http:
            assert eventually(lambda: http.get(path).json()["status"] == "COMPLETED", within_s=120), http.get(
                path
            ).json()
            count = http.get("/v1/resources/collections/notes", params={"namespace": "followed"}).json()
            assert count["status"]["document_count"] == 400
        assert third.stops() == 0


def test_up_applies_every_edit_and_waits_out_a_broken_one(tmp_path: Path) -> None:
    folder = tmp_path / "manifests"
    folder.mkdir()
    file = folder / "shop.yaml"
    file.write_text(MANIFEST)
    headers = {"Authorization": f"Bearer {KEY}"}
    with running(tmp_path / "up.log", "up", folder, "--data", folder / ".data", MIXPEEK_API_KEY=KEY) as up:

        def description() -> str:
            path = f"{up.url}/v1/resources/buckets/notes"
            found = httpx.get(path, params={"namespace": "followed"}, headers=headers)
            return str(found.json()["spec"]["description"])

        up.prints("applied: 3 created, 0 updated, 0 skipped")
        assert description() == "first"

        file.write_text(MANIFEST.replace("description: first", "description: second"))
        up.prints("applied: 0 created, 1 updated, 2 skipped")
        assert description() == "second"

        file.write_text(MANIFEST.replace("type: bucket", "type: bukcet"))
        up.prints("not applied, waiting for the next change")
        up.prints("shop.yaml:13:14")
        assert description() == "second"

        # As editors save: a new file takes the place of the old one.
        fresh = folder / "shop.yaml.new"
        fresh.write_text(MANIFEST.replace("description: first", "description: third"))
        fresh.replace(file)
        up.prints("applied: 0 created, 1 updated, 2 skipped", times=2)
        assert description() == "third"

        (folder / "broken.yml").write_text("a: [")
        up.prints("broken.yml:2:1")
        (folder / "broken.yml").unlink()
        up.prints("applied: 0 created, 0 updated, 3 skipped")
        assert "Traceback" not in up.printed
        assert up.stops() == 0


def test_up_follows_a_single_file_that_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "one.yaml"
    file.write_text(MANIFEST)
    with running(tmp_path / "up.log", "up", file, "--data", tmp_path / "data") as up:
        up.prints("applied: 3 created")
        (tmp_path / "other.yaml").write_text("not: ours")
        for name in ("second", "third"):
            fresh = tmp_path / "fresh"
            fresh.write_text(MANIFEST.replace("description: first", f"description: {name}"))
            fresh.replace(file)
            up.prints("applied: 0 created, 1 updated", times=1 if name == "second" else 2)
        file.unlink()
        up.prints("not applied, waiting for the next change: ")
        file.write_text(MANIFEST)
        up.prints("applied: 0 created, 1 updated", times=3)
        began = time.monotonic()
        assert up.stops(signal.SIGINT) == 0
        assert time.monotonic() - began < QUICK_S
