"""A query is never compared with documents that other weights embedded."""

from __future__ import annotations

from typing import Any

import pytest

from mixpeek_operator.core.errors import ConflictError
from mixpeek_operator.extraction.embedders import Embedders

DENSE = "text_extractor_v1_embedding"
URI = "mixpeek://text_extractor@v1/text_embedding"


def search(query: Any) -> list[dict[str, Any]]:
    return [{"stage_id": "feature_search", "parameters": {"searches": [{"feature_uri": URI, "query": query}]}}]


async def test_a_text_is_not_searched_among_documents_of_other_weights(world: Any) -> None:
    await world.put("products", [{"document_id": "a", "title": "red"}])
    claimed = Embedders(world.metadata, world.vectors, world.clock)
    await claimed.claim(world.declared["products"], {DENSE: "letters@1"})
    assert (await world.run(search("red")))["documents"][0]["document_id"] == "a"
    world.inference.weights = "2"
    with pytest.raises(ConflictError, match=r"'products'.*letters@1.*letters@2"):
        await world.run(search("red"))
    # Whoever sends a vector knows where it is from.
    vector = {"input_mode": "vector", "value": [0.5] * len(await embedded(world))}
    assert (await world.run(search(vector)))["documents"]


async def test_documents_are_compared_with_those_of_the_same_weights_only(world: Any) -> None:
    world.add_collection("others")
    await world.put("products", [{"document_id": "a", "title": "red"}])
    await world.put("others", [{"document_id": "b", "title": "red"}])
    claimed = Embedders(world.metadata, world.vectors, world.clock)
    await claimed.claim(world.declared["products"], {DENSE: "letters@1"})
    await claimed.claim(world.declared["others"], {DENSE: "letters@2"})
    like = {"input_mode": "document", "document_ref": {"document_id": "a"}}
    assert (await world.run(search(like)))["documents"][0]["document_id"] == "a"
    with pytest.raises(ConflictError, match="'others'"):
        await world.run(search(like), collections=("products", "others"))


async def embedded(world: Any) -> Any:
    [vector] = await world.inference.embed("letters", ["a"], purpose="query", namespace_id=world.info.id)
    return vector
