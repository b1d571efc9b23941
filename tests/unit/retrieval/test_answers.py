"""What an answer carries beside documents: download links."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from mixpeek import models

from mixpeek_operator.core import ids
from mixpeek_operator.ports.vectors import Point

FIND = {
    "stage_name": "find",
    "stage_id": "attribute_filter",
    "parameters": {"field": "category", "operator": "eq", "value": "filed"},
}
RESHAPE = {
    "stage_name": "reshape",
    "stage_id": "json_transform",
    "parameters": {"template": '{"document_id": "{{DOC.document_id}}", "collection_id": "{{DOC.collection_id}}"}'},
}


async def _filed(world: Any) -> str:
    key = f"{world.info.id}/bkt_1/obj_1/blob_1"
    blob = {"blob_id": "blob_1", "blob_property": "photo", "blob_type": "image", "key": key, "size_bytes": 3}
    payload = {
        "document_id": "doc_filed",
        "collection_id": world.declared["products"].id,
        "category": "filed",
        "_internal": {"namespace_id": world.info.id, "lineage": {}, "source_blobs": [blob]},
    }
    await world.vectors.upsert(
        world.info.vector_collection, [Point(ids.point_id(world.info.id, "doc_filed"), {}, payload)]
    )
    return key


async def test_results_carry_links_on_request_even_when_reshaped(world: Any) -> None:
    key = await _filed(world)
    for stages in ([FIND], [FIND, RESHAPE]):
        for flag in ("return_presigned_urls", "return_urls"):
            answer = await world.run(stages, {flag: True})
            (blob,) = models.DocumentResponse.from_dict(answer["documents"][0]).document_blobs
            assert world.blobs.verify(urlsplit(blob.presigned_url).path.rpartition("/")[2], "GET").key == key
        answer = await world.run(stages)
        assert "document_blobs" not in answer["documents"][0]
