from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.reconciling.world import DENSE, SCOPE, URI, World, condition

from mixpeek_operator.adapters.qdrant_edge import QdrantEdgeVectors
from mixpeek_operator.core.errors import NotFoundError
from mixpeek_operator.core.lifecycle import Backends


async def test_facts_of_every_kind(world: World) -> None:
    scope = await world.base()
    namespace_id = scope.namespace_id or ""
    directory = world.directory
    namespace = await directory.namespace(SCOPE.organization, "products")
    assert namespace == await directory.namespace(SCOPE.organization, namespace_id)
    assert namespace.vector_collection == namespace_id
    bucket = await directory.bucket(namespace_id, "articles")
    assert bucket.properties == {"title": {"type": "text"}}
    texts = await directory.collection(namespace_id, "article_texts")
    assert texts.source_ids == (bucket.id,)
    assert [feature.uri for feature in texts.features] == [URI]
    assert texts.input_mappings == {"text": "title"}
    summaries = await directory.collection(namespace_id, "summaries")
    assert (summaries.tier, summaries.source_ids, summaries.source_type) == (1, (texts.id,), "collection")
    assert summaries.include_all_source_fields
    assert [item.name for item in await directory.collections(namespace_id)] == ["article_texts", "summaries"]
    retriever = await directory.retriever(namespace_id, "search")
    assert retriever.collection_ids == (texts.id,)
    stored = world.index.named(SCOPE.organization, "Retriever", "products", "search")
    assert stored is not None
    assert retriever.version == f"{stored.metadata.uid}/1"


async def test_taxonomies(world: World) -> None:
    scope = await world.base()
    namespace_id = scope.namespace_id or ""
    texts = await world.directory.collection(namespace_id, "article_texts")
    summaries = await world.directory.collection(namespace_id, "summaries")
    retriever = await world.directory.retriever(namespace_id, "search")
    by_title = {"input_key": "query", "source_type": "payload", "path": "title"}
    flat = {
        "retriever_id": "search",
        "input_mappings": [by_title],
        "source_collection": {"collection_id": "article_texts", "enrichment_fields": [{"field_path": "topic"}]},
    }
    nodes = [
        {"collection_id": "article_texts", "label": "Texts"},
        {"collection_id": "summaries", "parent_collection_id": "article_texts", "retriever_id": "search"},
    ]
    tree = {"retriever_id": "search", "input_mappings": [by_title], "hierarchical_nodes": nodes}
    for name, config in (("flat", flat), ("tree", tree)):
        await world.resources.create(scope, "Taxonomy", {"taxonomy_name": name, "config": config})
    found = await world.directory.taxonomy(namespace_id, "flat")
    assert (found.name, found.hierarchical, found.path_field) == ("flat", False, None)
    [level] = found.levels
    assert (level.collection_id, level.name, level.retriever_id) == (texts.id, "article_texts", retriever.id)
    assert [mapping["input_key"] for mapping in level.inputs] == ["query"]
    assert [entry["field_path"] for entry in level.fields or ()] == ["topic"]
    upper, lower = (await world.directory.taxonomy(namespace_id, "tree")).levels
    assert (upper.name, upper.parent_id, upper.fields) == ("Texts", None, None)
    assert (lower.collection_id, lower.parent_id, lower.retriever_id) == (summaries.id, texts.id, retriever.id)
    assert lower.inputs == upper.inputs != ()
    with pytest.raises(NotFoundError):
        await world.directory.taxonomy(namespace_id, "search")


async def test_a_change_is_seen_at_once(world: World) -> None:
    scope = await world.base()
    namespace_id = scope.namespace_id or ""
    before = await world.directory.collection(namespace_id, "article_texts")
    await world.resources.update(scope, "Collection", "article_texts", {"enabled": False})
    after = await world.directory.collection(namespace_id, "article_texts")
    assert (before.enabled, after.enabled) == (True, False)
    assert before.config_signature == after.config_signature


async def test_another_organization_finds_nothing(world: World) -> None:
    scope = await world.base()
    with pytest.raises(NotFoundError):
        await world.directory.namespace("int_two", scope.namespace_id or "")
    assert await world.directory.namespaces("int_two") == []


async def test_on_the_real_vector_store(world: World, tmp_path: Path) -> None:
    vectors = QdrantEdgeVectors(tmp_path / "edge")
    backends = Backends(vectors, world.metadata, world.cache, world.blobs)
    world.clients.update({name: kind.client(backends) for name, kind in world.kinds.items()})
    world.vectors.states.clear()
    try:
        scope = await world.base()
        await world.settle()
        state = await vectors.describe(scope.namespace_id or "")
        assert state is not None
        assert set(state.vectors) == {DENSE.name}
        assert state.payload_indexes["document_id"] == "keyword"
        for key in world.index.everything():
            assert condition(world.index.get(key), "Ready")["status"] == "True"
        await world.resources.delete(SCOPE, "Namespace", "products")
        await world.settle()
        assert await vectors.list_collections() == []
    finally:
        await vectors.close()
