"""Download links of objects' files, on objects and on the documents made of them."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import urlsplit

from mixpeek import models

from mixpeek_operator.core.links import Links
from mixpeek_operator.core.listing import ListQuery

PIXEL = b"\x89PNG\r\n\x1a\n" + bytes(64)


async def _object(world: Any) -> Any:
    bucket = world.bucket(content={"type": "text"}, title={"type": "string"}, photo={"type": "image"})
    world.directory.add("chunks", bucket.id)
    world.directory.add("copies", "col_chunks", extractor="passthrough_extractor", features=(), input_mappings={})
    data = "data:image/png;base64," + base64.b64encode(PIXEL).decode()
    body = {"content": "hello", "title": "t", "blobs": [{"property": "photo", "type": "image", "data": data}]}
    made = await world.objects.create(world.scope, bucket.id, body)
    await world.process(bucket.id, [made["object_id"]])
    return bucket, made


def _file(world: Any, url: str) -> str:
    """The key that a link leads to."""
    return str(world.blobs.verify(urlsplit(url).path.rpartition("/")[2], "GET").key)


async def test_objects_carry_links_on_request(world: Any) -> None:
    bucket, made = await _object(world)
    key = made["blobs"][0]["properties"]["key"]
    assert "presigned_url" not in made["blobs"][0]
    shown = await world.objects.get(world.scope, bucket.id, made["object_id"], return_presigned_urls=True)
    page = await world.objects.list(world.scope, bucket.id, ListQuery(), return_presigned_urls=True)
    for item in (shown, page.items[0]):
        read = models.ObjectResponse.from_dict(item).blobs[0]
        assert _file(world, read.presigned_url) == key
        assert read.properties["presigned_url"] == read.presigned_url
    plain = await world.objects.get(world.scope, bucket.id, made["object_id"])
    assert "presigned_url" not in plain["blobs"][0]["properties"], "a link is never stored"


async def test_documents_carry_links_of_their_object_through_every_tier(world: Any) -> None:
    _, made = await _object(world)
    key = made["blobs"][0]["properties"]["key"]
    for collection in ("chunks", "copies"):
        page = await world.documents.list(world.scope, collection, ListQuery(), return_presigned_urls=True)
        one = await world.documents.get(
            world.scope, collection, page.items[0]["document_id"], return_presigned_urls=True
        )
        groups = await world.documents.list(
            world.scope, collection, ListQuery(), return_presigned_urls=True, group_by="title"
        )
        for item in (page.items[0], one, groups.items[0]["documents"][0]):
            (blob,) = models.DocumentResponse.from_dict(item).document_blobs
            assert _file(world, blob.presigned_url) == key
            assert (blob.var_field, blob.role, blob.type, blob.size_bytes) == ("photo", "source", "image", len(PIXEL))
            assert blob.content_type == "image/png" and blob.checksum.startswith("sha256:")
        plain = await world.documents.list(world.scope, collection, ListQuery())
        assert "document_blobs" not in plain.items[0]


async def test_a_document_without_files_says_so(world: Any) -> None:
    bucket = world.bucket()
    world.directory.add("chunks", bucket.id)
    await world.process(bucket.id, await world.fill(bucket.id, ["one"]))
    page = await world.documents.list(world.scope, "chunks", ListQuery(), return_presigned_urls=True)
    assert page.items[0]["document_blobs"] == []


async def test_a_key_of_another_namespace_is_never_signed(world: Any) -> None:
    links = Links(world.blobs, expires_s=60)
    stolen = {"blob_id": "b", "blob_property": "p", "key": "ns_other/bkt/obj/b"}
    (document,) = await links.of_documents("ns_mine", [{"document_id": "d", "_internal": {"source_blobs": [stolen]}}])
    assert document["document_blobs"] == []
    (blob,) = await links.of_blobs("ns_mine", [{"property": "p", "properties": {"key": "ns_other/bkt/obj/b"}}])
    assert "presigned_url" not in blob
