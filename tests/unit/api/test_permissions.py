"""Which permission a route asks for, and that no route can be left open by accident."""

from __future__ import annotations

import pytest

from mixpeek_operator.api import auth


@pytest.mark.parametrize(
    ("method", "path", "permission"),
    [
        ("GET", "/v1/buckets", "read"),
        ("POST", "/v1/buckets", "write"),
        ("POST", "/v1/buckets/list", "read"),
        ("PATCH", "/v1/buckets/{bucket_id}", "write"),
        ("PUT", "/v1/buckets/{bucket_id}", "write"),
        ("DELETE", "/v1/buckets/{bucket_id}", "delete"),
        ("POST", "/v1/retrievers/{retriever_id}/execute", "read"),
        ("POST", "/v1/retrievers/{retriever_id}/execute/explain", "read"),
        ("POST", "/v1/retrievers/{retriever_id}/explain", "read"),
        ("POST", "/v1/retrievers/{retriever_id}/executions/list", "read"),
        ("DELETE", "/v1/retrievers/{retriever_id}/cache", "delete"),
        ("POST", "/v1/manifest/apply", "write"),
        ("POST", "/v1/manifest/export", "read"),
        ("POST", "/v1/manifest/validate", "read"),
        ("POST", "/v1/buckets/{bucket_id}/batches/{batch_id}/submit", "write"),
        ("GET", "/v1/organizations/secrets", "admin"),
        ("DELETE", "/v1/organizations/users/{user_email}", "admin"),
        ("GET", "/v1/health/deep", "read"),
        ("GET", "/v1/discovery/stages", None),
        ("GET", "/v1/retrievers/stages", None),
        ("GET", "/v1/collections/features/extractors", None),
        ("GET", "/v1/collections/features/extractors/{feature_extractor_id}", None),
        ("GET", "/v1/health", None),
        ("PUT", "/v1/blobs/{token}", None),
        ("GET", "/v1/collections/{collection_id}/features", "read"),
        ("GET", "/v1/retrievers/{retriever_id}", "read"),
    ],
)
def test_permission_of(method: str, path: str, permission: str | None) -> None:
    assert auth.permission_for(method, path) == permission
