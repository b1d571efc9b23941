from __future__ import annotations

from typing import Any

import pytest
from tests.unit.reconciling.world import BASE, SCOPE, World, condition

from mixpeek_operator.core.errors import AlreadyExistsError, ConflictError, NotFoundError, SpecError
from mixpeek_operator.core.resource import FINALIZER
from mixpeek_operator.core.scope import Scope

OTHER = Scope("int_two")


async def test_ids_are_derived_and_names_kept(world: World) -> None:
    scope = await world.base()
    found = await world.resources.get(scope, "Collection", "article_texts")
    assert found.metadata.name == "products.article-texts"
    assert found.name == "article_texts"
    assert found.id.startswith("col_") and len(found.id) == 14
    assert found.metadata.finalizers == [FINALIZER]
    assert (await world.resources.get(scope, "Collection", found.id)).key == found.key


async def test_references_by_id_become_names(world: World) -> None:
    scope = await world.base()
    bucket = await world.resources.get(scope, "Bucket", "articles")
    body = {**BASE[1][1], "name": "second", "source": {"type": "bucket", "bucket_ids": [bucket.id]}}
    made = await world.resources.create(scope, "Collection", body)
    assert made.spec["source"]["bucket_ids"] == ["articles"]
    assert made.spec["namespace"] == "products"


async def test_nothing_is_seen_across_namespaces_or_organizations(world: World) -> None:
    scope = await world.base()
    bucket = await world.resources.get(scope, "Bucket", "articles")
    second = await world.namespace("second")
    elsewhere = Scope(SCOPE.organization, second.id, second.name)
    for identifier in ("articles", bucket.id):
        with pytest.raises(NotFoundError):
            await world.resources.get(elsewhere, "Bucket", identifier)
        body = {**BASE[1][1], "source": {"type": "bucket", "bucket_ids": [identifier]}}
        with pytest.raises(NotFoundError, match=r"source\.bucket_ids"):
            await world.resources.create(elsewhere, "Collection", body)
    with pytest.raises(NotFoundError):
        await world.resources.get(OTHER, "Namespace", "products")
    stranger = Scope(OTHER.organization, scope.namespace_id, "products")
    with pytest.raises(NotFoundError):
        await world.resources.get(stranger, "Bucket", bucket.id)


async def test_every_mistake_is_reported_at_once(world: World) -> None:
    made = await world.namespace()
    scope = Scope(SCOPE.organization, made.id, made.name)
    with pytest.raises(SpecError) as caught:
        await world.resources.create(scope, "Bucket", {"nmae": "x", "bucket_schema": {"properties": 3}})
    assert len(caught.value.problems) >= 3
    assert await world.resources.find(scope, "Bucket") == []


async def test_a_taken_name_and_a_clash_of_spellings(world: World) -> None:
    scope = await world.base()
    with pytest.raises(AlreadyExistsError, match="articles"):
        await world.resources.create(scope, "Bucket", BASE[0][1])
    await world.resources.create(scope, "Bucket", {**BASE[0][1], "name": "a_b"})
    with pytest.raises(AlreadyExistsError, match=r"a_b.*products\.a-b"):
        await world.resources.create(scope, "Bucket", {**BASE[0][1], "name": "a-b"})


@pytest.mark.parametrize(
    ("kind", "name", "patch", "field"),
    [
        ("Collection", "article_texts", {"source": {"type": "bucket", "bucket_id": "others"}}, "source"),
        (
            "Collection",
            "article_texts",
            {"feature_extractor": {"name": "passthrough_extractor", "version": "v1"}},
            "feature_extractor",
        ),
        ("Retriever", "search", {"stages": [{"stage_id": "limit"}]}, "stages"),
        ("Bucket", "articles", {"unique_key": {"fields": ["title"]}}, "unique_key"),
    ],
)
async def test_an_immutable_field_is_refused_with_why(
    world: World, kind: str, name: str, patch: dict[str, Any], field: str
) -> None:
    scope = await world.base()
    await world.resources.create(scope, "Bucket", {**BASE[0][1], "name": "others"})
    before = await world.resources.get(scope, kind, name)
    with pytest.raises(ConflictError, match=rf"{field}.* cannot change because"):
        await world.resources.update(scope, kind, name, patch)
    assert await world.resources.get(scope, kind, name) == before


async def test_a_merge_patch(world: World) -> None:
    scope = await world.base()
    first = await world.resources.update(scope, "Bucket", "articles", {"description": "Old", "metadata": {"a": 1}})
    assert first.metadata.generation == 2
    second = await world.resources.update(
        scope, "Bucket", "articles", {"description": None, "metadata": {"b": 2, "a": None}}
    )
    assert "description" not in second.spec
    assert second.spec["metadata"] == {"b": 2}
    same = await world.resources.update(scope, "Bucket", "articles", {"metadata": {"b": 2}})
    assert same.metadata.resource_version == second.metadata.resource_version
    with pytest.raises(SpecError, match="empty"):
        await world.resources.update(scope, "Bucket", "articles", {})


async def test_a_rename_takes_its_referrers_along(world: World) -> None:
    scope = await world.base()
    before = await world.resources.get(scope, "Bucket", "articles")
    renamed = await world.resources.update(scope, "Bucket", "articles", {"bucket_name": "posts"})
    assert (renamed.name, renamed.id, renamed.key) == ("posts", before.id, before.key)
    collection = await world.resources.get(scope, "Collection", "article_texts")
    assert collection.spec["source"]["bucket_ids"] == ["posts"]
    fresh = await world.resources.create(scope, "Bucket", BASE[0][1])
    assert fresh.id != renamed.id and fresh.key != renamed.key
    await world.settle()
    assert condition(await world.resources.get(scope, "Collection", "article_texts"), "Ready")["status"] == "True"


async def test_a_namespace_is_renamed_with_all_that_is_in_it(world: World) -> None:
    scope = await world.base()
    await world.settle()
    await world.resources.update(SCOPE, "Namespace", "products", {"name": "goods"})
    await world.settle()
    # A scope that was made before still finds everything.
    search = await world.resources.get(scope, "Retriever", "search")
    assert search.namespace == "goods"
    assert condition(search, "Ready")["status"] == "True"
    info = await world.directory.collection(scope.namespace_id or "", "article_texts")
    assert info.vector_collection == scope.namespace_id


async def test_what_is_referred_to_is_not_deleted(world: World) -> None:
    scope = await world.base()
    with pytest.raises(ConflictError, match="Collection 'article_texts'"):
        await world.resources.delete(scope, "Bucket", "articles")
    bucket = await world.resources.get(scope, "Bucket", "articles")
    assert not bucket.deleting


async def test_a_namespace_goes_with_all_that_is_in_it(world: World) -> None:
    scope = await world.base()
    await world.settle()
    await world.resources.delete(SCOPE, "Namespace", "products")
    with pytest.raises(NotFoundError):
        await world.directory.collection(scope.namespace_id or "", "article_texts")
    await world.settle()
    assert world.index.everything() == []


async def test_an_extractor_must_be_listed_by_the_namespace(world: World) -> None:
    made = await world.namespace(feature_extractors=[{"name": "passthrough_extractor", "version": "v1"}])
    scope = Scope(SCOPE.organization, made.id, made.name)
    await world.resources.create(scope, *BASE[0])
    with pytest.raises(SpecError, match="not among the extractors of namespace 'products'"):
        await world.resources.create(scope, *BASE[1])


async def test_a_feature_uri_must_exist(world: World) -> None:
    scope = await world.base()
    stages = [{"stage_id": "feature_search", "parameters": {"feature_uri": "mixpeek://text_extractor@v1/nothing"}}]
    with pytest.raises(SpecError, match="nothing") as caught:
        await world.resources.create(scope, "Retriever", {**BASE[3][1], "name": "bad", "stages": stages})
    assert caught.value.problems[0].location == ("stages", 0, "parameters", "feature_uri")


async def test_an_id_may_be_adopted_once(world: World) -> None:
    made = await world.resources.create(SCOPE, "Namespace", {"name": "old"}, id="ns_adopted00")
    assert made.id == "ns_adopted00"
    with pytest.raises(AlreadyExistsError, match="ns_adopted00"):
        await world.resources.create(OTHER, "Namespace", {"name": "thief"}, id="ns_adopted00")


async def test_a_name_can_be_used_again_after_a_deletion(world: World) -> None:
    scope = await world.base()
    await world.settle()
    first = await world.resources.get(scope, "Retriever", "search")
    await world.resources.delete(scope, "Retriever", "search")
    with pytest.raises(AlreadyExistsError, match="being deleted"):
        await world.resources.create(scope, *BASE[3])
    await world.settle()
    again = await world.resources.create(scope, *BASE[3])
    assert again.id == first.id
    assert again.metadata.uid != first.metadata.uid
