"""Taxonomy in the REST API."""

from __future__ import annotations

from typing import Any

from mixpeek_operator.core.resource import Resource
from mixpeek_operator.core.rest import Facts, RestView, times


def render(resource: Resource, facts: Facts) -> dict[str, Any]:
    """Return the wire's TaxonomyResponse."""
    spec = facts.spec
    config = dict(spec.get("config") or {})
    return {
        "taxonomy_id": resource.id,
        "taxonomy_name": resource.name,
        "description": spec.get("description"),
        "config": config,
        "retriever_id": config.get("retriever_id") or spec.get("retriever_id"),
        "input_mappings": config.get("input_mappings") or spec.get("input_mappings"),
        "version": resource.metadata.generation,
        "ready": any(
            item.get("type") == "Ready" and item.get("status") == "True"
            for item in resource.status.get("conditions") or ()
        ),
        "metadata": spec.get("metadata") or {},
        **times(resource),
    }


REST = RestView(path="/v1/taxonomies", parameter="taxonomy_identifier", tag="Taxonomies", render=render, cloned=True)
