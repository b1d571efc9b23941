"""Our CustomResourceDefinitions on a real API server: every kind, its rules, and what kubectl shows of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from tests.servers.kubernetes.control_plane import ControlPlane

from mixpeek_operator.core.fields import Immutable
from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.core.normal import to_camel
from mixpeek_operator.core.refs import is_model, unwrap
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


def fixed(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Every field that is marked Immutable, and its path; an item of a list has no identity and may be replaced."""
    for name, field in model.model_fields.items():
        alternatives, marks = unwrap(field.annotation, field.metadata)
        path = (*above, str(field.alias or name))
        if any(isinstance(mark, Immutable) for mark in marks):
            yield path, field
        else:
            for option in alternatives:
                if is_model(option):
                    yield from fixed(option, path)


FIXED = {(name, ".".join(path)): field for name, schema in SCHEMAS.items() for path, field in fixed(schema.spec)}
OTHERS = {
    ("Bucket", "uniqueKey"): {"fields": ["category"]},
    ("Collection", "source"): {"type": "bucket", "bucketIds": ["others"]},
    ("Extractor", "source"): {"path": "elsewhere"},
    ("Retriever", "stages"): [{"stageName": "top", "stageType": "reduce", "stageId": "limit"}],
    ("Retriever", "inputSchema"): {"query": {"type": "text"}},
    ("Taxonomy", "config.taxonomyType"): "hierarchical",
}
"""Other values of fields whose values follow from no type: models, lists, and what tells variants apart."""


def held(spec: dict[str, Any], path: str, field: FieldInfo) -> Any:
    """The value at a path, put there when the example has none, and the default where there is one."""
    *above, last = path.split(".")
    for step in above:
        spec = spec.setdefault(step, {})
    if last not in spec and field.examples:
        spec[last] = field.examples[0]
    return spec.get(last, field.default)


def other(kind: str, path: str, field: FieldInfo, value: Any) -> Any:
    """A valid value that is not `value`."""
    if (kind, path) in OTHERS:
        return OTHERS[kind, path]
    options, _marks = unwrap(field.annotation, field.metadata)
    if get_origin(options[0]) is Literal:
        return next(option for option in get_args(options[0]) if option != value)
    assert options == (str,), f"write another value of {kind} {path} into OTHERS"
    return f"{value}2"


@pytest.mark.parametrize(("kind", "path"), sorted(FIXED))
def test_what_cannot_change_is_refused_by_the_api_server(
    control_plane: ControlPlane, kubernetes_namespace: Callable[[], str], kind: str, path: str
) -> None:
    field = FIXED[kind, path]
    body = document(SCHEMAS[kind], kubernetes_namespace())
    value = held(body["spec"], path, field)
    apply(control_plane, body)
    body["spec"]["description"] = "this can change"
    apply(control_plane, body)
    *above, last = path.split(".")
    place = body["spec"]
    for step in above:
        place = place[step]
    place[last] = other(kind, path, field, value)
    assert f"{last} cannot change: " in refused(control_plane, body)
    if value != field.default and not above and not field.is_required():
        # To leave it out is a change, too; where its parent may be left out it is for the policies to tell.
        del place[last]
        assert f"{last} cannot change: " in refused(control_plane, body)


def test_rules_between_fields_hold(control_plane: ControlPlane, kubernetes_namespace: Callable[[], str]) -> None:
    namespace = kubernetes_namespace()
    spec = {"namespace": "shop", "version": "1.0.0", "source": {"path": "a", "url": "https://example.com/a.zip"}}
    assert "exactly one of" in refused(control_plane, document(SCHEMAS["Extractor"], namespace, spec))
    spec["source"] = {"path": "a"}
    apply(control_plane, document(SCHEMAS["Extractor"], namespace, spec))
    other = {**spec, "source": {"path": "b"}}
    assert "source cannot change" in refused(control_plane, document(SCHEMAS["Extractor"], namespace, other))
    apply(control_plane, document(SCHEMAS["Extractor"], namespace, {**other, "version": "2.0.0"}))
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
