"""The SDK's own client, `Mixpeek`: its managers over the parts that this server has."""

from __future__ import annotations

from typing import Any

import pytest
from mixpeek import Mixpeek
from mixpeek._client.client import MixpeekAPIError
from tests.servers.mixpeek import KEY, Server
from tests.system.conftest import Library, Place, eventually, unique

URI = "mixpeek://text_extractor@v1/text_embedding"
STAGES: list[dict[str, Any]] = [
    {
        "stage_name": "find",
        "stage_type": "filter",
        "config": {
            "stage_id": "feature_search",
            "parameters": {"searches": [{"feature_uri": URI, "query": "{{INPUT.query}}", "top_k": 3}]},
        },
    }
]
INPUT = {"query": {"type": "text", "required": True}}


def test_the_whole_path(live: Server) -> None:
    name = unique("client")
    client = Mixpeek(KEY, base_url=f"{live.url}/v1")
    made = client.namespaces.create(
        name=name, feature_extractors=[{"feature_extractor_name": "text_extractor", "version": "v1"}]
    )
    assert name in {item["namespace_name"] for item in client.namespaces.list()["results"]}
    mp = Mixpeek(KEY, namespace=made.namespace_id, base_url=f"{live.url}/v1")
    bucket = mp.buckets.create(name="words", bucket_schema={"properties": {"text": {"type": "text"}}})
    assert mp.buckets.get(bucket.bucket_id).bucket_name == "words"
    assert [item["bucket_id"] for item in mp.buckets.list()["results"]] == [bucket.bucket_id]
    first = mp.buckets.upload(bucket.bucket_id, data="a tent in the rain", metadata={"n": 1})
    indexed = mp.index("hot soup in a flask", metadata={"n": 2})
    listed = mp.buckets.list_objects(bucket.bucket_id, page_size=1)
    assert len(listed.results) == 1
    rest = mp.buckets.list_objects(bucket.bucket_id, page_size=1, cursor=listed.pagination.next_cursor)
    assert {listed.results[0].object_id, rest.results[0].object_id} == {first.object_id, indexed.object_id}
    collection = mp.collections.create(
        name="sentences",
        source={"type": "bucket", "bucket_ids": [bucket.bucket_id]},
        feature_extractor={
            "feature_extractor_name": "text_extractor",
            "version": "v1",
            "input_mappings": {"text": "text"},
        },
        namespace_id=made.namespace_id,
    )
    assert mp.collections.update(collection.collection_id, description="words").description == "words"
    started = mp.collections.trigger(collection.collection_id)
    ended = eventually(lambda: mp.tasks.get(started.task_id).status == "COMPLETED")
    assert ended
    batch = mp.batches.get(bucket.bucket_id, started.batch_id)
    assert batch.status == "COMPLETED"
    audit = mp.batches.audit(bucket.bucket_id, started.batch_id)
    assert audit.all_balanced is True
    assert audit.has_lost_objects is False
    assert mp.batches.failed_documents(bucket.bucket_id, started.batch_id, limit=5).failed_documents == []
    assert mp.tasks.list(limit=5)["results"]
    documents = mp.documents.list(collection.collection_id, page_size=1)
    assert len(documents.results) == 1
    id = documents.results[0].document_id
    assert mp.documents.update(collection.collection_id, id, update_data={"seen": True}).seen is True
    mp.documents.batch_update(collection.collection_id, updates=[{"document_id": id, "update_data": {"seen": False}}])
    assert mp.documents.get(collection.collection_id, id).seen is False
    retriever = mp.retrievers.create(
        name="finder", stages=STAGES, input_schema=INPUT, collection_identifiers=["sentences"]
    )
    found = mp.retrievers.execute(retriever.retriever_id, inputs={"query": "warm soup"})
    assert found.documents[0].text == "hot soup in a flask"
    assert mp.retrievers.run(retriever.retriever_id, inputs={"query": "rain"}, limit=1).pagination.returned == 1
    many = mp.retrievers.execute_batch(retriever.retriever_id, queries=[{"query": "soup"}, {"query": "tent"}])
    assert [item.documents[0].text for item in many.results] == ["hot soup in a flask", "a tent in the rain"]
    mp.retrievers.update(retriever.retriever_id, description="changed")
    assert mp.retrievers.get("finder").description == "changed"
    assert mp.retrievers.clone(retriever.retriever_id, name="second").retriever.retriever_name == "second"
    assert len(mp.retrievers.list()["results"]) == 2
    assert mp.collections.clone(collection.collection_id, name="other").collection.collection_name == "other"
    mp.documents.delete(collection.collection_id, id)
    for name_ in ("finder", "second"):
        mp.retrievers.delete(name_)
    for name_ in ("sentences", "other"):
        mp.collections.delete(name_)
    mp.buckets.delete("words")
    client.namespaces.delete(made.namespace_id)
    with pytest.raises(MixpeekAPIError) as gone:
        client.namespaces.get(made.namespace_id)
    assert gone.value.status == 404


def test_searching_with_a_vector(library: Library) -> None:
    mp = library.place.mp
    page = library.place.http.post(
        "/v1/collections/sentences/documents/list", json={"limit": 1, "return_vectors": True}
    ).json()
    document = page["results"][0]
    vectors = document.get("vectors") or document
    query = {"input_mode": "vector", "value": vectors["text_extractor_v1_embedding"]}
    found = mp.search(
        queries=[{"feature_uri": URI, "query": query}],
        namespace_id=library.place.id,
        limit=3,
        collection_identifiers=["sentences"],
    )
    assert found.documents[0].document_id == document["document_id"]


def test_a_namespace_named_in_the_call_goes_into_the_header(place: Place, elsewhere: Place) -> None:
    bucket = elsewhere.mp.buckets.create(
        name=unique("here"), bucket_schema={"properties": {"text": {"type": "text"}}}, namespace_id=place.id
    )
    assert place.mp.buckets.get(bucket.bucket_id).bucket_id == bucket.bucket_id
    with pytest.raises(MixpeekAPIError) as hidden:
        elsewhere.mp.buckets.get(bucket.bucket_id)
    assert hidden.value.status == 404


def test_errors_are_told_at_once_and_not_retried(place: Place) -> None:
    with pytest.raises(MixpeekAPIError) as wrong:
        place.mp.collections.create(name="x", source={"type": "bucket", "bucket_ids": ["nowhere"]})
    assert wrong.value.status == 404
    assert "nowhere" in wrong.value.detail["error"]["message"]
    with pytest.raises(MixpeekAPIError) as unrun:
        place.mp._request("POST", "/clusters/clust_none/execute", body={})
    assert unrun.value.retryable is False
