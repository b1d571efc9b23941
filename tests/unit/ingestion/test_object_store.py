"""Objects and uploads: what is taken, what is refused, and what is left behind."""

from __future__ import annotations

import base64
import hashlib
from datetime import timedelta
from typing import Any

import pytest
from mixpeek import models

from mixpeek_operator.core.errors import (
    AlreadyExistsError,
    BadRequestError,
    ConflictError,
    NotFoundError,
    SpecError,
)
from mixpeek_operator.core.filters import parse
from mixpeek_operator.core.listing import ListQuery
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.ingestion.fetch import Fetched


async def test_create_get_list_update_delete(world: Any) -> None:
    bucket = world.bucket()
    made = await world.objects.create(
        world.scope, "texts", {"content": "hello", "price": 3, "metadata": {"k": {"x": 1}}}
    )
    assert models.ObjectResponse.from_dict(made).object_id.startswith("obj_")
    assert made["price"] == 3 and made["metadata"] == {"k": {"x": 1}} and made["status"] == "PENDING"
    await world.objects.create(world.scope, "texts", {"content": "world", "price": 9})
    query = ListQuery(filters=parse({"field": "price", "operator": "gt", "value": 5}), include_total=True)
    page = await world.objects.list(world.scope, "texts", query)
    assert [item["content"] for item in page.items] == ["world"] and page.total == 1
    first = await world.objects.list(world.scope, "texts", ListQuery(limit=1, sort=(("price", "desc"),)))
    assert first.items[0]["price"] == 9 and first.next_cursor
    rest = await world.objects.list(
        world.scope, "texts", ListQuery(limit=1, sort=(("price", "desc"),), cursor=first.next_cursor)
    )
    assert rest.items[0]["price"] == 3 and rest.next_cursor is None
    with pytest.raises(BadRequestError, match="another query"):
        await world.objects.list(world.scope, "texts", ListQuery(limit=1, cursor=first.next_cursor))
    found = await world.objects.list(world.scope, "texts", ListQuery(search="HELL"))
    assert [item["object_id"] for item in found.items] == [made["object_id"]]
    changed = await world.objects.update(
        world.scope, "texts", made["object_id"], {"price": None, "title": "T", "metadata": {"z": 1}}
    )
    assert "price" not in changed and changed["title"] == "T" and changed["metadata"] == {"k": {"x": 1}, "z": 1}
    with pytest.raises(SpecError, match="number"):
        await world.objects.update(world.scope, "texts", made["object_id"], {"price": "dear"})
    with pytest.raises(SpecError, match="empty"):
        await world.objects.update(world.scope, "texts", made["object_id"], {})
    assert (await world.objects.stats(bucket.namespace_id, bucket.id))["object_count"] == 2
    await world.objects.delete(world.scope, "texts", made["object_id"])
    with pytest.raises(NotFoundError):
        await world.objects.get(world.scope, "texts", made["object_id"])


async def test_another_namespace_sees_nothing(world: Any) -> None:
    world.bucket()
    made = await world.objects.create(world.scope, "texts", {"content": "hello"})
    with pytest.raises(NotFoundError):
        await world.objects.get(Scope("int_org", "ns_other"), "texts", made["object_id"])
    with pytest.raises(BadRequestError, match="X-Namespace"):
        await world.objects.get(Scope("int_org"), "texts", made["object_id"])


async def test_every_problem_at_once_and_the_rest_is_stored(world: Any) -> None:
    world.bucket()
    bodies = [{"content": "ok"}, {"titel": "x", "price": "dear"}, "text", {"content": "fine", "price": 1.5}]
    answer = await world.objects.create_many(world.scope, "texts", bodies)
    assert models.CreateObjectsBatchResponse.from_dict(answer).succeeded_count == 2
    assert [item["object_index"] for item in answer["failed"]] == [1, 2]
    message = answer["failed"][0]["error"]
    assert "did you mean 'title'" in message and "'price'" in message and "'content' is required" in message


async def test_unique_key_policies(world: Any) -> None:
    world.bucket("shop", unique_key={"fields": ["sku"]}, sku={"type": "string"}, price={"type": "number"})
    first = await world.objects.create(world.scope, "shop", {"sku": "a", "price": 1})
    again = await world.objects.create(world.scope, "shop", {"sku": "a", "price": 2})
    assert again["object_id"] == first["object_id"] and again["price"] == 2
    assert again["created_at"] == first["created_at"]
    with pytest.raises(AlreadyExistsError, match="sku"):
        await world.objects.create(world.scope, "shop", {"sku": "a"}, policy="insert")
    with pytest.raises(NotFoundError, match="sku"):
        await world.objects.create(world.scope, "shop", {"sku": "b"}, policy="update")
    with pytest.raises(SpecError, match="unique key"):
        await world.objects.create(world.scope, "shop", {"price": 1})
    with pytest.raises(SpecError, match="cannot change"):
        await world.objects.update(world.scope, "shop", first["object_id"], {"sku": "c"})
    many = await world.objects.create_many(
        world.scope, "shop", [{"sku": "z", "price": 1}, {"sku": "z", "price": 2}], policy="insert"
    )
    assert many["succeeded_count"] == 1 and many["failed"][0]["object_index"] == 1


async def test_an_idempotency_key_makes_one_object(world: Any) -> None:
    world.bucket()
    ids = set()
    for _ in range(2):
        made = await world.objects.create(world.scope, "texts", {"content": "x", "idempotency_key": "seed:1"})
        ids.add(made["object_id"])
    assert len(ids) == 1


async def test_blobs_by_data_and_by_url(world: Any) -> None:
    world.bucket("media", picture={"type": "image"}, note={"type": "text"})
    raw = bytes(range(256))
    world.fetcher.pages["https://example.com/cat.png"] = Fetched(raw, "image/png", "https://example.com/cat.png")
    world.fetcher.pages["http://127.0.0.1/"] = SpecError("a private address")
    made = await world.objects.create(world.scope, "media", {"picture": "https://example.com/cat.png", "note": "hi"})
    (blob,) = made["blobs"]
    assert blob["details"]["size_bytes"] == 256 and blob["details"]["hash"] == hashlib.sha256(raw).hexdigest()
    assert models.ObjectResponse.from_dict(made).blobs[0].var_property == "picture"
    shown = await world.objects.get(world.scope, "media", made["object_id"], return_presigned_urls=True)
    assert shown["blobs"][0]["presigned_url"].startswith("http://127.0.0.1:1/")
    key = blob["properties"]["key"]
    assert await world.blobs.get(key) == raw
    other = {"blobs": [{"property": "picture", "type": "image", "data": base64.b64encode(b"new").decode()}]}
    changed = await world.objects.update(world.scope, "media", made["object_id"], other)
    assert changed["blobs"][0]["details"]["size_bytes"] == 3 and await world.blobs.head(key) is None
    await world.objects.delete(world.scope, "media", made["object_id"])
    assert await world.blobs.head(changed["blobs"][0]["properties"]["key"]) is None
    for data, message in (("http://127.0.0.1/", "private"), ("not base64!", "neither"), ("s3://b/k", "s3")):
        with pytest.raises(SpecError, match=message):
            await world.objects.create(
                world.scope, "media", {"blobs": [{"property": "picture", "type": "image", "data": data}]}
            )
    with pytest.raises(SpecError, match="either"):
        await world.objects.create(world.scope, "media", {"blobs": [{"property": "picture"}, {"property": "nothing"}]})


async def test_five_thousand_objects_in_one_call(world: Any) -> None:
    bucket = world.bucket()
    ids = await world.fill(bucket.id, [f"text number {number}" for number in range(5000)])
    world.directory.add("chunks", bucket.id)
    await world.submit(bucket.id, ids)
    assert len(ids) == 5000


async def test_upload_confirm_and_object(world: Any) -> None:
    world.bucket("media", clip={"type": "video"}, title={"type": "string"})
    body = {"filename": "clip.mp4", "content_type": "video/mp4", "object_metadata": {"title": "T"}}
    digest = hashlib.sha256(b"bytes").hexdigest()
    upload = await world.uploads.create(world.scope, "media", {**body, "file_hash": digest, "file_size_bytes": 5})
    assert models.UploadResponse.from_dict(upload).presigned_url
    confirm = lambda **given: world.uploads.confirm(world.scope, "media", upload["upload_id"], given)  # noqa: E731
    with pytest.raises(ConflictError, match="no bytes"):
        await confirm()
    await world.blobs.put(upload["s3_key"], b"wrong bytes", content_type="video/mp4")
    with pytest.raises(SpecError, match=r"(?s)11 bytes.*sha256"):
        await confirm()
    assert await world.blobs.head(upload["s3_key"]) is None
    await world.blobs.put(upload["s3_key"], b"bytes", content_type="video/mp4")
    with pytest.raises(SpecError, match="ETag"):
        await confirm(etag="abc")
    await world.blobs.put(upload["s3_key"], b"bytes", content_type="video/mp4")
    md5 = hashlib.md5(b"bytes", usedforsecurity=False).hexdigest()
    done = await confirm(etag=f'"{md5}"')
    assert models.ConfirmUploadResponse.from_dict(done).status == "COMPLETED"
    assert (await confirm())["object_id"] == done["object_id"]
    made = await world.objects.get(world.scope, "media", done["object_id"])
    assert made["metadata"] == {"title": "T"} and made["blobs"][0]["details"]["filename"] == "clip.mp4"
    again = await world.uploads.create(world.scope, "media", {**body, "file_hash": digest})
    assert again["is_duplicate"] and again["presigned_url"] is None
    listed = await world.uploads.list(world.scope, "media", ListQuery())
    assert [item["upload_id"] for item in listed.items] == [upload["upload_id"]]


async def test_what_an_upload_refuses(world: Any) -> None:
    world.bucket("media", clip={"type": "video"})
    for changes, message in (
        ({"filename": "../clip.mp4"}, "path"),
        ({"filename": "other.mp4"}, "unknown property"),
        ({"content_type": "video"}, "MIME"),
        ({"file_hash": "abc"}, "SHA-256"),
        ({"presigned_url_expiration": 90000}, "86400"),
        ({"blob_type": "image"}, "declares 'video'"),
    ):
        with pytest.raises(SpecError, match=message):
            await world.uploads.create(
                world.scope, "media", {"filename": "clip.mp4", "content_type": "video/mp4", **changes}
            )


async def test_what_a_store_asks_of_a_put_is_told(world: Any) -> None:
    world.bucket("media", clip={"type": "video"})
    body = {"filename": "clip.mp4", "content_type": "video/mp4"}
    assert "presigned_headers" not in await world.uploads.create(world.scope, "media", body)
    world.blobs.upload_headers = {"x-ms-blob-type": "BlockBlob"}
    answer = await world.uploads.create(world.scope, "media", body)
    assert answer["presigned_headers"] == {"x-ms-blob-type": "BlockBlob"}
    assert "x-ms-blob-type: BlockBlob" in answer["message"]


async def test_an_unconfirmed_upload_expires_and_leaves_nothing(world: Any) -> None:
    world.bucket("media", clip={"type": "video"})
    body = {"filename": "clip.mp4", "content_type": "video/mp4", "presigned_url_expiration": 60}
    answer = await world.uploads.create_many(world.scope, "media", {"uploads": [body, body]})
    one, two = answer["uploads"]
    for upload in (one, two):
        await world.blobs.put(upload["s3_key"], b"bytes", content_type="video/mp4")
    assert await world.uploads.expire() == 0
    world.clock.shift += timedelta(seconds=61)
    with pytest.raises(ConflictError, match="expired"):
        await world.uploads.confirm(world.scope, "media", one["upload_id"])
    assert await world.uploads.expire() == 1
    for upload in (one, two):
        assert await world.blobs.head(upload["s3_key"]) is None
        shown = await world.uploads.get(world.scope, "media", upload["upload_id"])
        assert shown["status"] == "FAILED" and "never confirmed" in shown["message"]
        with pytest.raises(ConflictError, match="never confirmed"):
            await world.uploads.confirm(world.scope, "media", upload["upload_id"])


async def test_confirm_many_tells_each(world: Any) -> None:
    world.bucket("media", clip={"type": "video"})
    upload = await world.uploads.create(world.scope, "media", {"filename": "clip.mp4", "content_type": "video/mp4"})
    await world.blobs.put(upload["s3_key"], b"bytes", content_type="video/mp4")
    answer = await world.uploads.confirm_many(
        world.scope, "media", {"confirmations": [{"upload_id": upload["upload_id"]}, {"upload_id": "upl_none"}]}
    )
    assert models.BatchConfirmResponse.from_dict(answer).status == "COMPLETED_WITH_ERRORS"
    assert [item["status"] for item in answer["task"]["outputs"]] == ["COMPLETED", "FAILED"]
    with pytest.raises(SpecError, match=r"uploads\[1\]"):
        await world.uploads.create_many(
            world.scope, "media", {"uploads": [{"filename": "clip.mp4", "content_type": "video/mp4"}, {}]}
        )
