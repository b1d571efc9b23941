"""Download links through the public SDK: on objects, documents and results, good for one file without credentials."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import mixpeek
import pytest
from tests.system.conftest import Place

PIXEL = b"\x89PNG\r\n\x1a\n" + bytes(range(200))


@pytest.fixture(scope="module")
def pictured(place: Place) -> tuple[str, str, str]:
    """Bucket, object and collection of one text with a picture."""
    properties = {"text": {"type": "text", "required": True}, "photo": {"type": "image"}}
    bucket = place.bucket(bucket_schema={"properties": properties})
    collection = place.collection({"type": "bucket", "bucket_ids": [bucket.bucket_id]})
    picture = f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"
    body = {"text": "A red tent", "blobs": [{"property": "photo", "type": "image", "data": picture}]}
    made = place.http.post(f"/v1/buckets/{bucket.bucket_id}/objects", json=body).raise_for_status().json()
    batch = place.run(str(bucket.bucket_id), [made["object_id"]])
    assert batch.status is mixpeek.TaskStatusEnum.COMPLETED, batch
    return str(bucket.bucket_id), made["object_id"], str(collection.collection_id)


def _fetched(url: Any) -> bytes:
    return httpx.get(url, timeout=30).raise_for_status().content


def test_an_object_shows_links_to_its_files(place: Place, pictured: tuple[str, str, str]) -> None:
    bucket, object_id, _ = pictured
    api = mixpeek.BucketObjectsApi(place.api)
    shown = api.get_object_buckets(bucket, object_id, return_presigned_urls=True)
    request = mixpeek.ListObjectsRequest.from_dict({"return_presigned_urls": True})
    listed = api.list_objects_buckets(bucket, list_objects_request=request)
    assert shown.blobs and listed.results and listed.results[0].blobs
    for blob in (shown.blobs[0], listed.results[0].blobs[0]):
        assert _fetched(blob.presigned_url) == PIXEL
    plain = api.get_object_buckets(bucket, object_id)
    assert plain.blobs and plain.blobs[0].presigned_url is None


def test_a_document_shows_links_to_the_files_it_was_made_of(place: Place, pictured: tuple[str, str, str]) -> None:
    collection = pictured[2]
    api = mixpeek.CollectionDocumentsApi(place.api)
    request = mixpeek.ListDocumentsRequest.from_dict({"return_presigned_urls": True})
    (document,) = api.list_documents(collection, list_documents_request=request).results or []
    one = api.get_document(collection, document.document_id, return_presigned_urls=True)
    for found in (document, one):
        (blob,) = found.document_blobs or []
        assert (blob.var_field, blob.role, blob.size_bytes) == ("photo", "source", len(PIXEL))
        assert _fetched(blob.presigned_url) == PIXEL


def test_results_show_links_however_they_are_asked_for(place: Place, pictured: tuple[str, str, str]) -> None:
    collection = pictured[2]
    find = {"stage_id": "attribute_filter", "parameters": {"field": "text", "operator": "exists", "value": True}}
    body: dict[str, Any] = {"collection_identifiers": [collection], "stages": [find], "inputs": {}}
    for flag in ("return_presigned_urls", "return_urls"):
        answer = place.http.post("/v1/retrievers/execute", json={**body, flag: True}).raise_for_status().json()
        (blob,) = answer["documents"][0]["document_blobs"]
        assert _fetched(blob["presigned_url"]) == PIXEL
    plain = place.http.post("/v1/retrievers/execute", json=body).raise_for_status().json()
    assert "document_blobs" not in plain["documents"][0]
