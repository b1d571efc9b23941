"""Buckets, objects and uploads through the public SDK."""

from __future__ import annotations

import base64
import hashlib
import http.server
import re
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import mixpeek
import pytest
from mixpeek.exceptions import ApiException
from tests.system.conftest import Place, unique


def test_a_bucket_is_made_read_changed_and_deleted(place: Place) -> None:
    buckets = mixpeek.BucketsApi(place.api)
    made = place.bucket(description="texts to read", metadata={"team": "search"})
    assert re.fullmatch(r"bkt_[a-zA-Z0-9]{10}", str(made.bucket_id))
    assert (made.object_count, made.total_size_bytes) == (0, 0)
    assert made.bucket_schema is not None
    assert made.bucket_schema.properties["text"].required is True
    assert made.created_at is not None
    by_name = buckets.get_bucket(made.bucket_name)
    assert by_name.bucket_id == made.bucket_id
    assert by_name.metadata == {"team": "search"}
    patch = mixpeek.BucketPatchRequest.from_dict({"description": "changed"})
    assert patch is not None
    changed = buckets.patch_bucket(str(made.bucket_id), patch)
    assert (changed.description, changed.bucket_name) == ("changed", made.bucket_name)
    renamed = unique("renamed")
    update = mixpeek.BucketUpdateRequest.from_dict({"bucket_name": renamed})
    assert update is not None
    assert buckets.update_bucket(str(made.bucket_id), update).bucket_name == renamed
    buckets.delete_bucket(renamed)
    with pytest.raises(ApiException) as gone:
        buckets.get_bucket(str(made.bucket_id))
    assert gone.value.status == 404


def test_buckets_are_listed_in_every_way(place: Place) -> None:
    buckets = mixpeek.BucketsApi(place.api)
    prefix = unique("listed")
    names = [f"{prefix}_{index}" for index in range(5)]
    for name in names:
        place.bucket(bucket_name=name)
    request = mixpeek.ListBucketsRequest.from_dict({"search": prefix, "sort": {"field": "bucket_name"}})
    first = buckets.list_buckets(limit=2, include_total=True, list_buckets_request=request)
    assert [item.bucket_name for item in first.results] == names[:2]
    assert first.total_count == 5
    assert first.pagination.total == 5
    cursor = first.pagination.next_cursor
    assert cursor
    second = buckets.list_buckets(limit=2, cursor=cursor, list_buckets_request=request)
    assert [item.bucket_name for item in second.results] == names[2:4]
    third = buckets.list_buckets(page=3, page_size=2, list_buckets_request=request)
    assert [item.bucket_name for item in third.results] == names[4:]
    assert third.pagination.next_cursor is None
    got = buckets.list_buckets_get(search=prefix.upper(), limit=50)
    assert sorted(item.bucket_name for item in got.results) == names
    # The body wins over the query, and filters and sorts are read there.
    body = {
        "limit": 1,
        "offset": 1,
        "search": prefix,
        "sorts": [{"field": "bucket_name", "direction": "desc"}],
        "filters": {"NOT": [{"field": "bucket_name", "operator": "eq", "value": names[4]}]},
    }
    answer = place.http.post("/v1/buckets/list?limit=4", json=body).json()
    assert [item["bucket_name"] for item in answer["results"]] == [names[2]]


def test_a_cursor_of_another_list_is_refused(place: Place) -> None:
    for _ in range(2):
        place.bucket()
    page = place.http.post("/v1/buckets/list", json={"limit": 1}).json()
    cursor = page["pagination"]["next_cursor"]
    answers = [
        place.http.post("/v1/collections/list", json={"cursor": cursor}),
        place.http.post("/v1/buckets/list", json={"cursor": cursor, "search": "other"}),
        place.http.post("/v1/buckets/list", json={"cursor": "nonsense"}),
    ]
    assert [answer.status_code for answer in answers] == [400, 400, 400]


def test_the_schema_may_be_written_as_the_seeds_write_it(place: Place) -> None:
    name = unique("alias")
    made = place.http.post("/v1/buckets", json={"bucket_name": name, "schema": {"properties": {"t": {"type": "text"}}}})
    assert made.status_code == 200
    read = mixpeek.BucketResponse.from_dict(made.json())
    assert read is not None
    assert read.bucket_schema is not None
    assert list(read.bucket_schema.properties) == ["t"]
    # What the SDK sends for every field it was not told about.
    noise = {"properties": {"t": {"type": "text", "required": False, "default": None}}}
    kept = place.http.post("/v1/buckets", json={"bucket_name": unique("noise"), "bucket_schema": noise}).json()
    assert kept["bucket_schema"]["properties"]["t"].get("default") is None


def test_objects_with_fields_at_the_root(place: Place) -> None:
    objects = mixpeek.BucketObjectsApi(place.api)
    bucket = str(place.bucket().bucket_id)
    request = mixpeek.CreateObjectRequest.from_dict(
        {"text": "hot soup", "category": "kitchen", "price": 3.5, "metadata": {"lang": "en"}}
    )
    assert request is not None
    made = objects.create_object_buckets(bucket, request)
    assert made.bucket_id == bucket
    assert str(made.object_id).startswith("obj_")
    assert made.additional_properties["category"] == "kitchen"
    read = objects.get_object_buckets(bucket, str(made.object_id))
    assert read.additional_properties["metadata"] == {"lang": "en"}
    patch = mixpeek.PatchObjectRequest.from_dict({"category": "outdoor"})
    assert patch is not None
    patched = objects.patch_object_buckets(bucket, str(made.object_id), patch)
    assert patched.additional_properties["category"] == "outdoor"
    assert patched.additional_properties["price"] == 3.5
    update = mixpeek.UpdateObjectRequest.from_dict({"price": 4.5})
    assert update is not None
    updated = objects.update_object_buckets(bucket, str(made.object_id), update)
    assert updated.additional_properties["price"] == 4.5
    assert mixpeek.BucketsApi(place.api).get_bucket(bucket).object_count == 1
    assert objects.delete_object_buckets_with_http_info(bucket, str(made.object_id)).status_code == 204
    with pytest.raises(ApiException) as gone:
        objects.get_object_buckets(bucket, str(made.object_id))
    assert gone.value.status == 404
    assert mixpeek.BucketsApi(place.api).get_bucket(bucket).object_count == 0


@pytest.fixture(scope="module")
def blob_bucket(place: Place) -> str:
    schema = {"properties": {"doc": {"type": "text"}, "photo": {"type": "image"}, "title": {"type": "string"}}}
    return str(place.bucket(bucket_schema=schema).bucket_id)


PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.mark.parametrize(
    ("property", "kind", "data"),
    [
        ("doc", "text", "plain words, as they are"),
        ("photo", "image", f"data:image/png;base64,{base64.b64encode(PNG).decode()}"),
        ("photo", "image", base64.b64encode(PNG).decode()),
        ("doc", "text", "data:text/plain;base64," + base64.b64encode(b"words in a data URI").decode()),
    ],
)
def test_blobs_are_taken_inline(place: Place, blob_bucket: str, property: str, kind: str, data: str) -> None:
    objects = mixpeek.BucketObjectsApi(place.api)
    request = mixpeek.CreateObjectRequest.from_dict(
        {"title": "x", "blobs": [{"property": property, "type": kind, "data": data}]}
    )
    assert request is not None
    made = objects.create_object_buckets(blob_bucket, request)
    assert made.blobs is not None
    assert [blob.var_property for blob in made.blobs] == [property]
    assert str(made.blobs[0].blob_id).startswith("blob_")
    read = objects.get_object_buckets(blob_bucket, str(made.object_id), return_presigned_urls=True)
    assert read.blobs is not None
    if property == "photo":
        link = place.http.get(f"/v1/buckets/{blob_bucket}/objects/{made.object_id}?return_presigned_urls=true").json()
        url = link["blobs"][0]["presigned_url"]
        assert httpx.get(url).content == PNG


def test_a_url_of_a_private_address_is_not_fetched(place: Place, blob_bucket: str) -> None:
    hits: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hits.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    for server in _listening(Handler):
        url = f"http://127.0.0.1:{server.server_port}/secret.png"
        body = {"blobs": [{"property": "photo", "type": "image", "data": url}]}
        answer = place.http.post(f"/v1/buckets/{blob_bucket}/objects", json=body)
    assert answer.status_code in (400, 403, 422)
    assert hits == []


def _listening(handler: Any) -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"category": "no text"}, ["text"]),
        ({"text": "a", "price": "dear"}, ["price"]),
        ({"text": "a", "colour": "red"}, ["colour"]),
        ({"price": "dear", "colour": "red"}, ["text", "price", "colour"]),
    ],
)
def test_objects_against_the_schema_are_refused(place: Place, body: dict[str, Any], words: list[str]) -> None:
    bucket = place.bucket().bucket_id
    answer = place.http.post(f"/v1/buckets/{bucket}/objects", json=body)
    assert answer.status_code == 422
    found = str(answer.json()["error"]["details"]["validation_errors"])
    assert all(word in found for word in words)


def test_many_objects_of_which_some_are_wrong(place: Place) -> None:
    objects = mixpeek.BucketObjectsApi(place.api)
    bucket = str(place.bucket().bucket_id)
    request = mixpeek.CreateObjectsBatchRequest.from_dict(
        {"objects": [{"text": "fine"}, {"category": "no text"}, {"text": "fine too", "price": 1.0}]}
    )
    assert request is not None
    made = objects.create_objects_batch_buckets(bucket, request)
    assert (made.total_requested, made.succeeded_count, made.failed_count) == (3, 2, 1)
    assert made.failed[0].object_index == 1
    assert "text" in made.failed[0].error
    assert made.failed[0].error_type
    assert mixpeek.BucketsApi(place.api).get_bucket(bucket).object_count == 2


def test_objects_are_listed_filtered_sorted_and_paged(place: Place) -> None:
    objects = mixpeek.BucketObjectsApi(place.api)
    bucket = str(place.bucket().bucket_id)
    ids = place.fill(bucket)
    request = mixpeek.ListObjectsRequest.from_dict(
        {
            "filters": {"AND": [{"field": "category", "operator": "in", "value": ["toys", "kitchen"]}]},
            "sort": {"field": "price", "direction": "desc"},
        }
    )
    page = objects.list_objects_buckets(bucket, limit=3, include_total=True, list_objects_request=request)
    assert [item.additional_properties["price"] for item in page.results] == [120.0, 60.0, 35.0]
    assert page.pagination.total == 4
    rest = objects.list_objects_buckets(
        bucket, limit=3, cursor=page.pagination.next_cursor, list_objects_request=request
    )
    assert [item.additional_properties["price"] for item in rest.results] == [18.5]
    got = objects.list_objects_get_buckets(bucket, page=2, page_size=4)
    assert len(got.results) == 2
    assert {str(item.object_id) for item in got.results} <= set(ids)


def test_objects_are_aggregated(place: Place) -> None:
    bucket = str(place.bucket().bucket_id)
    place.fill(bucket)
    request = mixpeek.ObjectAggregationRequest.from_dict(
        {
            "group_by": [{"field": "category"}],
            "aggregations": [
                {"function": "count", "alias": "n"},
                {"function": "avg", "field": "price", "alias": "mean"},
            ],
        }
    )
    assert request is not None
    answer = mixpeek.BucketObjectsApi(place.api).aggregate_objects_buckets(bucket, request)
    assert answer.results


def test_a_unique_key_decides_what_is_the_same_object(place: Place) -> None:
    objects = mixpeek.BucketObjectsApi(place.api)
    schema = {"properties": {"text": {"type": "text"}, "sku": {"type": "string", "required": True}}}
    unique_key = {"fields": ["sku"], "default_policy": "upsert"}
    bucket = str(place.bucket(bucket_schema=schema, unique_key=unique_key).bucket_id)
    bodies = [{"sku": "a", "text": "first"}, {"sku": "a", "text": "second"}]
    requests = [mixpeek.CreateObjectRequest.from_dict(body) for body in bodies]
    first, second = (objects.create_object_buckets(bucket, item) for item in requests if item)
    assert first.object_id == second.object_id
    assert mixpeek.BucketsApi(place.api).get_bucket(bucket).object_count == 1
    with pytest.raises(ApiException) as clash:
        objects.create_object_buckets(bucket, requests[0], policy="insert")  # type: ignore[arg-type]
    assert clash.value.status == 409


def test_an_upload_makes_an_object(place: Place) -> None:
    uploads = mixpeek.BucketUploadsApi(place.api)
    bucket = str(place.bucket().bucket_id)
    content = b"the words of a file"
    request = mixpeek.CreateUploadRequest(
        filename="words.txt",
        content_type="text/plain",
        file_size_bytes=len(content),
        create_object_on_confirm=True,
        blob_property="text",
        blob_type="text",
        object_metadata={"category": "files"},
        metadata={"from": "test"},
    )
    made = uploads.create_upload_buckets(bucket, request)
    assert made.upload_id.startswith("upl_")
    assert (made.bucket_id, made.filename, made.content_type) == (bucket, "words.txt", "text/plain")
    assert made.expires_at > made.created_at
    with pytest.raises(ApiException) as early:
        uploads.confirm_upload_buckets(bucket, made.upload_id)
    assert early.value.status in (400, 404, 409)
    put = httpx.put(str(made.presigned_url), content=content, headers={"Content-Type": "text/plain"})
    assert put.status_code == 200
    confirmed = uploads.confirm_upload_buckets(
        bucket, made.upload_id, confirm_upload_request=mixpeek.ConfirmUploadRequest(file_size_bytes=len(content))
    )
    assert confirmed.status.value in ("COMPLETED", "ACTIVE")
    assert confirmed.file_hash == hashlib.sha256(content).hexdigest()
    found = mixpeek.BucketObjectsApi(place.api).get_object_buckets(bucket, str(confirmed.object_id))
    assert found.additional_properties["metadata"] == {"category": "files"}
    listed = uploads.list_uploads_buckets(bucket, include_total=True)
    assert [item.upload_id for item in listed.results] == [made.upload_id]
    got: Any = uploads.get_upload_buckets(bucket, made.upload_id)
    assert got["object_id"] == confirmed.object_id
    again = uploads.confirm_upload_buckets(bucket, made.upload_id)
    assert again.object_id == confirmed.object_id
    assert httpx.put(str(made.presigned_url), content=b"other words").status_code == 409, "the bytes were checked"
    other = uploads.create_upload_buckets(bucket, request.model_copy(update={"file_hash": None}))
    uploads.delete_upload_buckets(bucket, other.upload_id)
    assert httpx.put(str(other.presigned_url), content=content).status_code == 409


def test_an_upload_of_the_wrong_size_or_hash_is_not_confirmed(place: Place) -> None:
    uploads = mixpeek.BucketUploadsApi(place.api)
    bucket = str(place.bucket().bucket_id)
    kind = "text/plain"
    digest = hashlib.sha256(b"right").hexdigest()
    sized = mixpeek.CreateUploadRequest(filename="text.txt", content_type=kind, file_size_bytes=5)
    hashed = mixpeek.CreateUploadRequest(filename="text.txt", content_type=kind, file_hash=digest)
    for request in (sized, hashed):
        made = uploads.create_upload_buckets(bucket, request)
        httpx.put(str(made.presigned_url), content=b"wrong bytes", headers={"Content-Type": "text/plain"})
        with pytest.raises(ApiException) as refused:
            uploads.confirm_upload_buckets(bucket, made.upload_id)
        assert refused.value.status in (400, 409, 422)


def test_many_uploads_at_once_and_one_forgotten(place: Place) -> None:
    uploads = mixpeek.BucketUploadsApi(place.api)
    bucket = str(place.bucket().bucket_id)
    item = {"content_type": "text/plain", "blob_property": "text", "blob_type": "text"}
    request = mixpeek.BatchUploadRequest.from_dict({"uploads": [{**item, "filename": f"{n}.txt"} for n in range(3)]})
    assert request is not None
    made = uploads.create_uploads_batch_buckets(bucket, request)
    ids = [upload.upload_id for upload in made.uploads]
    for upload in made.uploads[:2]:
        httpx.put(str(upload.presigned_url), content=upload.upload_id.encode(), headers={"Content-Type": "text/plain"})
    wanted = mixpeek.BatchConfirmRequest.from_dict({"confirmations": [{"upload_id": id} for id in ids]})
    assert wanted is not None
    uploads.confirm_uploads_batch_buckets(bucket, wanted)
    assert mixpeek.BucketsApi(place.api).get_bucket(bucket).object_count == 2
    assert uploads.delete_upload_buckets_with_http_info(bucket, ids[2]).status_code == 204
    with pytest.raises(ApiException) as gone:
        uploads.get_upload_buckets(bucket, ids[2])
    assert gone.value.status == 404


def test_a_link_lets_only_its_own_file_in(place: Place) -> None:
    uploads = mixpeek.BucketUploadsApi(place.api)
    bucket = str(place.bucket().bucket_id)
    made = uploads.create_upload_buckets(
        bucket, mixpeek.CreateUploadRequest(filename="text", content_type="text/plain")
    )
    url = str(made.presigned_url)
    assert httpx.put(url[:-3] + "AAA", content=b"x").status_code in (401, 403)
    assert httpx.get(url).status_code in (401, 403, 405)
