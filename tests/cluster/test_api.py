"""The API on custom resources beside a running operator: manifests, REST and kubectl write the same objects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.servers.kubernetes.control_plane import ControlPlane
from tests.servers.operator import OperatorProcess, operating

from mixpeek_operator.adapters.kubernetes_resources import MANIFEST_MANAGER, REST_MANAGER
from mixpeek_operator.core.settings import Settings
from mixpeek_operator.main import system

KEY = "sk_cluster_0123456789abcdef0123456789abcdef"
MANIFEST = """
version: "1.0"
namespaces:
  - name: shop
    feature_extractors: [{name: text_extractor, version: v1}]
buckets:
  - name: my_products
    namespace: shop
    schema: {properties: {title: {type: string}}}
"""
REFUSED = (
    MANIFEST.replace("{title: {type: string}}", "{title: {type: string}, price: {type: number}}")
    + """
  - name: second
    namespace: broken
    schema: {properties: {}}
"""
).replace("buckets:", "  - name: broken\n    infrastructure: {qdrant_collection: another}\nbuckets:")


@pytest.fixture
def namespace(kubernetes_namespace: Callable[[], str]) -> str:
    return kubernetes_namespace()


@pytest.fixture
def operator(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[OperatorProcess]:
    with operating(tmp_path / "operator", control_plane.kubeconfig, namespace=namespace, lease=namespace) as running:
        yield running


@dataclass
class Door:
    """The API's front door, and kubectl for the same namespace."""

    http: httpx.AsyncClient
    plane: ControlPlane
    namespace: str

    async def answer(self, method: str, path: str, **request: Any) -> Any:
        got = await self.http.request(method, path, **request)
        assert got.is_success, got.text
        return got.json() if got.headers["content-type"].startswith("application/json") else got.text

    async def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        out = await asyncio.to_thread(self.plane.kubectl, "-n", self.namespace, *arguments, stdin=stdin)
        assert out is not None
        return out

    async def object(self, plural: str, name: str) -> dict[str, Any]:
        path = f"/apis/mixpeek.com/v1alpha1/namespaces/{self.namespace}/{plural}/{name}"
        return dict(json.loads(await asyncio.to_thread(self.plane.request, "GET", path)))


@pytest.fixture
async def door(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> AsyncIterator[Door]:
    settings = Settings(
        resources="kubernetes",
        kubeconfig=control_plane.kubeconfig,
        namespace=namespace,
        data=tmp_path / "api",
        api_key=KEY,  # type: ignore[arg-type]
        preload_model=False,
    )
    async with system(settings) as running:
        headers = {"Authorization": f"Bearer {KEY}"}
        transport = httpx.ASGITransport(running.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers, timeout=90) as http:
            yield Door(http, control_plane, namespace)


async def test_a_manifest_becomes_custom_resources_that_the_operator_makes_ready(
    operator: OperatorProcess, door: Door
) -> None:
    done = await door.answer("POST", "/v1/manifest/apply?deadline_seconds=60", content=MANIFEST)
    assert done["success"], done
    bucket = await door.object("buckets", "shop.my-products")
    assert bucket["spec"]["name"] == "my_products"
    assert {item["type"]: item["status"] for item in bucket["status"]["conditions"]}["Ready"] == "True"
    assert MANIFEST_MANAGER in {entry["manager"] for entry in bucket["metadata"]["managedFields"]}
    before = bucket["metadata"]["resourceVersion"]
    again = await door.answer("POST", "/v1/manifest/apply?deadline_seconds=60", content=MANIFEST)
    assert again["success"], again
    assert (await door.object("buckets", "shop.my-products"))["metadata"]["resourceVersion"] == before
    first = await door.answer("GET", "/v1/manifest/export")
    assert "my_products" in first
    assert await door.answer("GET", "/v1/manifest/export") == first


async def test_an_apply_that_cannot_become_ready_is_taken_back(operator: OperatorProcess, door: Door) -> None:
    await door.answer("POST", "/v1/manifest/apply?deadline_seconds=60", content=MANIFEST)
    got = await door.http.post("/v1/manifest/apply?deadline_seconds=60", content=REFUSED)
    assert "another name" in got.text, got.text
    left = await door.kubectl("get", "mixpeek", "-o", "name")
    assert sorted(left.split()) == ["bucket.mixpeek.com/shop.my-products", "namespace.mixpeek.com/shop"]
    properties = (await door.object("buckets", "shop.my-products"))["spec"]["bucketSchema"]["properties"]
    assert set(properties) == {"title"}


async def test_rest_kubectl_and_manifests_never_disagree(operator: OperatorProcess, door: Door) -> None:
    made = await door.answer("POST", "/v1/namespaces", json={"namespace_name": "shop", "feature_extractors": []})
    where = {"X-Namespace": made["namespace_id"]}
    assert (await door.object("namespaces", "shop"))["metadata"]["annotations"]["mixpeek.com/id"] == made[
        "namespace_id"
    ]
    body = {"bucket_name": "by_rest", "bucket_schema": {"properties": {"title": {"type": "string"}}}}
    by_rest = await door.answer("POST", "/v1/buckets", json=body, headers=where)
    bucket = await door.object("buckets", "shop.by-rest")
    assert REST_MANAGER in {entry["manager"] for entry in bucket["metadata"]["managedFields"]}
    document = {
        "apiVersion": "mixpeek.com/v1alpha1",
        "kind": "Bucket",
        "metadata": {"name": "by-kubectl"},
        "spec": {"namespace": "shop", "bucketSchema": {"properties": {"sku": {"type": "string"}}}},
    }
    await door.kubectl("apply", "-f", "-", stdin=json.dumps(document))
    await door.kubectl("wait", "--for=condition=Ready", "bucket/by-kubectl", "--timeout=60s")
    found = await door.answer("GET", "/v1/buckets/by-kubectl", headers=where)
    assert found["bucket_id"].startswith("bkt_")
    patch = {"description": "changed over REST"}
    await door.answer("PATCH", f"/v1/buckets/{found['bucket_id']}", json=patch, headers=where)
    assert (await door.object("buckets", "by-kubectl"))["spec"]["description"] == "changed over REST"
    exported = await door.answer("GET", "/v1/manifest/export")
    assert "changed over REST" in exported
    assert "by_rest" in exported
    await door.kubectl("delete", "bucket", "shop.by-rest", "--timeout=60s")
    for _ in range(100):
        gone = await door.http.get(f"/v1/buckets/{by_rest['bucket_id']}", headers=where)
        if gone.status_code == 404:
            break
        await asyncio.sleep(0.05)
    assert gone.status_code == 404


async def test_secrets_over_rest_are_the_clusters(door: Door) -> None:
    body = {"secret_name": "TOKEN", "secret_value": "planted-value"}
    await door.answer("POST", "/v1/organizations/secrets", json=body)
    held = await door.kubectl("get", "secret", "mixpeek-secrets", "-o", "jsonpath={.data.TOKEN}")
    assert held == "cGxhbnRlZC12YWx1ZQ=="
    listed = await door.answer("GET", "/v1/organizations/secrets")
    assert listed["secrets"] == ["TOKEN"]
    assert "planted" not in await door.answer("GET", "/v1/manifest/export")
