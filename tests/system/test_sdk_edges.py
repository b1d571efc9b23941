"""What every client leans on: status codes, the error envelope, and namespaces that do not see each other."""

from __future__ import annotations

from typing import Any

import httpx
import mixpeek
import pytest
from tests.servers.mixpeek import Server
from tests.system.conftest import Library, Place, unique

BUCKET = {"properties": {"text": {"type": "text"}}}


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """Return the error of an answer, having checked the envelope."""
    body = answer.json()
    assert body["success"] is False
    assert body["status"] == answer.status_code
    assert set(body["error"]) == {"message", "type", "code", "details"}
    assert body["error"]["message"]
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize("value", [None, "", "Bearer", "Token x", "Bearer sk_unknown"])
@pytest.mark.parametrize("path", ["/v1/buckets", "/v1/namespaces", "/v1/tasks/task_x"])
def test_no_key_no_answer(live: Server, path: str, value: str | None) -> None:
    headers = {} if value is None else {"Authorization": value}
    answer = httpx.get(f"{live.url}{path}", headers=headers)
    assert answer.status_code == 401
    assert error_of(answer)["type"] == "UnauthorizedError"


def test_with_several_namespaces_one_must_be_named(live: Server, place: Place, elsewhere: Place) -> None:
    with httpx.Client(base_url=live.url, headers=live.headers) as http:
        for answer in (http.get("/v1/buckets"), http.post("/v1/buckets", json={"bucket_name": "x"})):
            assert answer.status_code in (400, 422)
            assert "X-Namespace" in error_of(answer)["message"]
        unknown = http.get("/v1/buckets", headers={"X-Namespace": "ns_nowhere00"})
        assert unknown.status_code == 404
        assert http.get("/v1/buckets", headers={"X-Namespace": place.name}).status_code == 200


def test_a_taken_name_is_409_and_free_elsewhere(place: Place, elsewhere: Place) -> None:
    body = {"bucket_name": unique("twin"), "bucket_schema": BUCKET}
    assert place.http.post("/v1/buckets", json=body).status_code == 200
    clash = place.http.post("/v1/buckets", json=body)
    assert clash.status_code == 409
    assert error_of(clash)["type"] == "AlreadyExistsError"
    assert elsewhere.http.post("/v1/buckets", json=body).status_code == 200


def test_all_mistakes_of_a_body_are_told(place: Place) -> None:
    answer = place.http.post("/v1/buckets", json={"bucket_schema": {"properties": {"t": {"type": "colour"}}}, "x": 1})
    assert answer.status_code == 422
    error = error_of(answer)
    assert error["type"] == "ValidationError"
    errors = error["details"]["validation_errors"]
    assert all({"type", "location", "message"} <= set(item) for item in errors)
    assert all(item["location"][0] == "body" for item in errors)
    told = str(errors)
    assert "name" in told
    assert "colour" in told
    assert "'x'" in told


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("GET", "/v1/nowhere", None, 404),
        ("DELETE", "/v1/buckets", None, 405),
        ("POST", "/v1/buckets", b"{not json", 400),
        ("POST", "/v1/buckets", b"[1]", 422),
        ("GET", "/v1/buckets?limit=many", None, 422),
        ("GET", "/v1/buckets?limit=0", None, 422),
        ("GET", "/v1/tasks/task_none", None, 404),
        ("GET", "/v1/retrievers/ret_none", None, 404),
        ("POST", "/v1/retrievers/ret_none/execute", b"{}", 404),
        ("GET", "/v1/buckets/none/objects/obj_none", None, 404),
    ],
)
def test_every_error_has_the_envelope(place: Place, method: str, path: str, content: bytes | None, status: int) -> None:
    answer = place.http.request(method, path, content=content)
    assert answer.status_code == status
    error_of(answer)


def test_a_body_that_is_too_large(place: Place) -> None:
    body = {"bucket_name": "big", "bucket_schema": BUCKET, "description": "x" * 40_000_000}
    answer = place.http.post("/v1/buckets", json=body)
    assert answer.status_code == 413
    error_of(answer)


def test_nothing_of_another_namespace_can_be_read_written_or_named(library: Library, elsewhere: Place) -> None:
    ours = library.place.http
    document = ours.post("/v1/collections/sentences/documents/list", json={"limit": 1}).json()["results"][0]
    retriever = ours.post(
        "/v1/retrievers",
        json={
            "retriever_name": unique("private"),
            "collection_identifiers": ["sentences"],
            "stages": [{"stage_name": "limit", "config": {"parameters": {"limit": 1}}}],
        },
    )
    batch = ours.post(f"/v1/buckets/{library.bucket_id}/batches/list", json={}).json()["results"][0]
    bucket, collection, object_id = library.bucket_id, library.collection_id, library.object_ids[0]
    requests: list[tuple[str, str, dict[str, Any] | None]] = [
        ("GET", f"/v1/buckets/{bucket}", None),
        ("PATCH", f"/v1/buckets/{bucket}", {"description": "mine"}),
        ("DELETE", f"/v1/buckets/{bucket}", None),
        ("GET", f"/v1/buckets/{bucket}/objects/{object_id}", None),
        ("POST", f"/v1/buckets/{bucket}/objects", {"text": "x"}),
        ("POST", f"/v1/buckets/{bucket}/objects/list", {}),
        ("POST", f"/v1/buckets/{bucket}/uploads", {"filename": "a.txt", "content_type": "text/plain"}),
        ("GET", f"/v1/buckets/{bucket}/batches/{batch['batch_id']}", None),
        ("GET", f"/v1/batches/{batch['batch_id']}", None),
        ("POST", f"/v1/buckets/{bucket}/batches/{batch['batch_id']}/cancel", {}),
        ("GET", f"/v1/collections/{collection}", None),
        ("GET", f"/v1/collections/{collection}/features", None),
        ("POST", f"/v1/collections/{collection}/trigger", {}),
        ("POST", f"/v1/collections/{collection}/documents/list", {}),
        ("GET", f"/v1/collections/{collection}/documents/{document['document_id']}", None),
        ("PATCH", f"/v1/collections/{collection}/documents/{document['document_id']}", {"a": 1}),
        ("GET", f"/v1/documents/{document['document_id']}", None),
        ("GET", f"/v1/collections/{collection}/documents/{document['document_id']}/lineage", None),
        ("POST", f"/v1/retrievers/{retriever.json()['retriever_id']}/execute", {}),
        ("DELETE", f"/v1/retrievers/{retriever.json()['retriever_id']}", None),
        ("POST", "/v1/collections", {"collection_name": "x", "source": {"type": "bucket", "bucket_ids": [bucket]}}),
        (
            "POST",
            "/v1/collections",
            {"collection_name": "x", "source": {"type": "collection", "collection_id": collection}},
        ),
        (
            "POST",
            "/v1/retrievers",
            {
                "retriever_name": "x",
                "collection_identifiers": [collection],
                "stages": [{"stage_name": "limit", "config": {"parameters": {"limit": 1}}}],
            },
        ),
        ("POST", "/v1/buckets", {"bucket_name": "x", "bucket_schema": BUCKET, "namespace_id": library.place.id}),
    ]
    for method, path, body in requests:
        answer = elsewhere.http.request(method, path, json=body)
        assert answer.status_code == 404, (method, path, answer.text)
        assert document["text"] not in answer.text
    of_object = elsewhere.http.get(f"/v1/objects/{object_id}/documents")
    assert of_object.status_code == 404 or document["document_id"] not in of_object.text
    listed = elsewhere.http.post("/v1/collections/list", json={"search": "sentences"}).json()
    assert listed["results"] == []
    assert ours.get(f"/v1/collections/{collection}").json()["description"] != "mine"


def test_every_create_answers_200(place: Place) -> None:
    bucket = place.http.post("/v1/buckets", json={"bucket_name": unique("made"), "bucket_schema": BUCKET})
    id = bucket.json()["bucket_id"]
    answers = [
        bucket,
        place.http.post(f"/v1/buckets/{id}/objects", json={"text": "x"}),
        place.http.post(f"/v1/buckets/{id}/objects/batch", json={"objects": [{"text": "y"}]}),
        place.http.post(
            "/v1/collections",
            json={"collection_name": unique("made"), "source": {"type": "bucket", "bucket_ids": [id]}},
        ),
        place.http.post(f"/v1/buckets/{id}/batches", json={}),
    ]
    assert [answer.status_code for answer in answers] == [200] * 5


def test_what_the_sdk_makes_of_an_error(place: Place) -> None:
    with pytest.raises(mixpeek.exceptions.NotFoundException) as missing:
        mixpeek.BucketsApi(place.api).get_bucket("bkt_none")
    assert missing.value.data.error.type == "NotFoundError"
    assert missing.value.data.status == 404
