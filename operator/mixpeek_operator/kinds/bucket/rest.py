"""Bucket in the REST API."""

from __future__ import annotations

from typing import Any

from mixpeek_operator.core.resource import Resource
from mixpeek_operator.core.rest import Facts, RestView, times


def render(resource: Resource, facts: Facts) -> dict[str, Any]:
    """Return the wire's BucketResponse."""
    spec = facts.spec
    return {
        "bucket_id": resource.id,
        "bucket_name": resource.name,
        "description": spec.get("description"),
        "bucket_schema": spec.get("bucket_schema") or {"properties": {}},
        "unique_key": spec.get("unique_key"),
        "metadata": spec.get("metadata") or {},
        "status": "ACTIVE",
        "is_locked": False,
        **{name: facts.counts.get(name, 0) for name in REST.counted},
        **times(resource),
    }


REST = RestView(
    path="/v1/buckets",
    parameter="bucket_identifier",
    tag="Buckets",
    render=render,
    counted=("object_count", "total_size_bytes"),
)
