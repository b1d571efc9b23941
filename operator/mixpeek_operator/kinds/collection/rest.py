"""Collection in the REST API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixpeek_operator.core.catalog import Catalog
from mixpeek_operator.core.directory import CollectionInfo, Feature
from mixpeek_operator.core.resource import Resource
from mixpeek_operator.core.rest import Facts, RestView, extractor_id, times, vector_index

_PASSTHROUGH = {"feature_extractor_name": "passthrough_extractor", "version": "v1"}
"""What a collection without an extractor uses."""


def render(resource: Resource, facts: Facts) -> dict[str, Any]:
    """Return the wire's CollectionResponse; schema and vectors are known before the first document."""
    spec = facts.spec
    use = dict(spec.get("feature_extractor") or _PASSTHROUGH)
    name, version = str(use["feature_extractor_name"]), str(use["version"])
    parameters = use.get("parameters") or {}
    features = facts.collection.features if facts.collection else ()
    return {
        "collection_id": resource.id,
        "collection_name": resource.name,
        "description": spec.get("description"),
        "input_schema": spec.get("input_schema") or {"properties": dict(facts.source_properties)},
        "output_schema": {
            "properties": output_properties(facts.catalog, facts.collection, facts.source_properties)
            if facts.collection
            else _properties(facts.catalog.output_schema(name, version, parameters))
        },
        "feature_extractor": {
            "feature_extractor_name": name,
            "version": version,
            "parameters": parameters,
            "input_mappings": use.get("input_mappings") or {},
            "field_passthrough": use.get("field_passthrough") or [],
            "include_all_source_fields": bool(use.get("include_all_source_fields", False)),
            "feature_extractor_id": extractor_id(name, version),
        },
        "source": dict(spec["source"]),
        "vector_indexes": [indexed(feature) for feature in features],
        "payload_indexes": [],
        "enabled": bool(spec.get("enabled", True)),
        "metadata": spec.get("metadata") or {},
        "lifecycle_state": "active",
        "schema_version": resource.metadata.generation,
        "document_count": facts.counts.get("document_count", 0),
        "taxonomy_applications": spec.get("taxonomy_applications"),
        "cluster_applications": spec.get("cluster_applications"),
        "alert_applications": spec.get("alert_applications"),
        "retriever_enrichments": spec.get("retriever_enrichments"),
        "tier": facts.collection.tier if facts.collection else None,
        **times(resource),
    }


def indexed(feature: Feature) -> dict[str, Any]:
    """Return one item of `vector_indexes`: the index itself and, under `index`, the same once more."""
    index = vector_index(feature.index)
    return {**index, "feature_uri": feature.uri, "index": index}


def output_properties(
    catalog: Catalog, info: CollectionInfo, source: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the fields of a collection's documents: the extractor's own, those copied, and the vectors."""
    found = {name: dict(field) for name, field in source.items()} if info.include_all_source_fields else {}
    for path, target in info.field_passthrough:
        found[target] = dict(source.get(path) or {"type": "object"})
    found |= _properties(catalog.output_schema(info.extractor, info.version, info.parameters))
    for feature in info.features:
        found[feature.index.name] = {"type": "array", "description": feature.index.description}
    return found


def _properties(schema: Any) -> dict[str, dict[str, Any]]:
    """JSON schema types as the wire's field types."""
    wire: dict[str, Any] = {}
    for name, value in (schema.get("properties") or {}).items():
        kind = value.get("type", "object")
        wire[name] = {"type": kind if isinstance(kind, str) else "object", "description": value.get("description")}
    return wire


REST = RestView(
    path="/v1/collections",
    parameter="collection_identifier",
    tag="Collections",
    render=render,
    cloned=True,
    counted=("document_count",),
)
