"""Killing the server at random moments: an apply is complete or undone, a batch completes, nothing is there twice."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.benchmarks.corpus import texts
from tests.servers.mixpeek import Server, apply, serving

APPLY_KILLS = 10
BATCH_KILLS = 10
OBJECTS = 500

HEAD = """version: "1.0"
metadata: {{name: round-{n}}}
namespaces:
  - name: round_{n}
    feature_extractors: [{{name: text_extractor, version: v1}}]
"""
SECTION = """
buckets:
{buckets}
collections:
{collections}
"""


def manifest(n: int, groups: int) -> str:
    """Return a manifest of 1 + 2 × `groups` resources in namespace `round_<n>`."""
    schema = "{properties: {text: {type: text, required: true}, category: {type: string}}}"
    buckets = [f"  - {{name: b{i}, namespace: round_{n}, schema: {schema}}}" for i in range(groups)]
    collections = [
        f"  - name: c{i}\n    namespace: round_{n}\n    source: {{type: bucket, bucket_ids: [b{i}]}}\n"
        "    feature_extractor: {feature_extractor_name: text_extractor, version: v1, input_mappings: {text: text}}"
        for i in range(groups)
    ]
    return HEAD.format(n=n) + SECTION.format(buckets="\n".join(buckets), collections="\n".join(collections))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("kill")) as running:
        yield running


def client(server: Server, namespace: str | None = None) -> httpx.Client:
    headers = {**server.headers, **({"X-Namespace": namespace} if namespace else {})}
    return httpx.Client(base_url=server.url, headers=headers, timeout=120)


def held(http: httpx.Client, namespace: str) -> dict[str, str]:
    """Kind and name of everything in a namespace, with the status of Ready."""
    found: dict[str, str] = {}
    for plural in ("namespaces", "buckets", "collections"):
        for item in http.get(f"/v1/resources/{plural}").raise_for_status().json()["results"]:
            spec = item["spec"]
            if namespace in (spec.get("namespace"), spec["name"] if plural == "namespaces" else None):
                ready = [c["status"] for c in item["status"].get("conditions", []) if c["type"] == "Ready"]
                found[f"{plural}/{spec['name']}"] = ready[0] if ready else "Unknown"
    return found


def eventually(check: Any, *, within_s: float = 180.0) -> Any:
    deadline = time.monotonic() + within_s
    while True:
        value = check()
        if value or time.monotonic() > deadline:
            return value
        time.sleep(0.1)


@pytest.mark.slow
def test_an_apply_that_was_killed_is_complete_or_undone(server: Server) -> None:
    dice = random.Random(20261121)
    groups = 20
    whole = 1 + 2 * groups
    with client(server) as http:
        began = time.perf_counter()
        apply(http, manifest(999, groups))
        usual = time.perf_counter() - began
    outcomes: Counter[str] = Counter()
    for n in range(APPLY_KILLS):
        text = manifest(n, groups)
        thread = threading.Thread(target=_apply_and_expect_anything, args=(server, text))
        thread.start()
        time.sleep(dice.uniform(0, usual * 1.1))
        server.kill()
        thread.join()
        server.restart()
        with client(server) as http:
            found = eventually(
                lambda n=n: _settled(held(http, f"round_{n}"), whole), within_s=120
            )  # both ends are fine, anything between is not
            assert found is not None, f"round {n}: half an apply is left: {held(http, f'round_{n}')}"
            outcomes["undone" if found == ["undone"] else "complete"] += 1
            apply(http, text)
            assert len(held(http, f"round_{n}")) == whole
    print(dict(outcomes))


def _settled(found: dict[str, str], whole: int) -> Any:
    if not found:
        return ["undone"]
    return list(found) if len(found) == whole and set(found.values()) == {"True"} else None


def _apply_and_expect_anything(server: Server, text: str) -> None:
    with client(server) as http:
        try:
            apply(http, text)
        except httpx.HTTPError:
            return


@pytest.mark.slow
def test_a_batch_that_was_killed_completes_with_each_document_once(server: Server) -> None:
    dice = random.Random(5)
    name = "round_batches"
    with client(server, name) as http:
        apply(http, manifest(0, 1).replace("round_0", name).replace("round-0", "batches"))
        _batch(http)
        began = time.perf_counter()
        _finish(http, _batch(http))
        usual = time.perf_counter() - began
    for _ in range(BATCH_KILLS):
        with client(server, name) as http:
            batch = _batch(http, submit=True)
        time.sleep(dice.uniform(0, usual))
        server.kill()
        server.restart()
        with client(server, name) as http:
            state = _finish(http, batch)
            assert state["status"] == "COMPLETED", state
            _each_once(http, batch)


def _batch(http: httpx.Client, *, submit: bool = False) -> dict[str, Any]:
    seed = random.randrange(1 << 30)
    objects = texts(OBJECTS, seed=seed)
    made = http.post("/v1/buckets/b0/objects/batch", json={"objects": objects}).raise_for_status().json()
    ids = [item["object_id"] for item in made["succeeded"]]
    assert len(ids) == OBJECTS
    batch: dict[str, Any] = http.post("/v1/buckets/b0/batches", json={"object_ids": ids}).raise_for_status().json()
    if submit:
        http.post(f"/v1/buckets/b0/batches/{batch['batch_id']}/submit", json={}).raise_for_status()
    return {**batch, "ids": ids}


def _finish(http: httpx.Client, batch: dict[str, Any]) -> dict[str, Any]:
    path = f"/v1/buckets/b0/batches/{batch['batch_id']}"
    http.post(f"{path}/submit", json={}).raise_for_status()
    ended = {"COMPLETED", "COMPLETED_WITH_ERRORS", "FAILED", "CANCELED"}

    def state() -> Any:
        now = http.get(path).raise_for_status().json()
        return now if now["status"] in ended else None

    found: dict[str, Any] = eventually(state, within_s=300)
    assert found, "the batch did not end"
    return found


def _each_once(http: httpx.Client, batch: dict[str, Any]) -> None:
    wanted = set(batch["ids"])
    seen: Counter[str] = Counter()
    cursor = None
    while True:
        body = {"limit": 500, **({"cursor": cursor} if cursor else {})}
        page = http.post("/v1/collections/c0/documents/list", json=body).raise_for_status().json()
        for item in page["results"]:
            seen[item["_internal"]["lineage"]["root_object_id"]] += 1
        cursor = page["pagination"]["next_cursor"]
        if not cursor:
            break
    assert {id: seen[id] for id in wanted if seen[id] != 1} == {}
