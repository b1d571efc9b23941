"""`query_expand` with a scripted model and the real store."""

from __future__ import annotations

from typing import Any

import pytest
from tests.servers.language import Models, Reply, data
from tests.unit.retrieval.conftest import DENSE, SPARSE, URI
from tests.unit.retrieval.stages.running import refused

from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.retrieval import fusion

WORDINGS = ["lamp 7", "light to read by"]
QUERY = {"inputs": {"query": "reading lamp"}, "limit": 100}


def stage(**parameters: Any) -> dict[str, Any]:
    return {"stage_id": "query_expand", "parameters": {"vector_index": DENSE, "top_k": 15, **parameters}}


async def search_of(world: Any, query: str, **filters: Any) -> list[tuple[str, float]]:
    """What feature_search finds by one wording."""
    parameters = {"searches": [{"feature_uri": URI, "query": query, "top_k": 15}], "final_top_k": 15}
    answer = await world.run([{"stage_id": "feature_search", "parameters": parameters}], {"limit": 100, **filters})
    return [(item["document_id"], item["score"]) for item in answer["documents"]]


@pytest.mark.parametrize("provider", ["openai", "anthropic", "google"])
@pytest.mark.parametrize("method", ["rrf", "linear", "max"])
async def test_the_wordings_are_fused(speaking: Any, models: Models, provider: str, method: str) -> None:
    models.script = [data({"queries": [" Reading Lamp ", *WORDINGS, "too many"]})]
    answer = await speaking.run([stage(num_variations=2, fusion_method=method, provider=provider)], QUERY)
    wordings = ["reading lamp", *WORDINGS]
    rankings = [await search_of(speaking, wording) for wording in wordings]
    fuse = {"rrf": fusion.rrf, "linear": fusion.weighted, "max": fusion.maximum}[method]
    scores = fuse(rankings, [1 / 3 if method == "linear" else 1.0] * 3)
    found = {item["document_id"]: item for item in answer["documents"]}
    assert found.keys() == scores.keys()
    for id, item in found.items():
        assert item["score"] == item["query_expand"]["fusion_score"] == pytest.approx(scores[id])
        ranks = [next((place for place, hit in enumerate(ranking, 1) if hit[0] == id), None) for ranking in rankings]
        assert item["query_expand"]["individual_ranks"] == ranks
        assert item["query_expand"]["matched_variations"] == [
            wording for wording, rank in zip(wordings, ranks, strict=True) if rank
        ]
    assert [item["score"] for item in answer["documents"]] == sorted(scores.values(), reverse=True)
    metadata = answer["stage_statistics"]["stages"]["query_expand"]["metadata"]
    assert metadata["queries"] == wordings
    assert answer["budget"]["credits_used"] == pytest.approx(3 + metadata["credits"], abs=1e-6)
    assert "2 other wordings" in models.asked[0].prompt
    assert models.asked[0].prompt.endswith("reading lamp")


async def test_filters_are_part_of_the_search(speaking: Any, models: Models) -> None:
    models.script = [data({"queries": WORDINGS})]
    audio = {"field": "category", "operator": "eq", "value": "audio"}
    behind = {"stage_id": "attribute_filter", "parameters": audio}
    for pipeline, request in (([stage(), behind], QUERY), ([stage()], {**QUERY, "filters": audio})):
        documents = (await speaking.run(pipeline, request))["documents"]
        assert {item["category"] for item in documents} == {"audio"}
        assert len(documents) >= 15


async def test_behind_another_stage_it_narrows(speaking: Any, models: Models) -> None:
    models.script = [data({"queries": WORDINGS})]
    cheap = {"stage_id": "attribute_filter", "parameters": {"field": "price", "operator": "lt", "value": 20}}
    sort = {"stage_id": "sort_attribute", "parameters": {"sort_field": "price"}}
    documents = (await speaking.run([cheap, sort, stage()], QUERY))["documents"]
    assert documents
    assert all(item["price"] < 20 for item in documents)


@pytest.mark.parametrize("reply", [Reply(status=503), Reply(status=401), Reply("no json")])
async def test_without_the_model_the_query_is_searched_and_said(speaking: Any, models: Models, reply: Reply) -> None:
    models.script = [reply]
    answer = await speaking.run([stage()], QUERY)
    assert len(answer["documents"]) == 15
    assert "only the query itself was searched" in answer["warnings"][0]
    assert answer["status"] == "completed"


async def test_a_prompt_of_ones_own_and_a_sparse_index(speaking: Any, models: Models) -> None:
    models.script = [data({"queries": ["lamp"]})]
    prompt = "{{num_variations}} medical words for {{ query }}, {{INPUT.kind}}"
    request = {"inputs": {"query": "lamp", "kind": "short"}}
    answer = await speaking.run([stage(vector_index=SPARSE, expansion_prompt=prompt, num_variations=4)], request)
    assert models.asked[0].prompt == "4 medical words for lamp, short"
    assert all("lamp" in item["title"] for item in answer["documents"])


async def test_what_cannot_be_searched(speaking: Any, models: Models) -> None:
    with pytest.raises(SpecError, match="no collection has the vector index 'medical'"):
        await speaking.run([stage(vector_index="medical")], QUERY)
    with pytest.raises(SpecError, match="query is empty"):
        await speaking.run([stage()], {"inputs": {"query": " "}})
    assert not models.asked


def test_what_is_refused_when_it_is_declared() -> None:
    refused("query_expand", {}, "'vector_index' is required")
    refused("query_expand", {"vector_index": "v", "num_variations": 0}, "greater than or equal to 1")
    refused("query_expand", {"vector_index": "v", "fusion_method": "learned"}, "rrf")
