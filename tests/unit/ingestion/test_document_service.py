"""Documents: reading, changing, grouping, tracing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mixpeek import models

from mixpeek_operator.adapters.qdrant_edge import QdrantEdgeVectors
from mixpeek_operator.core.errors import BadRequestError, NotFoundError, SpecError, UnavailableError
from mixpeek_operator.core.filters import parse
from mixpeek_operator.core.listing import ListQuery


@pytest.fixture
async def chunks(world: Any) -> Any:
    bucket = world.bucket()
    made = world.directory.add("chunks", bucket.id, field_passthrough=(("title", "title"), ("price", "price")))
    bodies = [{"content": f"text {n}", "title": "even" if n % 2 == 0 else "odd", "price": n} for n in range(25)]
    answer = await world.objects.create_many(world.scope, bucket.id, bodies)
    await world.process(bucket.id, [item["object_id"] for item in answer["succeeded"]])
    return made


async def pages(world: Any, **options: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = await world.documents.list(world.scope, "chunks", ListQuery(cursor=cursor, **options))
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return found


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (None, 25),
        ({"field": "title", "value": "odd"}, 12),
        ({"field": "text", "operator": "regex", "value": "text 1[0-9]$"}, 10),
        ({"AND": [{"field": "title", "value": "odd"}, {"field": "text", "operator": "regex", "value": "1.$"}]}, 5),
        ({"NOT": [{"field": "text", "operator": "regex", "value": "1.$"}]}, 15),
    ],
)
@pytest.mark.parametrize("sort", [(), (("price", "desc"),)])
async def test_pages_are_complete_with_any_filter(
    world: Any, chunks: Any, filters: Any, expected: int, sort: Any
) -> None:
    found = await pages(world, limit=4, filters=parse(filters), sort=sort)
    assert len(found) == expected == len({item["document_id"] for item in found})
    if sort:
        assert [item["price"] for item in found] == sorted((item["price"] for item in found), reverse=True)
    page = await world.documents.list(
        world.scope, "chunks", ListQuery(limit=4, offset=3, filters=parse(filters), sort=sort, include_total=True)
    )
    assert page.total == expected and page.items == found[3:7]


async def test_search_groups_distinct_and_aggregate(world: Any, chunks: Any) -> None:
    assert len(await pages(world, search="TEXT 2")) == 6
    groups = await world.documents.list(world.scope, "chunks", ListQuery(limit=1), group_by="title")
    assert groups.items[0]["group_key"] == "even" and groups.items[0]["count"] == 13 and groups.total == 2
    assert len(groups.items[0]["documents"]) == 13 and groups.next_cursor
    distinct = await world.documents.distinct(world.scope, "chunks", "title")
    assert distinct["values"] == [{"value": "even", "count": 13}, {"value": "odd", "count": 12}]
    body = {
        "group_by": [{"field": "title"}],
        "aggregations": [{"function": "avg", "field": "price", "alias": "mean"}, {"function": "count", "alias": "n"}],
        "having": [{"field": "n", "operator": "gt", "value": 12}],
    }
    answer = await world.documents.aggregate(world.scope, "chunks", body)
    assert answer["results"] == [{"group": {"title": "even"}, "metrics": {"mean": 12.0, "n": 13}}]
    assert models.DocumentAggregationResponse.from_dict(answer).total_groups == 1
    with pytest.raises(SpecError, match="group_by"):
        await world.documents.aggregate(world.scope, "chunks", {})
    count = await world.documents.count(world.scope, "chunks", {"field": "title", "value": "odd"})
    assert models.DocumentCountResponse.from_dict(count).count == 12


async def test_a_cursor_of_another_query_is_refused(world: Any, chunks: Any) -> None:
    page = await world.documents.list(world.scope, "chunks", ListQuery(limit=4))
    with pytest.raises(BadRequestError, match="another query"):
        await world.documents.list(world.scope, "chunks", ListQuery(limit=4, search="x", cursor=page.next_cursor))
    with pytest.raises(BadRequestError, match="cannot be read"):
        await world.documents.list(world.scope, "chunks", ListQuery(limit=4, cursor="ab%%"))


async def test_create_update_patch_delete(world: Any, chunks: Any) -> None:
    vector = chunks.features[0].index.name
    made = await world.documents.create(
        world.scope, "chunks", {"text": "mine", "n": {"a": 1}, "vectors": {vector: [1, 2]}}
    )
    id = made["document_id"]
    shown = await world.documents.get(world.scope, "chunks", id, return_vectors=True)
    assert shown["vectors"] == {vector: [1.0, 2.0]} and "vectors" not in made
    assert models.DocumentResponse.from_dict(made).internal.created_at
    patched = await world.documents.patch(world.scope, "chunks", id, {"n.b": 2, "tag": "x"})
    assert patched["n"] == {"a": 1, "b": 2} and patched["tag"] == "x" and patched["text"] == "mine"
    replaced = await world.documents.update(world.scope, "chunks", id, {**patched, "only": 1, "text": "new"})
    assert replaced["only"] == 1 and replaced["_internal"]["lineage"] == made["_internal"]["lineage"]
    assert (await world.documents.get(world.scope, "chunks", id, return_vectors=True))["vectors"] == shown["vectors"]
    with pytest.raises(SpecError, match="system"):
        await world.documents.patch(world.scope, "chunks", id, {"_internal.lineage": {}})
    with pytest.raises(SpecError, match="unknown vector"):
        await world.documents.create(world.scope, "chunks", {"vectors": {"other": [1]}})
    await world.documents.delete(world.scope, "chunks", id)
    with pytest.raises(NotFoundError):
        await world.documents.get(world.scope, "chunks", id)


async def test_batch_and_bulk_changes(world: Any, chunks: Any) -> None:
    ids = [item["document_id"] for item in await pages(world, limit=10)]
    answer = await world.documents.batch_update(
        world.scope,
        "chunks",
        {
            "updates": [
                {"document_id": ids[0], "update_data": {"tag": 1}},
                {"document_id": "doc_no", "update_data": {"a": 1}},
            ]
        },
    )
    assert models.BatchUpdateDocumentsResponse.from_dict(answer).failed_count == 1
    odd = {"field": "title", "value": "odd"}
    bulk = await world.documents.bulk_update(world.scope, "chunks", {"filters": odd, "update_data": {"seen": True}})
    assert bulk["updated_count"] == 12
    gone = await world.documents.batch_delete(world.scope, "chunks", {"document_ids": [ids[0], "doc_no"]})
    assert models.BatchDeleteDocumentsResponse.from_dict(gone).deleted_count == 1
    gone = await world.documents.batch_delete(world.scope, "chunks", {"filters": {"field": "seen", "value": True}})
    assert gone["deleted_count"] in (11, 12)
    with pytest.raises(SpecError, match="either"):
        await world.documents.batch_delete(world.scope, "chunks", {})


async def test_features_of_a_collection(world: Any, chunks: Any) -> None:
    answer = models.DescribeCollectionFeaturesResponse.from_dict(await world.documents.features(world.scope, "chunks"))
    assert answer.features[0].feature_uri == "mixpeek://text_extractor@v1/text_embedding"


async def test_a_namespace_without_vectors_has_no_documents_yet(tmp_path: Path, make_world: Any) -> None:
    world = make_world(tmp_path, vectors=QdrantEdgeVectors(tmp_path / "vectors"))
    bucket = world.bucket()
    world.directory.add("chunks", bucket.id)
    for query in (ListQuery(include_total=True), ListQuery(sort=(("n", "asc"),), search="x")):
        page = await world.documents.list(world.scope, "chunks", query)
        assert (page.items, page.next_cursor) == ([], None)
    assert (await world.documents.count(world.scope, "chunks"))["count"] == 0
    assert (await world.documents.distinct(world.scope, "chunks", "n"))["values"] == []
    with pytest.raises(NotFoundError, match="no document 'doc_1'"):
        await world.documents.get(world.scope, "chunks", "doc_1")
    with pytest.raises(UnavailableError, match="not provisioned yet") as caught:
        await world.documents.create(world.scope, "chunks", {"text": "mine"})
    assert caught.value.code == "namespace_not_ready"
    await world.close()
    await world.vectors.close()
