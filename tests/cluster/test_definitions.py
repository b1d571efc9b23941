"""Our CustomResourceDefinitions on a real API server: every kind, its rules, and what kubectl shows of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from tests.servers.kubernetes.control_plane import ControlPlane

from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.core.normal import to_camel
from mixpeek_operator.core.resource import API_VERSION, metadata_name
from mixpeek_operator.kinds import kinds

SCHEMAS = {name: kind.schema for name, kind in kinds().items()}


def document(schema: KindSchema, namespace: str, spec: Mapping[str, Any] | None = None) -> dict[str, Any]:
    canonical = dict(schema.example)
    return {
        "apiVersion": API_VERSION,
        "kind": schema.name,
        "metadata": {"name": metadata_name(canonical.get("namespace"), canonical["name"]), "namespace": namespace},
        "spec": to_camel(schema, canonical) if spec is None else dict(spec),
    }


def apply(plane: ControlPlane, body: Mapping[str, Any]) -> None:
    plane.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(body))


def refused(plane: ControlPlane, body: Mapping[str, Any]) -> str:
    return plane.refused("apply", "--server-side", "-f", "-", stdin=json.dumps(body))


def paths(schema: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every property of a schema with its description."""
    for name, value in (schema.get("properties") or {}).items():
        path = f"{prefix}.{name}" if prefix else name
        yield path, value.get("description", "")
        inside = value.get("items") or value.get("additionalProperties") or value
        if isinstance(inside, dict):
            yield from paths(inside, path)


def test_every_example_is_accepted_and_listed_by_one_category(
    control_plane: ControlPlane, kubernetes_namespace: Callable[[], str]
) -> None:
    namespace = kubernetes_namespace()
    documents = [document(schema, namespace) for schema in SCHEMAS.values()]
    control_plane.kubectl("apply", "--server-side", "-f", "-", stdin="\n---\n".join(map(json.dumps, documents)))
    conditions = [
        {"type": "Ready", "status": "False", "reason": "WaitingForBucket", "message": "m"},
        {"type": "Synced", "status": "False", "reason": "WaitingForBucket", "message": "m"},
    ]
    for body in documents:
        path = f"/apis/{API_VERSION}/namespaces/{namespace}/{SCHEMAS[body['kind']].plural}/{body['metadata']['name']}"
        found = json.loads(control_plane.request("GET", path))
        assert found["spec"] == body["spec"], "the API server adds nothing to what its author wrote"
        control_plane.request("PUT", f"{path}/status", {**found, "status": {"conditions": conditions}})
        assert json.loads(control_plane.request("GET", path))["metadata"]["generation"] == 1
    listed = control_plane.kubectl("-n", namespace, "get", "mixpeek")
    assert listed is not None
    for schema in SCHEMAS.values():
        assert f"{schema.name.lower()}.{API_VERSION.partition('/')[0]}/" in listed
    headers = [line.split() for line in listed.splitlines() if line.startswith("NAME")]
    assert all({"READY", "REASON", "AGE"} <= set(header) for header in headers)
    assert listed.count("WaitingForBucket") == len(SCHEMAS)


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_what_cannot_change_is_refused_by_the_api_server(
    control_plane: ControlPlane, kubernetes_namespace: Callable[[], str], name: str
) -> None:
    namespace = kubernetes_namespace()
    body = document(SCHEMAS[name], namespace)
    apply(control_plane, body)
    body["spec"]["description"] = "this can change"
    apply(control_plane, body)
    if name == "Namespace":
        return
    body["spec"]["namespace"] = "elsewhere"
    message = refused(control_plane, body)
    assert "spec.namespace" in message
    assert "cannot change" in message


def test_rules_between_fields_hold(control_plane: ControlPlane, kubernetes_namespace: Callable[[], str]) -> None:
    namespace = kubernetes_namespace()
    spec = {"namespace": "shop", "version": "1.0.0", "source": {"path": "a", "url": "https://example.com/a.zip"}}
    assert "exactly one of" in refused(control_plane, document(SCHEMAS["Extractor"], namespace, spec))
    spec["source"] = {"path": "a"}
    apply(control_plane, document(SCHEMAS["Extractor"], namespace, spec))
    assert "version cannot change" in refused(
        control_plane, document(SCHEMAS["Extractor"], namespace, {**spec, "version": "2.0.0"})
    )
    unknown = document(SCHEMAS["Bucket"], namespace)
    unknown["spec"]["colour"] = "red"
    assert "colour" in refused(control_plane, unknown)


def test_keys_of_users_are_never_respelled_nor_pruned(
    control_plane: ControlPlane, kubernetes_namespace: Callable[[], str]
) -> None:
    namespace = kubernetes_namespace()
    body = document(SCHEMAS["Bucket"], namespace)
    body["spec"]["metadata"] = {"my_key": {"camelKey": [1, {"Deep_Key": None}]}}
    body["spec"]["bucketSchema"] = {"properties": {"Product_Name": {"type": "text"}, "skuCode": {"type": "string"}}}
    apply(control_plane, body)
    path = f"/apis/{API_VERSION}/namespaces/{namespace}/buckets/{body['metadata']['name']}"
    found = json.loads(control_plane.request("GET", path))["spec"]
    assert found["metadata"] == body["spec"]["metadata"]
    assert found["bucketSchema"] == body["spec"]["bucketSchema"]


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_explain_documents_every_field(control_plane: ControlPlane, name: str) -> None:
    plural = SCHEMAS[name].plural
    served = json.loads(
        control_plane.request("GET", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.mixpeek.com")
    )
    root = served["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    silent = [path for path, text in paths(root) if not text and path != "metadata"]
    assert silent == []
    explained = control_plane.kubectl("explain", f"--api-version={API_VERSION}", f"{plural}.spec.name")
    assert explained is not None
    assert "unique per kind within the Mixpeek namespace" in explained
