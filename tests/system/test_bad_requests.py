"""Whatever is sent, the answer names what is wrong and where, nothing stays behind, and the server goes on."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest
from tests.system.conftest import Library, Place
from tests.system.refusals import DEEP, DOCUMENTS, ZZ, Body, refused, state

OK_BUCKET = {"bucket_name": "bad", "bucket_schema": {"properties": {"text": {"type": "text"}}}}
EXTRACTOR = {"feature_extractor_name": "text_extractor", "version": "v1", "input_mappings": {"text": "text"}}
OK_COLLECTION: Body = {
    "collection_name": "bad",
    "source": {"type": "bucket", "bucket_ids": ["texts"]},
    "feature_extractor": EXTRACTOR,
}


def raw(body: Body, **texts: str) -> str:
    """Return JSON in which some values are written as no library would write them."""
    text = json.dumps({**body, **{name: f"<{name}>" for name in texts}})
    for name, value in texts.items():
        text = text.replace(f'"<{name}>"', value)
    return text


REQUESTS: dict[str, tuple[str, str, Any, int | tuple[int, ...], tuple[str, ...]]] = {
    "broken JSON": ("POST", "/v1/buckets", '{"bucket_name": "bad", ', 400, ("line 1 column",)),
    "no UTF-8": ("POST", "/v1/buckets", b'{"bucket_name": "\xff"}', 400, ("UTF-8",)),
    "not an object": ("POST", "/v1/buckets", [1], 422, ("must be a JSON object",)),
    "oversized body": ("POST", "/v1/buckets", b'{"a": "' + b"x" * 17 * 2**20 + b'"}', 413, ("limit",)),
    "deep JSON": ("POST", "/v1/buckets", raw(OK_BUCKET, metadata="[" * DEEP + "]" * DEEP), (400, 422), ("de",)),
    "deep JSON that parses": (
        "POST",
        "/v1/buckets",
        raw(OK_BUCKET, metadata='{"a":' * 300 + "1" + "}" * 300),
        422,
        ("body", "deeper"),
    ),
    "deep filter in the query": (
        "GET",
        "/v1/buckets?filters=" + "[" * 500 + "]" * 500,
        None,
        422,
        ("filters", "deeper"),
    ),
    "half a character": ("POST", "/v1/buckets", raw(OK_BUCKET, description='"\\ud800"'), 400, ("surrogate",)),
    "NUL in a name": ("POST", "/v1/buckets", {**OK_BUCKET, "bucket_name": "a\0b"}, 422, ("bucket_name",)),
    "slash in a name": (
        "POST",
        "/v1/buckets",
        {**OK_BUCKET, "bucket_name": "a/b"},
        422,
        ("bucket_name", "no usable name"),
    ),
    "climbing name": (
        "POST",
        "/v1/buckets",
        {**OK_BUCKET, "bucket_name": ".."},
        422,
        ("bucket_name", "no usable name"),
    ),
    "other letters": (
        "POST",
        "/v1/buckets",
        {**OK_BUCKET, "bucket_name": "名"},
        422,
        ("bucket_name", "no usable name"),
    ),
    "huge number": ("POST", "/v1/buckets", raw(OK_BUCKET, metadata="9" * 400), 400, ("line 1 column",)),
    "NaN": ("POST", "/v1/buckets", raw(OK_BUCKET, metadata="NaN"), 400, ("line 1 column",)),
    "unknown key": (
        "POST",
        "/v1/buckets",
        {"bucket_name": "bad", "bucket_shcema": {}},
        422,
        ("bucket_shcema", "did you mean 'bucket_schema'"),
    ),
    "wrong types": (
        "POST",
        "/v1/buckets",
        {"bucket_name": 7, "bucket_schema": []},
        422,
        ("bucket_name: expected text", "bucket_schema: expected a mapping"),
    ),
    "duplicate name": ("POST", "/v1/buckets", {**OK_BUCKET, "bucket_name": "texts"}, 409, ("'texts' exists already",)),
    "missing secret": (
        "POST",
        "/v1/buckets",
        {**OK_BUCKET, "metadata": {"t": ["${{ secrets.NOPE }}"]}},
        422,
        ("metadata.t[0]", "'NOPE'"),
    ),
    "missing reference": (
        "POST",
        "/v1/collections",
        {**OK_COLLECTION, "source": {"type": "bucket", "bucket_ids": ["nope"]}},
        (404, 422),
        ("source.bucket_ids[0]", "'nope'"),
    ),
    "cycle": (
        "PATCH",
        "/v1/collections/sentences",
        {"source": {"type": "collection", "collection_id": "again"}},
        (409, 422),
        ("source",),
    ),
    "unknown extractor": (
        "POST",
        "/v1/collections",
        {**OK_COLLECTION, "feature_extractor": {**EXTRACTOR, "feature_extractor_name": "txt_extractor"}},
        422,
        ("feature_extractor.feature_extractor_name", "text_extractor"),
    ),
    "immutable field": (
        "PATCH",
        "/v1/collections/sentences",
        {"feature_extractor": {"feature_extractor_name": "passthrough_extractor", "version": "v1"}},
        (409, 422),
        ("feature_extractor_name",),
    ),
    "negative limit": ("POST", "/v1/buckets/list", {"limit": -1}, 422, ("limit must be at least 1",)),
    "negative offset": ("POST", f"{DOCUMENTS}/list", {"offset": -1}, 422, ("offset must be at least 0",)),
    "huge limit": ("GET", "/v1/buckets?limit=" + "9" * 30, None, 422, ("limit must be at most",)),
    "unknown operator in a list": ("POST", "/v1/buckets/list", {"filters": ZZ}, 422, ("filters.AND.0", "'zz'")),
    "unknown operator in documents": ("POST", f"{DOCUMENTS}/list", {"filters": ZZ}, 422, ("filters.AND.0", "'zz'")),
    "unknown operator in objects": (
        "POST",
        "/v1/buckets/texts/objects/list",
        {"filters": ZZ},
        422,
        ("filters.AND.0", "'zz'"),
    ),
    "garbage page token": ("POST", "/v1/buckets/list", {"cursor": "zz"}, 400, ("cursor",)),
    "object against the schema": (
        "POST",
        "/v1/buckets/texts/objects",
        {"price": "x", "category": 1},
        422,
        ("price:", "category:", "text: 'text' is required"),
    ),
    "object with unknown fields": (
        "POST",
        "/v1/buckets/texts/objects",
        {"text": "a", "colour": 1},
        422,
        ("colour: unknown property",),
    ),
    "vector of a wrong size": (
        "POST",
        DOCUMENTS,
        {"document_id": "bad", "vectors": {"text_extractor_v1_embedding": [1, 2]}},
        422,
        ("vectors.text_extractor_v1_embedding", "2 numbers, 384"),
    ),
    "vector of text": (
        "POST",
        DOCUMENTS,
        {"document_id": "bad", "vectors": {"text_extractor_v1_embedding": ["x"] * 384}},
        422,
        ("vectors.text_extractor_v1_embedding",),
    ),
    "vector with NaN": (
        "POST",
        DOCUMENTS,
        '{"document_id": "bad", "vectors": {"text_extractor_v1_embedding": [NaN]}}',
        400,
        ("line 1 column",),
    ),
    "vector beyond 32 bits": (
        "POST",
        DOCUMENTS,
        {"document_id": "bad", "vectors": {"text_extractor_v1_embedding": [1e308] * 384}},
        422,
        ("text_extractor_v1_embedding", "finite"),
    ),
    "unknown vector": (
        "POST",
        DOCUMENTS,
        {"document_id": "bad", "vectors": {"zz": [1]}},
        422,
        ("vectors.zz", "unknown vector"),
    ),
    "features of a wrong type": (
        "POST",
        DOCUMENTS,
        {"document_id": "bad", "features": {"a": 1}},
        422,
        ("features must be a list of objects",),
    ),
    "metadata of a wrong type": (
        "POST",
        "/v1/buckets/texts/batches",
        {"metadata": "x"},
        422,
        ("metadata must be an object",),
    ),
    "status of a wrong type": ("POST", "/v1/buckets/texts/batches/list", {"status": []}, 422, ("status must be text",)),
    "limit of a wrong type": (
        "POST",
        f"{DOCUMENTS}/distinct",
        {"field": "category", "limit": "x"},
        422,
        ("limit must be",),
    ),
    "path in a file name": (
        "POST",
        "/v1/buckets/texts/uploads",
        {"filename": "../a", "content_type": "text/plain"},
        422,
        ("filename",),
    ),
    "unknown property of an upload": (
        "POST",
        "/v1/buckets/texts/uploads",
        {"filename": "zz.txt", "content_type": "text/plain"},
        422,
        ("zz",),
    ),
}


def send(http: httpx.Client, method: str, path: str, body: Any) -> httpx.Response:
    if isinstance(body, str | bytes):
        return http.request(method, path, content=body, headers={"content-type": "application/json"})
    return http.request(method, path, json=body)


@pytest.mark.parametrize("case", REQUESTS)
def test_bad_requests_change_nothing(library: Library, case: str) -> None:
    method, path, body, status, words = REQUESTS[case]
    before = state(library)
    error = refused(send(library.place.http, method, path, body), status, *words)
    if error["type"] == "ValidationError":
        assert error["details"]["validation_errors"], "a validation error says which fields it is about"
    assert state(library) == before
    assert library.place.http.get("/v1/health").status_code == 200


@pytest.mark.parametrize("path", [f"{DOCUMENTS}/list", "/v1/buckets/texts/objects/list", "/v1/collections/list"])
def test_cursors_of_another_list(library: Library, path: str) -> None:
    http = library.place.http
    cursor = http.post(path, json={"limit": 1}).json()["pagination"]["next_cursor"]
    assert cursor
    another = {"AND": [{"field": "category", "operator": "eq", "value": "toys"}]}
    refused(http.post(path, json={"limit": 1, "cursor": cursor, "filters": another}), 400, "cursor")
    refused(http.post("/v1/buckets/list", json={"limit": 1, "cursor": cursor}), 400, "cursor")
    refused(http.post(path, json={"limit": 1, "cursor": cursor + "x"}), 400, "cursor")


def test_uploads_that_go_wrong(place: Place) -> None:
    http = place.http
    bucket = f"/v1/buckets/{place.bucket().bucket_id}"

    def announce(**more: Any) -> Body:
        answer = http.post(f"{bucket}/uploads", json={"filename": "text.txt", "content_type": "text/plain", **more})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def confirm(upload: Body, **more: Any) -> httpx.Response:
        return http.post(f"{bucket}/uploads/{upload['upload_id']}/confirm", json=more)

    silent = announce()
    refused(confirm(silent), 409, silent["upload_id"], "no bytes yet")
    wrong = announce(file_size_bytes=5, file_hash="a" * 64)
    assert httpx.put(wrong["presigned_url"], content=b"123").status_code == 200
    refused(confirm(wrong), 422, "3 bytes, 5 were announced", "sha256", "a" * 64)
    refused(confirm(wrong), 409, "no bytes yet")
    etag = announce()
    assert httpx.put(etag["presigned_url"], content=b"123").status_code == 200
    refused(confirm(etag, etag="b" * 64), 422, "ETag")
    short = announce(presigned_url_expiration=1)
    link = silent["presigned_url"]
    forged = link[:-8] + "AAAAAAAA"
    refused(httpx.put(forged, content=b"1"), 401, "not valid")
    refused(httpx.get(link), 401, "PUT")
    refused(httpx.put(f"{place.url}/v1/blobs/zz", content=b"1"), 401, "not valid")
    time.sleep(1.1)
    refused(httpx.put(short["presigned_url"], content=b"1"), 401, "expired")
    refused(confirm(short), 409, short["upload_id"], "expired")
    refused(confirm({"upload_id": "upl_none"}), 404, "upl_none")
    assert http.post(f"{bucket}/objects/list", json={}).json()["results"] == []
    uploads = http.post(f"{bucket}/uploads/list", json={}).json()["results"]
    assert {item["status"] for item in uploads} == {"PENDING", "FAILED"}
