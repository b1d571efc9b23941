"""The example that the catalogue shows of a stage runs, behind a search; its page is there."""

from __future__ import annotations

from typing import Any

import pytest
from mixpeek import RetrieverStageDefinition
from tests.unit.retrieval.stages.running import REGISTRY

from mixpeek_operator.api.catalog import in_category, stage_discovery, stage_item

CATEGORIES = {
    "mmr": "sort",
    "rerank": "sort",
    "score_normalize": "sort",
    "aggregate": "reduce",
    "sample": "reduce",
    "deduplicate": "reduce",
    "group_by": "group",
    "cluster": "group",
    "unwind": "apply",
    "rag_prepare": "apply",
    "cross_compare": "apply",
    "code_execution": "apply",
}
SEARCH = {
    "stage_id": "feature_search",
    "parameters": {
        "searches": [{"feature_uri": "mixpeek://text_extractor@v1/text_embedding", "query": [1.0] * 8}],
        "final_top_k": 30,
    },
}


@pytest.mark.parametrize("stage_id", CATEGORIES)
async def test_the_example_runs(world: Any, stage_id: str) -> None:
    example = stage_discovery(REGISTRY.stages()[stage_id])["example_config"]
    assert example["stage_type"] == CATEGORIES[stage_id].replace("group", "reduce")
    assert example["config"]["parameters"], "the example shows parameters"
    answer = await world.run([SEARCH, example], {"inputs": {}})
    statistics = answer["stage_statistics"]["stages"][stage_id]
    assert answer["status"] == "completed"
    assert statistics["input_count"] == 30
    if stage_id == "aggregate":
        assert answer["aggregations"]
        assert statistics["metadata"]["aggregations"] == answer["aggregations"]
    else:
        assert answer["documents"]
    again = await world.run([example])
    assert again["status"] == "completed"


@pytest.mark.parametrize("stage_id", CATEGORIES)
def test_it_is_in_the_catalogue(stage_id: str) -> None:
    found = {item["stage_id"]: item for item in REGISTRY.catalog(CATEGORIES[stage_id])}
    assert {"stage_id", "description", "category", "icon", "parameter_schema"} == found[stage_id].keys()


def test_a_client_library_reads_every_category() -> None:
    for info in REGISTRY.stages().values():
        item = stage_item(info)
        read = RetrieverStageDefinition.from_dict(item)
        assert read is not None
        assert in_category(info, None)
        assert in_category(info, item["category"])
        assert in_category(info, info.category)
    assert not in_category(REGISTRY.stages()["limit"], "group")


async def test_when_leaves_other_documents_as_they_are(world: Any) -> None:
    stage = {
        "stage_id": "score_normalize",
        "parameters": {"output_field": "normal"},
        "when": {"field": "category", "operator": "eq", "value": "audio"},
    }
    documents = (await world.run([SEARCH, stage]))["documents"]
    assert {item["category"] == "audio" for item in documents} == {True, False}
    assert all(("normal" in item) == (item["category"] == "audio") for item in documents)
