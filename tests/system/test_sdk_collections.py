"""Collections, batches and tasks through the public SDK."""

from __future__ import annotations

import re
from typing import Any

import httpx
import mixpeek
import pytest
from mixpeek.exceptions import ApiException
from tests.system.conftest import Library, Place, eventually, unique

TEXT_VECTOR = "text_extractor_v1_embedding"


@pytest.fixture(scope="module")
def bucket(place: Place) -> str:
    return str(place.bucket().bucket_id)


def test_a_collection_knows_its_schema_and_vectors_before_any_document(place: Place, bucket: str) -> None:
    made = place.collection({"type": "bucket", "bucket_ids": [bucket]}, description="six texts", metadata={"a": 1})
    assert re.fullmatch(r"col_[a-zA-Z0-9]{10}", str(made.collection_id))
    assert made.source.bucket_ids == [bucket]
    assert made.output_schema is not None
    assert {"text", "category", "price", "added"} <= set(made.output_schema.properties)
    assert made.vector_indexes is not None
    assert TEXT_VECTOR in {item.to_dict()["name"] for item in made.vector_indexes}
    assert made.document_count == 0
    assert made.metadata == {"a": 1}
    raw = place.http.get(f"/v1/collections/{made.collection_name}").json()
    assert raw["collection_id"] == made.collection_id
    index = next(item for item in raw["vector_indexes"] if item["name"] == TEXT_VECTOR)
    assert (index["dimensions"], index["type"], index["distance"]) == (384, "dense", "cosine")
    assert len(index["description"]) >= 10
    assert raw["feature_extractor"]["feature_extractor_id"] == "text_extractor_v1"
    assert raw["feature_extractor"]["input_mappings"] == {"text": "text"}


def test_features_of_a_collection(library: Library) -> None:
    found = mixpeek.CollectionsApi(library.place.api).describe_collection_features(library.collection_id)
    by_name = {item.vector_index.name: item for item in found.features}
    text = by_name[TEXT_VECTOR]
    assert text.feature_uri == "mixpeek://text_extractor@v1/text_embedding"
    assert text.feature_address
    assert (text.feature_extractor_name, text.version) == ("text_extractor", "v1")


def test_collections_are_listed_patched_cloned_and_deleted(place: Place, bucket: str) -> None:
    collections = mixpeek.CollectionsApi(place.api)
    prefix = unique("copied")
    first = place.collection({"type": "bucket", "bucket_ids": [bucket]}, collection_name=f"{prefix}_a")
    changed: Any = collections.update_collection(
        str(first.collection_id), {"description": "changed", "metadata": {"x": "y"}}
    )
    assert (changed.description, changed.metadata) == ("changed", {"x": "y"})
    request = mixpeek.CloneCollectionRequest.from_dict({"collection_name": f"{prefix}_b"})
    assert request is not None
    copy = collections.clone_collection(first.collection_name, request)
    assert copy.source_collection_id == first.collection_id
    assert copy.collection.collection_id != first.collection_id
    assert copy.collection.source.bucket_ids == [bucket]
    listing = mixpeek.ListCollectionsRequest.from_dict({"search": prefix, "sort": {"field": "collection_name"}})
    page = collections.list_collections(include_total=True, list_collections_request=listing)
    assert [item.collection_name for item in page.results] == [f"{prefix}_a", f"{prefix}_b"]
    assert page.total_count == 2
    assert {item.collection_name for item in collections.list_collections_get(search=prefix).results} == {
        f"{prefix}_a",
        f"{prefix}_b",
    }
    for name in (f"{prefix}_a", f"{prefix}_b"):
        collections.delete_collection(name)
    with pytest.raises(ApiException) as gone:
        collections.get_collection(str(first.collection_id))
    assert gone.value.status == 404


def test_the_seeds_spellings_of_a_collection(place: Place, bucket: str) -> None:
    extractor = {"feature_extractor_name": "text_extractor", "version": "v1", "input_mappings": {"text": "text"}}
    bodies: list[dict[str, Any]] = [
        {"source": {"type": "bucket", "bucket_id": bucket}, "feature_extractors": [extractor]},
        {
            "source": {"type": "bucket", "bucket_ids": [bucket]},
            "feature_extractor": extractor,
            "namespace_id": place.id,
        },
    ]
    for body in bodies:
        answer = place.http.post("/v1/collections", json={"collection_name": unique("seed"), **body})
        assert answer.status_code == 200, answer.text
        assert answer.json()["feature_extractor"]["feature_extractor_name"] == "text_extractor"
        assert mixpeek.CollectionResponse.from_dict(answer.json()) is not None


def test_a_collection_without_an_extractor_passes_through(place: Place, bucket: str) -> None:
    body = {"collection_name": unique("plain"), "source": {"type": "bucket", "bucket_ids": [bucket]}}
    answer = place.http.post("/v1/collections", json=body)
    assert answer.status_code == 200, answer.text
    read = mixpeek.CollectionResponse.from_dict(answer.json())
    assert read is not None
    assert read.feature_extractor.feature_extractor_name == "passthrough_extractor"


def test_what_cannot_change_is_refused(place: Place, bucket: str) -> None:
    made = place.collection({"type": "bucket", "bucket_ids": [bucket]})
    other = str(place.bucket().bucket_id)
    answer = place.http.patch(
        f"/v1/collections/{made.collection_id}", json={"source": {"type": "bucket", "bucket_ids": [other]}}
    )
    assert answer.status_code == 409
    assert place.http.patch(f"/v1/collections/{made.collection_id}", json={}).status_code in (400, 422)
    in_use = place.http.delete(f"/v1/buckets/{bucket}")
    assert in_use.status_code == 409
    assert made.collection_name in in_use.json()["error"]["message"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"source": {"type": "bucket", "bucket_ids": ["no_such_bucket"]}}, 404),
        ({"feature_extractor": {"feature_extractor_name": "no_such", "version": "v1"}}, 422),
        ({"feature_extractor": {"feature_extractor_name": "text_extractor", "version": "v9"}}, 422),
        ({"source": {"type": "bucket"}}, 422),
        ({"colour": "red"}, 422),
    ],
)
def test_wrong_collections_are_refused(place: Place, bucket: str, change: dict[str, Any], status: int) -> None:
    body = {"collection_name": unique("wrong"), "source": {"type": "bucket", "bucket_ids": [bucket]}, **change}
    answer = place.http.post("/v1/collections", json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]


def test_a_batch_from_draft_to_done(place: Place) -> None:
    batches = mixpeek.BucketBatchesApi(place.api)
    bucket = str(place.bucket().bucket_id)
    collection = place.collection({"type": "bucket", "bucket_ids": [bucket]})
    ids = place.fill(bucket)
    request = mixpeek.CreateBatchRequest.from_dict({"object_ids": ids[:4], "batch_name": "first four"})
    assert request is not None
    made = batches.create_batch_buckets_batches(bucket, request)
    assert str(made.batch_id).startswith("btch_")
    assert (made.status, made.bucket_id) == (mixpeek.TaskStatusEnum.DRAFT, bucket)
    more = mixpeek.AddObjectsToBatchRequest(object_ids=ids[4:])
    assert batches.add_objects_to_batch_buckets_batches(bucket, str(made.batch_id), more).object_ids == ids
    task = batches.submit_batch_buckets_batches(bucket, str(made.batch_id))
    assert task.task_id.startswith("task_")
    assert task.task_type
    assert task.additional_data is not None
    assert task.additional_data["batch_id"] == made.batch_id
    again = batches.submit_batch_buckets_batches(bucket, str(made.batch_id))
    assert again.task_id == task.task_id
    done = place.ended(bucket, str(made.batch_id))
    assert done.status is mixpeek.TaskStatusEnum.COMPLETED
    assert (done.failed_object_count, done.failed_objects) in ((0, []), (0, None))
    counted = mixpeek.CollectionsApi(place.api).get_collection(str(collection.collection_id))
    assert counted.document_count == 6
    tasks = mixpeek.TasksApi(place.api)
    assert tasks.get_task(task.task_id).status is mixpeek.TaskStatusEnum.COMPLETED
    listed = tasks.list_tasks(limit=100)
    assert task.task_id in {item.task_id for item in listed.results}
    request_done: Any = {"status": "COMPLETED", "search": task.task_id}
    found = place.http.post("/v1/tasks/list", json=request_done).json()["results"]
    assert [item["task_id"] for item in found] == [task.task_id]
    assert tasks.kill_task(task.task_id) is not None
    assert tasks.get_task(task.task_id).status is mixpeek.TaskStatusEnum.COMPLETED
    # The same objects again make no new documents.
    assert place.run(bucket, ids).status is mixpeek.TaskStatusEnum.COMPLETED
    counted = mixpeek.CollectionsApi(place.api).get_collection(str(collection.collection_id))
    assert counted.document_count == 6
    with pytest.raises(ApiException) as late:
        batches.add_objects_to_batch_buckets_batches(bucket, str(made.batch_id), more)
    assert late.value.status in (400, 409)


def test_batches_by_filter_listed_renamed_audited_and_deleted(place: Place) -> None:
    batches = mixpeek.BucketBatchesApi(place.api)
    bucket = str(place.bucket().bucket_id)
    place.collection({"type": "bucket", "bucket_ids": [bucket]})
    place.fill(bucket)
    toys: Any = {"AND": [{"field": "category", "operator": "eq", "value": "toys"}]}
    request = mixpeek.CreateBatchRequest.from_dict({"filters": toys})
    assert request is not None
    made = batches.create_batch_buckets_batches(bucket, request)
    assert len(made.object_ids or []) == 2
    listed = batches.list_batches_buckets(bucket)
    assert [item.batch_id for item in listed.results] == [made.batch_id]
    assert listed.total_count == 1
    everywhere = mixpeek.BatchesApi(place.api)
    here = {"X-Namespace": place.id}  # the SDK does not send it for these by itself
    assert made.batch_id in {item.batch_id for item in everywhere.list_all_batches(_headers=here).results}
    assert everywhere.get_batch_by_id_batches(str(made.batch_id), _headers=here).bucket_id == bucket
    path = f"/v1/buckets/{bucket}/batches/{made.batch_id}"
    assert place.http.patch(path, json={"batch_name": "toys"}).json()["batch_name"] == "toys"
    patch = mixpeek.PatchBatchRequest.from_dict({"metadata": {"source": "test"}})
    assert patch is not None
    assert batches.patch_batch_buckets_batches(bucket, str(made.batch_id), patch).batch_name == "toys"
    batches.submit_batch_buckets_batches(bucket, str(made.batch_id))
    assert place.ended(bucket, str(made.batch_id)).status is mixpeek.TaskStatusEnum.COMPLETED
    audit: Any = batches.get_batch_audit_buckets_batches(bucket, str(made.batch_id))
    assert (audit["all_balanced"], audit["has_lost_objects"]) == (True, False)
    assert batches.get_batch_logs_buckets_batches(bucket, str(made.batch_id)) is not None
    assert batches.delete_batch_buckets_batches(bucket, str(made.batch_id)).success is True
    with pytest.raises(ApiException) as gone:
        batches.get_batch_buckets_batches(bucket, str(made.batch_id))
    assert gone.value.status == 404


def test_a_bad_object_does_not_sink_its_batch(place: Place) -> None:
    batches = mixpeek.BucketBatchesApi(place.api)
    schema: Any = {"properties": {"text": {"type": "text"}, "category": {"type": "string"}}}
    bucket = str(place.bucket(bucket_schema=schema).bucket_id)
    place.collection({"type": "bucket", "bucket_ids": [bucket]})
    ids = []
    for body in ({"text": "fine"}, {"category": "nothing to embed"}, {"text": "fine too"}):
        ids.append(place.http.post(f"/v1/buckets/{bucket}/objects", json=body).json()["object_id"])
    done = place.run(bucket, ids)
    assert done.status is mixpeek.TaskStatusEnum.COMPLETED_WITH_ERRORS
    assert done.failed_object_count == 1
    assert done.failure_reason
    assert done.failed_objects is not None
    failed = done.failed_objects[0]
    assert failed.object_id == ids[1]
    assert failed.error
    assert failed.error_type
    assert failed.timestamp
    listed: Any = batches.get_failed_documents_buckets_batches_batch(bucket, str(done.batch_id))
    assert listed["total"] == 1


def test_a_batch_is_cancelled(place: Place) -> None:
    batches = mixpeek.BucketBatchesApi(place.api)
    bucket = str(place.bucket().bucket_id)
    place.collection({"type": "bucket", "bucket_ids": [bucket]})
    request = mixpeek.CreateBatchRequest.from_dict({"object_ids": place.fill(bucket)})
    assert request is not None
    made = batches.create_batch_buckets_batches(bucket, request)
    task = batches.cancel_batch_buckets_batches(bucket, str(made.batch_id))
    assert task.status.value == "CANCELED"
    found = batches.get_batch_buckets_batches(bucket, str(made.batch_id))
    assert found.status is mixpeek.TaskStatusEnum.CANCELED


def test_a_collection_of_a_collection_runs_after_it(library: Library) -> None:
    collections = mixpeek.CollectionsApi(library.place.api)
    second = collections.get_collection(library.second_id)
    assert second.source.collection_ids == [library.collection_id] or second.source.collection_id
    assert second.document_count == 6
    raw = library.place.http.get(f"/v1/collections/{library.second_id}").json()
    assert raw["tier"] == 1


def test_triggering_a_collection(place: Place) -> None:
    bucket = str(place.bucket().bucket_id)
    place.fill(bucket)
    collection = place.collection({"type": "bucket", "bucket_ids": [bucket]})
    collections = mixpeek.CollectionsApi(place.api)
    answer = collections.trigger_collection_with_http_info(collection.collection_name)
    assert answer.status_code == 202
    started = answer.data
    assert started.collection_id == collection.collection_id
    assert (started.object_count, started.source_bucket_ids) == (6, [bucket])
    assert place.ended(bucket, str(started.batch_id)).status is mixpeek.TaskStatusEnum.COMPLETED
    assert collections.get_collection(collection.collection_name).document_count == 6


def test_objects_processed_as_they_come(place: Place) -> None:
    objects = mixpeek.BucketObjectsApi(place.api)
    uploads = mixpeek.BucketUploadsApi(place.api)
    bucket = str(place.bucket().bucket_id)
    request = mixpeek.CreateObjectRequest.from_dict({"text": "nobody reads this bucket yet"})
    assert request is not None
    objects.create_object_buckets(bucket, request, auto_process=True)
    collection = str(place.collection({"type": "bucket", "bucket_ids": [bucket]}).collection_id)
    objects.create_object_buckets(bucket, request, auto_process=True)
    made = uploads.create_upload_buckets(
        bucket, mixpeek.CreateUploadRequest(filename="text.txt", content_type="text/plain")
    )
    httpx.put(str(made.presigned_url), content=b"words of a file", headers={"Content-Type": "text/plain"})
    confirmed = uploads.confirm_upload_buckets(
        bucket, made.upload_id, confirm_upload_request=mixpeek.ConfirmUploadRequest(auto_submit_batch=True)
    )
    assert place.ended(bucket, str(confirmed.batch_id)).status is mixpeek.TaskStatusEnum.COMPLETED
    documents = mixpeek.CollectionDocumentsApi(place.api)
    assert eventually(lambda: documents.count_documents(collection).count == 2)


def test_an_upload_becomes_a_blob_of_an_object(place: Place) -> None:
    uploads = mixpeek.BucketUploadsApi(place.api)
    bucket = str(place.bucket().bucket_id)
    wanted = mixpeek.CreateUploadRequest(filename="a.txt", content_type="text/plain", create_object_on_confirm=False)
    made = uploads.create_upload_buckets(bucket, wanted)
    httpx.put(str(made.presigned_url), content=b"kept words", headers={"Content-Type": "text/plain"})
    assert uploads.confirm_upload_buckets(bucket, made.upload_id).object_id is None
    request = mixpeek.CreateObjectRequest.from_dict(
        {"category": "files", "blobs": [{"property": "text", "type": "text", "upload_id": made.upload_id}]}
    )
    assert request is not None
    created = mixpeek.BucketObjectsApi(place.api).create_object_buckets(bucket, request)
    place.collection({"type": "bucket", "bucket_ids": [bucket]})
    assert place.run(bucket, [str(created.object_id)]).status is mixpeek.TaskStatusEnum.COMPLETED
