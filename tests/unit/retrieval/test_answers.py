"""Answers: their download links, the collections behind them, and what is refused when they are declared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from mixpeek import models

from mixpeek_operator.core import ids
from mixpeek_operator.core.errors import SpecError, UnavailableError
from mixpeek_operator.core.listing import ListQuery
from mixpeek_operator.ports.vectors import Point
from mixpeek_operator.retrieval.registry import StageRegistry

URI = "mixpeek://text_extractor@v1/text_embedding"
SIZE = 8

FIND = {
    "stage_name": "find",
    "stage_id": "attribute_filter",
    "parameters": {"field": "category", "operator": "eq", "value": "filed"},
}
FIND_AUDIO = {**FIND, "parameters": {"field": "category", "operator": "eq", "value": "audio"}}
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


def join_with(target: str) -> dict[str, Any]:
    return {
        "stage_name": "join",
        "stage_id": "document_enrich",
        "parameters": {"target_collection_id": target, "source_field": "supplier", "target_field": "supplier_id"},
    }


def search_in(*collections: str) -> dict[str, Any]:
    search = {"feature_uri": URI, "query": {"input_mode": "vector", "value": [1.0] * SIZE}, "top_k": 5}
    return {
        "stage_name": "search",
        "stage_id": "feature_search",
        "parameters": {"searches": [search], "collection_identifiers": list(collections)},
    }


async def test_a_collection_that_only_a_stage_names_recompiles_when_it_changes(world: Any) -> None:
    world.declare([search_in("suppliers")])
    assert {item["collection_id"] for item in await documents(world)} == {"col_suppliers"}
    compiled = await world.retrieval._pipelines.declared(world.info, "r")
    await documents(world)
    again = await world.retrieval._pipelines.declared(world.info, "r")
    assert again is compiled, "nothing changed, nothing is compiled"
    world.declared["suppliers"] = replace(world.declared["suppliers"], features=(), config_signature="other")
    with pytest.raises(SpecError, match="text_embedding"):
        await documents(world)
    # The name now belongs to another collection.
    world.declared["suppliers"] = replace(world.declared["products"], name="suppliers")
    assert {item["collection_id"] for item in await documents(world)} == {"col_products"}


async def test_the_target_of_a_join_is_looked_up_again_when_it_changes(world: Any) -> None:
    world.declare([FIND_AUDIO, join_with("suppliers")])
    assert any("name" in item for item in await documents(world))
    world.declared["suppliers"] = replace(world.declared["suppliers"], id="col_empty", config_signature="other")
    assert not any("name" in item for item in await documents(world))
    del world.declared["suppliers"]
    with pytest.raises(SpecError, match="suppliers"):
        await documents(world)


async def test_a_target_that_is_made_later_is_found(world: Any) -> None:
    world.declare([FIND_AUDIO, {**join_with("later"), "on_error": "skip"}])
    answer = await world.retrieval.execute(world.scope, "r", {})
    assert answer["status"] == "degraded"
    world.declared["later"] = replace(world.declared["suppliers"], name="later")
    answer = await world.retrieval.execute(world.scope, "r", {})
    assert answer["status"] == "completed" and any("name" in item for item in answer["documents"])


async def documents(world: Any) -> list[dict[str, Any]]:
    answer = await world.retrieval.execute(world.scope, "r", {})
    found: list[dict[str, Any]] = answer["documents"]
    return found


INPUTS = {"query": {"type": "text"}, "max_price": {"type": "number"}}


@pytest.mark.parametrize(
    ("stage", "path"),
    [
        (
            {"stage_id": "feature_search", "parameters": {"feature_uri": URI, "input": {"text": "{{INPUT.qury}}"}}},
            "stages[0].parameters.input.text",
        ),
        (
            {
                "stage_id": "attribute_filter",
                "parameters": {"field": "price", "value": "{{inputs['qury'] | default(1)}}"},
            },
            "stages[0].parameters.value",
        ),
        (
            {"stage_id": "json_transform", "parameters": {"template": '{% if INPUT.qury.x %}{"a": 1}{% endif %}'}},
            "stages[0].parameters.template",
        ),
        (
            {"stage_id": "limit", "when": {"field": "a", "operator": "eq", "value": "{{INPUT.qury}}"}},
            "stages[0].when",
        ),
    ],
    ids=["search", "filter", "jinja", "when"],
)
def test_an_input_that_is_not_declared_is_a_problem_with_its_place(stage: dict[str, Any], path: str) -> None:
    check = StageRegistry().check_stages
    (problem,) = check([stage], INPUTS)
    assert problem.code == "unknown_input" and problem.place is not None and problem.place.path == path
    assert "'qury'" in problem.message and "did you mean 'query'?" in problem.message
    assert check([stage], {}) == [], "a schema without inputs leaves them open"
    assert check([stage], {"properties": {**INPUTS, "qury": {"type": "text"}}}) == []


def test_what_templates_use_beside_inputs_is_left_alone() -> None:
    template = '{% for tag in DOC.tags %}{"a": {{ tag.qury }}, "b": {{ INPUT.get("x", 1) }}}{% endfor %}'
    stages = [{"stage_id": "json_transform", "parameters": {"template": template}}]
    assert StageRegistry().check_stages(stages, INPUTS) == []


async def test_a_namespace_without_vectors_is_unavailable_and_not_missing(world: Any) -> None:
    await world.vectors.delete_collection(world.info.vector_collection)
    for stages in ([search_in("products")], [FIND_AUDIO]):
        with pytest.raises(UnavailableError, match="'shop' are not provisioned yet") as caught:
            await world.run(stages)
        assert caught.value.code == "namespace_not_ready" and caught.value.retryable
    assert (await world.retrieval.explain(world.scope, "r", {}))["execution_plan"]
    await world.retrieval.flush()
    history = await world.retrieval.executions(world.scope, "r", ListQuery())
    assert {item["status"] for item in history.items} == {"failed"}
