"""CustomResourceDefinitions of the kinds."""

from __future__ import annotations

from typing import Any

from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.core.resource import API_GROUP
from mixpeek_operator.generate.structural import model_schema

VERSION = "v1alpha1"


def definition(kind: KindSchema) -> dict[str, Any]:
    """Return the CustomResourceDefinition of a kind."""
    root = {
        "type": "object",
        "description": (kind.spec.__doc__ or kind.name).strip().splitlines()[0],
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of this schema."},
            "kind": {"type": "string", "description": "Kind of the resource."},
            "metadata": {"type": "object"},
            "spec": _correlated({"description": "What is declared.", **model_schema(kind.spec)}),
            "status": {"description": "What was found, written by the operator.", **model_schema(kind.status)},
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{API_GROUP}"},
        "spec": {
            "group": API_GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": list(kind.short_names),
                "categories": ["mixpeek"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _columns(kind),
                    "schema": {"openAPIV3Schema": root},
                }
            ],
        },
    }


def _columns(kind: KindSchema) -> list[dict[str, Any]]:
    columns: list[dict[str, Any]] = []
    for column in kind.columns:
        entry: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.json_path}
        if column.description:
            entry["description"] = column.description
        if column.priority:
            entry["priority"] = column.priority
        columns.append(entry)
    for condition, text in (("Ready", "Whether it can be used"), ("Synced", "Whether the last pass succeeded")):
        path = f'.status.conditions[?(@.type=="{condition}")].status'
        columns.append({"name": condition, "type": "string", "jsonPath": path, "description": text})
    columns.append(
        {
            "name": "Reason",
            "type": "string",
            "jsonPath": '.status.conditions[?(@.type=="Ready")].reason',
            "description": "Why it is ready or not",
        }
    )
    columns.append({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"})
    return columns


def _correlated(schema: Any, inside_list: bool = False) -> Any:
    """Drop transition rules below lists and maps, where the API server cannot tell which old value is meant."""
    if isinstance(schema, list):
        return [_correlated(item, inside_list) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "x-kubernetes-validations" and inside_list:
            kept = [rule for rule in value if "oldSelf" not in rule["rule"]]
            if kept:
                result[key] = kept
        elif key == "properties":
            result[key] = {name: _correlated(item, inside_list) for name, item in value.items()}
        elif key in ("items", "additionalProperties"):
            result[key] = _correlated(value, True)
        else:
            result[key] = value
    return result
