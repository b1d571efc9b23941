"""Cluster in the REST API."""

from __future__ import annotations

from typing import Any

from mixpeek_operator.core.resource import Resource
from mixpeek_operator.core.rest import Facts, RestView, times


def render(resource: Resource, facts: Facts) -> dict[str, Any]:
    """Return the wire's ClusterMetadata."""
    spec = facts.spec
    vector = spec.get("vector_config") or {}
    attribute = spec.get("attribute_config") or {}
    uris = vector.get("feature_uris") or ([vector["feature_uri"]] if vector.get("feature_uri") else None)
    return {
        "cluster_id": resource.id,
        "cluster_name": resource.name,
        "description": spec.get("description"),
        "namespace_id": facts.namespace_id,
        "input_collections": list(spec.get("collection_ids") or ()),
        "filters": spec.get("filters"),
        "cluster_type": spec.get("cluster_type", "vector"),
        "feature_uris": uris,
        "algorithm": vector.get("clustering_method"),
        "sample_size": vector.get("sample_size"),
        "clustered_attributes": attribute.get("attributes"),
        "enrich_source": bool(spec.get("enrich_source_collection", False)),
        "source_enrichment_config": spec.get("source_enrichment_config"),
        "llm_labeling": spec.get("llm_labeling"),
        "status": "DRAFT",
        "metadata": spec.get("metadata") or {},
        **times(resource),
    }


REST = RestView(path="/v1/clusters", parameter="cluster_identifier", tag="Clusters", render=render)
