"""Documents and their lineage through the public SDK."""

from __future__ import annotations

import re
from typing import Any

import mixpeek
import pytest
from mixpeek.exceptions import ApiException
from tests.system.conftest import TEXTS, Library


@pytest.fixture
def documents(library: Library) -> mixpeek.CollectionDocumentsApi:
    return mixpeek.CollectionDocumentsApi(library.place.api)


def listed(library: Library, collection: str | None = None, **body: Any) -> mixpeek.ListDocumentsResponse:
    request = mixpeek.ListDocumentsRequest.from_dict(body)
    api = mixpeek.CollectionDocumentsApi(library.place.api)
    return api.list_documents(collection or library.collection_id, list_documents_request=request)


def test_documents_carry_their_fields_and_their_lineage(library: Library) -> None:
    page = listed(library)
    assert page.results is not None
    assert len(page.results) == 6
    for document in page.results:
        assert re.fullmatch(r"doc_[a-zA-Z0-9]{24}", document.document_id)
        assert document.collection_id == library.collection_id
        assert {"text", "category", "price"} <= set(document.additional_properties)
    raw = library.place.http.get(f"/v1/collections/sentences/documents/{page.results[0].document_id}").json()
    lineage = raw["_internal"]["lineage"]
    assert lineage["root_object_id"] in library.object_ids
    assert (lineage["root_bucket_id"], lineage["source_type"]) == (library.bucket_id, "bucket")
    assert lineage["source_object_id"] == lineage["root_object_id"]
    assert lineage["path"]
    assert isinstance(lineage["chain"], list)
    assert raw["lineage_path"]
    assert not [name for name in raw if "embedding" in name]


def test_documents_are_filtered_sorted_and_paged(library: Library) -> None:
    kitchen = {"AND": [{"field": "category", "operator": "eq", "value": "kitchen"}]}
    assert len(listed(library, filters=kitchen).results or []) == 2
    dear = {
        "OR": [{"field": "price", "operator": "gt", "value": 200}, {"field": "price", "operator": "lt", "value": 20}]
    }
    assert {d.additional_properties["price"] for d in listed(library, filters=dear).results or []} == {18.5, 260.0}
    ordered = listed(library, sort={"field": "price", "direction": "desc"}, limit=4, include_total=True)
    assert [d.additional_properties["price"] for d in ordered.results or []] == [260.0, 140.0, 120.0, 60.0]
    assert ordered.pagination.total == 6
    rest = listed(library, sort={"field": "price", "direction": "desc"}, limit=4, cursor=ordered.pagination.next_cursor)
    assert [d.additional_properties["price"] for d in rest.results or []] == [35.0, 18.5]
    assert rest.pagination.next_cursor is None
    api = mixpeek.CollectionDocumentsApi(library.place.api)
    assert len(api.list_documents_0(library.collection_id, page=2, page_size=4).results or []) == 2
    got = library.place.http.get("/v1/collections/sentences/documents", params={"limit": 3, "offset": 4}).json()
    assert len(got["results"]) == 2


@pytest.mark.parametrize(
    ("condition", "count"),
    [
        ({"field": "category", "operator": "ne", "value": "toys"}, 4),
        ({"field": "category", "operator": "nin", "value": ["toys", "kitchen"]}, 2),
        ({"field": "price", "operator": "gte", "value": 120}, 3),
        ({"field": "text", "operator": "contains", "value": "tent"}, 1),
        ({"field": "text", "operator": "starts_with", "value": "A "}, 3),
        ({"field": "text", "operator": "ends_with", "value": "rain"}, 1),
        ({"field": "text", "operator": "regex", "value": "^The .*night$"}, 1),
        ({"field": "colour", "operator": "exists", "value": False}, 6),
        ({"field": "price", "operator": "exists", "value": True}, 6),
        ({"field": "text", "operator": "text", "value": "moon"}, 1),
        ({"field": "category", "value": "TOYS", "case_insensitive": True}, 2),
        ({"AND": [{"NOT": [{"field": "category", "operator": "eq", "value": "toys"}]}], "case_sensitive": False}, 4),
        ({"NOT": {"field": "category", "operator": "eq", "value": "toys"}}, 4),
    ],
)
def test_every_operator_of_a_filter(library: Library, condition: dict[str, Any], count: int) -> None:
    answer = library.place.http.post("/v1/collections/sentences/documents/list", json={"filters": condition})
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["results"]) == count


def test_an_unknown_operator_is_named(library: Library) -> None:
    body = {"filters": {"field": "price", "operator": "roughly", "value": 3}}
    answer = library.place.http.post("/v1/collections/sentences/documents/list", json=body)
    assert answer.status_code == 422
    assert "roughly" in answer.json()["error"]["message"]


def test_documents_in_groups(library: Library) -> None:
    page = listed(library, group_by="category")
    assert page.group_by_field == "category"
    assert page.groups is not None
    assert {str(group.group_key): group.count for group in page.groups} == {"kitchen": 2, "toys": 2, "outdoor": 2}
    assert all(len(group.documents) == 2 for group in page.groups)


def test_vectors_only_when_asked(library: Library, documents: mixpeek.CollectionDocumentsApi) -> None:
    plain = listed(library, limit=1)
    assert plain.results is not None
    id = plain.results[0].document_id
    assert "text_extractor_v1_embedding" not in str(plain.results[0].to_dict())
    one = documents.get_document(library.collection_id, id, return_vectors=True)
    raw = library.place.http.get(f"/v1/collections/sentences/documents/{id}?return_vectors=true").json()
    vectors = raw.get("vectors") or raw
    assert len(vectors["text_extractor_v1_embedding"]) == 384
    assert one.document_id == id
    page = listed(library, limit=1, return_vectors=True)
    assert page.results is not None


def test_documents_are_counted_aggregated_and_told_apart(
    library: Library, documents: mixpeek.CollectionDocumentsApi
) -> None:
    assert documents.count_documents(library.collection_id).count == 6
    request = mixpeek.DocumentAggregationRequest.from_dict(
        {
            "group_by": [{"field": "category"}],
            "aggregations": [
                {"function": "count", "alias": "n"},
                {"function": "max", "field": "price", "alias": "top"},
            ],
        }
    )
    assert request is not None
    answer = documents.aggregate_documents(library.collection_id, request)
    tops = {row.to_dict().get("category"): row for row in answer.results} if answer.results else {}
    assert len(answer.results) == 3, tops
    distinct = documents.distinct_document_values(
        library.collection_id, mixpeek.DistinctValuesRequest(field="category", limit=10)
    )
    assert "outdoor" in str(distinct.to_dict())


def test_a_document_is_written_changed_and_deleted(library: Library, documents: mixpeek.CollectionDocumentsApi) -> None:
    collection = library.second_id
    before = documents.count_documents(collection).count
    request = mixpeek.DocumentCreateRequest.from_dict({"text": "by hand", "category": "own"})
    assert request is not None
    made = documents.create_document(collection, request)
    assert made.additional_properties["category"] == "own"
    patched = documents.patch_document(collection, made.document_id, {"category": "changed"})
    assert (patched.additional_properties["category"], patched.additional_properties["text"]) == ("changed", "by hand")
    updated = documents.update_document(collection, made.document_id, {"category": "again", "text": "new"})
    assert updated.additional_properties["text"] == "new"
    updates = mixpeek.BatchUpdateDocumentsRequest.from_dict(
        {"updates": [{"document_id": made.document_id, "update_data": {"category": "batch"}}]}
    )
    assert updates is not None
    documents.batch_update(collection, updates)
    own: Any = {"AND": [{"field": "category", "operator": "eq", "value": "batch"}]}
    bulk = mixpeek.BulkUpdateDocumentsRequest.from_dict({"filters": own, "update_data": {"checked": True}})
    assert bulk is not None
    documents.bulk_update(collection, bulk)
    assert documents.get_document(collection, made.document_id).additional_properties["checked"] is True
    assert documents.delete_document(collection, made.document_id).success is True
    with pytest.raises(ApiException) as gone:
        documents.get_document(collection, made.document_id)
    assert gone.value.status == 404
    second = documents.create_document(collection, request)
    documents.batch_delete(collection, mixpeek.BatchDeleteDocumentsRequest(document_ids=[second.document_id]))
    assert documents.count_documents(collection).count == before


def test_lineage_from_a_document_to_its_object_and_back(library: Library) -> None:
    lineage = mixpeek.DocumentLineageApi(library.place.api)
    second = listed(library, library.second_id)
    assert second.results is not None
    document = second.results[0]
    found = lineage.get_document_lineage(library.second_id, document.document_id)
    assert (found.document_id, found.collection_id) == (document.document_id, library.second_id)
    assert found.lineage is not None
    assert found.lineage.root_object_id in library.object_ids
    assert found.lineage.root_bucket_id == library.bucket_id
    assert (found.lineage.source_type, found.lineage.source_collection_id) == ("collection", library.collection_id)
    assert found.lineage.source_document_id
    assert found.lineage.lineage_chain
    assert found.depth == 2
    of_object: Any = lineage.get_documents_by_object(str(found.lineage.root_object_id))
    assert document.document_id in str(of_object)
    tree: Any = lineage.get_decomposition_tree_objects(str(found.lineage.root_object_id), include_document_ids=True)
    assert document.document_id in str(tree)


def test_deleting_an_object_deletes_its_documents(library: Library) -> None:
    http = library.place.http
    made = http.post("/v1/buckets/texts/objects", json={"text": TEXTS[0][0], "category": "brief"}).json()
    library.place.run(library.bucket_id, [made["object_id"]])
    brief: Any = {"AND": [{"field": "category", "operator": "eq", "value": "brief"}]}
    assert len(listed(library, filters=brief).results or []) == 1
    assert http.delete(f"/v1/buckets/texts/objects/{made['object_id']}").status_code == 204
    assert listed(library, filters=brief).results == []
    assert listed(library, library.second_id, filters=brief).results == []


def test_documents_of_the_whole_namespace(library: Library) -> None:
    api = mixpeek.DocumentsApi(library.place.api)
    headers = {"X-Namespace": library.place.id}
    page = listed(library, limit=2)
    assert page.results is not None
    ids = [item.document_id for item in page.results]
    assert api.get_document_ns(ids[0], _headers=headers).collection_id == library.collection_id
    found = api.batch_get(mixpeek.BatchGetDocumentsRequest(document_ids=[*ids, "doc_none"]), _headers=headers)
    assert [item.document_id for item in found.documents or []] == ids
    assert found.not_found == ["doc_none"]
    changed = api.patch_document_ns(ids[0], {"note": "seen"}, _headers=headers)
    assert changed.additional_properties["note"] == "seen"
