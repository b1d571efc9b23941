"""Signed links, and manifests in every way a client sends them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import mixpeek
import pytest

from mixpeek_operator.adapters.local_blobs import LocalBlobs
from mixpeek_operator.core.clock import SystemClock
from mixpeek_operator.core.settings import Settings
from mixpeek_operator.manifest.parse import parse
from mixpeek_operator.manifest.registry import schemas

_TEXT = 'version: "1.0"\nmetadata:\n  name: "ü"\n'


@pytest.fixture
def blobs(world: Any, tmp_path: Path) -> LocalBlobs:
    world.services.blobs = LocalBlobs(tmp_path / "blobs", b"k" * 32, "http://server", SystemClock())
    return world.services.blobs


async def test_a_signed_link_takes_and_gives_a_file_without_a_key(world: Any, blobs: LocalBlobs) -> None:
    content = b"<script>" + bytes(range(256)) * 20
    up = await blobs.upload_url("ns_1/bkt_1/obj_1/page.html", content_type="text/html", expires_s=60)
    down = await blobs.download_url("ns_1/bkt_1/obj_1/page.html", expires_s=60)
    async with world.client(None) as http:
        assert (await http.get(down)).status_code == 404
        put = await http.put(up, content=content)
        got = await http.get(down)
    assert put.status_code == 200
    assert got.content == content
    assert got.headers["content-type"].startswith("text/html")
    assert got.headers["content-length"] == str(len(content))
    assert got.headers["content-disposition"].startswith("attachment")
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["etag"] == put.headers["etag"]


async def test_a_link_allows_what_it_says_and_nothing_else(world: Any, blobs: LocalBlobs) -> None:
    up = await blobs.upload_url("ns_1/a", content_type=None, expires_s=60)
    expired = await blobs.upload_url("ns_1/a", content_type=None, expires_s=-1)
    async with world.client(None) as http:
        for method, url in (("GET", up), ("PUT", expired), ("PUT", up[:-2] + "xx"), ("PUT", "/v1/blobs/none")):
            answer = await http.request(method, url, content=b"x")
            assert answer.status_code == 401, url
            assert answer.json()["error"]["type"] == "UnauthorizedError"


async def test_an_upload_over_the_limit_leaves_nothing(world: Any, blobs: LocalBlobs, settings: Settings) -> None:
    url = await blobs.upload_url("ns_1/big", content_type=None, expires_s=60)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"x" * (settings.max_upload_bytes // 4)

    async with world.client(None) as http:
        for content in (b"x" * (settings.max_upload_bytes + 1), chunks()):
            answer = await http.put(url, content=content)
            assert answer.status_code == 413
        assert await blobs.head("ns_1/big") is None
        assert (await http.put(url, content=b"x" * settings.max_upload_bytes)).status_code == 200


class Recorder:
    """In the place of the manifest service: answers with what it was asked."""

    async def validate(self, organization: str, files: Any, *, values: Any) -> Any:
        return {"files": [(name, text.decode()) for name, text in files], "values": values}

    async def lint(self, organization: str, files: Any, *, values: Any, skip_rules: Any) -> Any:
        return {"skip_rules": skip_rules}

    async def apply(self, organization: str, files: Any, **options: Any) -> Any:
        return options

    async def export(self, organization: str, **options: Any) -> str:
        self.exported = options
        return "a: 1\n" if options["format"] == "yaml" else '{"a":1}'


@pytest.mark.parametrize(
    ("reason", "request_", "expected"),
    [
        ("the SDK: a plain field", {"files": {"manifest_file": (None, _TEXT)}}, [[None, _TEXT]]),
        ("curl -F: a file", {"files": {"manifest_file": ("m.yaml", _TEXT)}}, [["m.yaml", _TEXT]]),
        (
            "two files",
            {"files": [("manifest_file", ("a.yaml", _TEXT)), ("manifest_file", ("b.yaml", _TEXT))]},
            [["a.yaml", _TEXT], ["b.yaml", _TEXT]],
        ),
        ("the body", {"content": _TEXT.encode(), "headers": {"Content-Type": "text/yaml"}}, [[None, _TEXT]]),
        ("no content type", {"content": _TEXT.encode()}, [[None, _TEXT]]),
        (
            "curl --data-binary",
            {"content": _TEXT.encode(), "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
            [[None, _TEXT]],
        ),
        (
            "a url-encoded field",
            {
                "content": urlencode({"manifest_file": _TEXT}).encode(),
                "headers": {"Content-Type": "application/x-www-form-urlencoded"},
            },
            [[None, _TEXT]],
        ),
    ],
)
async def test_a_manifest_arrives(world: Any, reason: str, request_: Any, expected: Any) -> None:
    world.services.manifest = Recorder()
    async with world.client() as http:
        answer = await http.post("/v1/manifest/validate", **request_)
    assert answer.json() == {"files": expected, "values": {}}, reason


@pytest.mark.parametrize(
    ("reason", "request_", "status", "code"),
    [
        ("nothing", {}, 400, "manifest_missing"),
        ("an empty file", {"files": {"manifest_file": ("m.yaml", "  \n")}}, 400, "manifest_missing"),
        ("another field", {"files": {"file": ("m.yaml", _TEXT)}}, 400, "manifest_missing"),
        ("a large file", {"files": {"manifest_file": ("m.yaml", "x" * 9000)}}, 413, "too_large"),
        ("a large field", {"files": {"manifest_file": (None, "x" * 9000)}}, 413, "too_large"),
        ("a large body", {"content": b"x" * 9000}, 413, "too_large"),
        ("a very large body", {"content": b"x" * 3_000_000}, 413, "too_large"),
        (
            "a broken form",
            {"content": b"nonsense", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
            400,
            None,
        ),
        ("a form without boundary", {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, None),
        (
            "parameters that are no JSON",
            {"files": {"manifest_file": (None, _TEXT), "parameters": (None, "{")}},
            422,
            "parameters_invalid",
        ),
        (
            "parameters that are no object",
            {"files": {"manifest_file": (None, _TEXT), "parameters": (None, "[1]")}},
            422,
            "parameters_invalid",
        ),
    ],
)
async def test_a_manifest_that_cannot_be_read(
    world: Any, reason: str, request_: Any, status: int, code: str | None
) -> None:
    world.services.manifest = Recorder()
    async with world.client() as http:
        answer = await http.post("/v1/manifest/apply", **request_)
    assert answer.status_code == status, (reason, answer.text)
    if code:
        assert answer.json()["error"]["code"] == code


async def test_apply_takes_the_sdks_options(world: Any) -> None:
    world.services.manifest = Recorder()
    files = {"manifest_file": (None, _TEXT), "parameters": (None, '{"n": 3}')}
    async with world.client() as http:
        plain = await http.post("/v1/manifest/apply", files=files)
        query = "mode=create_only&dry_run=true&deadline_seconds=5&wait_for_seed=true&run_acceptance=true"
        full = await http.post(f"/v1/manifest/apply?{query}", files=files)
        wrong = await http.post("/v1/manifest/apply?mode=destroy&deadline_seconds=0", files=files)
        lint = await http.post("/v1/manifest/lint?skip_rules=A,B&skip_rules=C", files=files)
    options = {"values": {"n": 3}, "mode": "upsert", "dry_run": False, "deadline_s": None}
    assert plain.json() == {**options, "wait_for_seed": False, "run_acceptance": False}
    assert full.json() == {
        "values": {"n": 3},
        "mode": "create_only",
        "dry_run": True,
        "deadline_s": 5.0,
        "wait_for_seed": True,
        "run_acceptance": True,
    }
    assert wrong.status_code == 422
    assert len(wrong.json()["error"]["details"]["validation_errors"]) == 2
    assert lint.json() == {"skip_rules": ["A", "B", "C"]}


async def test_export_answers_yaml_the_sdk_can_decode(world: Any) -> None:
    recorder = world.services.manifest = Recorder()
    async with world.client() as http:
        yaml = await http.get("/v1/manifest/export?namespace_id=ns_a&manifest_name=x")
        as_json = await http.get("/v1/manifest/export?format=json")
        assert recorder.exported["namespaces"] is None
        for body, expected in ((["a", "b"], ["a", "b"]), ({"namespace_ids": ["a"]}, ["a"]), (None, None), ([], None)):
            answer = await http.post("/v1/manifest/export", json=body)
            assert answer.status_code == 200
            assert recorder.exported["namespaces"] == expected
        wrong = await http.post("/v1/manifest/export", json=[1])
    assert yaml.text == "a: 1\n"
    assert yaml.headers["content-type"].startswith("text/yaml")
    assert as_json.json() == {"a": 1}
    assert wrong.status_code == 422


async def test_discovery_reads_in_the_sdk(world: Any) -> None:
    async with world.client(None) as http:
        everything = (await http.get("/v1/discovery")).json()
        schema = (await http.get("/v1/discovery/schema")).json()
        unknown = await http.get("/v1/discovery/schema?resource_type=planets")
    assert mixpeek.DiscoveryResponse.from_dict(everything) is not None
    assert mixpeek.ManifestSchemaDiscovery.from_dict(schema) is not None
    assert unknown.status_code == 404


async def test_discovery_describes_every_kind_with_an_example_that_is_valid(world: Any) -> None:
    kinds = schemas()
    world.services.kinds = {name: SimpleNamespace(schema=schema) for name, schema in kinds.items()}
    async with world.client(None) as http:
        answer = (await http.get("/v1/discovery/schema")).json()
        one = (await http.get("/v1/discovery/schema?resource_type=buckets")).json()
    assert mixpeek.ManifestSchemaDiscovery.from_dict(answer) is not None
    assert set(answer["resource_types"]) == {kind.plural for kind in kinds.values()}
    assert answer["schemas"]["buckets"]["properties"]["bucket_schema"]
    assert answer["dependency_graph"]["namespaces"] == []
    assert {"buckets", "namespaces"} <= set(answer["dependency_graph"]["collections"])
    assert one["resource_types"] == ["buckets"]
    for section, example in answer["examples"].items():
        parsed = parse(f'version: "1.0"\nmetadata: {{name: x}}\n{example}', kinds)
        assert [str(problem) for problem in parsed.problems] == [], section
