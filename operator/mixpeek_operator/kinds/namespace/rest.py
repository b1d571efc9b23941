"""Namespace in the REST API."""

from __future__ import annotations

from typing import Any

from mixpeek_operator.core.resource import Resource
from mixpeek_operator.core.rest import Facts, RestView, extractor_id, times


def render(resource: Resource, facts: Facts) -> dict[str, Any]:
    """Return the wire's NamespaceModel."""
    spec = facts.spec
    used = spec.get("feature_extractors") or ()
    uses = [(str(item["feature_extractor_name"]), str(item["version"]), item) for item in used]
    indexes = [{"is_protected": False, **item} for item in spec.get("payload_indexes") or ()]
    models = {
        index.name: index.inference_model
        for name, version, item in uses
        if (name, version) in facts.catalog.extractors()
        for index in facts.catalog.vector_indexes(name, version, item.get("parameters") or {})
    }
    return {
        "object": "namespace",
        "namespace_id": resource.id,
        "namespace_name": resource.name,
        "namespace_type": spec.get("namespace_type", "standard"),
        "description": spec.get("description"),
        "feature_extractors": [
            {
                "feature_extractor_name": name,
                "version": version,
                "params": item.get("parameters"),
                "feature_extractor_id": extractor_id(name, version),
            }
            for name, version, item in uses
        ],
        "payload_indexes": indexes,
        "payload_index_count": len(indexes),
        "auto_create_indexes": bool(spec.get("auto_create_indexes", False)),
        "infrastructure": spec.get("infrastructure"),
        "vector_inference_map": models,
        "namespace_ready": _ready(resource),
        **{name: facts.counts.get(name, 0) for name in REST.counted},
        **times(resource),
    }


def _ready(resource: Resource) -> bool:
    return any(
        item.get("type") == "Ready" and item.get("status") == "True" for item in resource.status.get("conditions") or ()
    )


REST = RestView(
    path="/v1/namespaces",
    parameter="namespace_identifier",
    tag="Namespaces",
    render=render,
    counted=("document_count", "bucket_count", "collection_count", "object_count"),
)
