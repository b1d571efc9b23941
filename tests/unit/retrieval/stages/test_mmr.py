"""`mmr` against a plain implementation of its formula, and with vectors from the store."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.retrieval.stages.running import LAWS, refused, run

from mixpeek_operator.core.errors import ConflictError, SpecError

NUMBERS = st.integers(-4, 4).map(float)
DOCUMENTS = st.lists(
    st.fixed_dictionaries(
        {"score": st.sampled_from([0.1, 0.25, 0.5, 0.75, 0.9])},
        optional={"vec": st.tuples(NUMBERS, NUMBERS, NUMBERS).map(list), "kind": st.sampled_from(["a", "b", None])},
    ),
    max_size=12,
).map(lambda bodies: [{"document_id": f"d{index}", **body} for index, body in enumerate(bodies)])
SHARES = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


def ids(documents: list[dict[str, Any]]) -> list[str]:
    return [document["document_id"] for document in documents]


def cosine(one: dict[str, Any], other: dict[str, Any]) -> float:
    a, b = one.get("vec"), other.get("vec")
    if not a or not b or not any(a) or not any(b):
        return 0.0
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def same_kind(one: dict[str, Any], other: dict[str, Any]) -> float:
    return float(one.get("kind") is not None and one.get("kind") == other.get("kind"))


def check(found: list[dict[str, Any]], documents: list[dict[str, Any]], share: float, similarity: Any) -> None:
    """Every choice is the best one left, of those before it; of equal ones any that rounding leaves open."""
    left = {document["document_id"]: document for document in documents}
    chosen: list[dict[str, Any]] = []
    for document in found:
        penalties = {
            id: (1 - share) * max((similarity(item, other) for other in chosen), default=0.0)
            for id, item in left.items()
        }
        scores = {id: share * item["score"] - penalties[id] for id, item in left.items()}
        id = document["document_id"]
        if not chosen:
            assert left[id]["score"] == max(item["score"] for item in left.values())
        else:
            assert scores[id] == pytest.approx(max(scores.values()), abs=1e-9)
        assert document["score"] == document["mmr"]["mmr_score"] == pytest.approx(scores[id], abs=1e-9)
        assert document["mmr"]["diversity_penalty"] == pytest.approx(penalties[id], abs=1e-9)
        assert document["mmr"]["relevance_score"] == left[id]["score"]
        chosen.append(left.pop(id))
        assert document["mmr"]["selection_order"] == len(chosen)


@LAWS
@given(DOCUMENTS, SHARES, st.integers(1, 14))
def test_every_choice_is_the_best_left(documents: list[dict[str, Any]], share: float, count: int) -> None:
    found = run("mmr", documents, {"lambda": share, "top_n": count, "embedding_field": "vec"})
    assert len(found) == min(count, len(documents))
    check(found, documents, share, cosine)
    without = sum("vec" not in document for document in documents)
    assert bool(found.warnings) == bool(without)
    by_kind = run("mmr", documents, {"lambda": share, "top_n": count, "diversity_fields": ["kind"]})
    check(by_kind, documents, share, same_kind)


@LAWS
@given(DOCUMENTS)
def test_relevance_alone_is_the_order_by_score(documents: list[dict[str, Any]]) -> None:
    found = run("mmr", documents, {"lambda": 1.0, "top_n": 20, "embedding_field": "vec"})
    by_score = run("sort_relevance", documents)
    assert ids(found) == ids(by_score)
    assert [item["score"] for item in found] == [item["score"] for item in by_score]


TWINS = [
    {"document_id": "a", "score": 0.95, "vec": [1.0, 0.0]},
    {"document_id": "twin", "score": 0.94, "vec": [1.0, 0.01]},
    {"document_id": "b", "score": 0.8, "vec": [0.0, 1.0]},
    {"document_id": "far", "score": 0.1, "vec": [-1.0, 0.0]},
]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"lambda": 1.0}, ["a", "twin", "b", "far"]),
        ({}, ["a", "far", "b", "twin"]),
        ({"lambda": 0.8}, ["a", "b", "twin", "far"]),
        ({"lambda": 0.0, "top_k": 2}, ["a", "far"]),
        ({"lambda": 0.8, "similarity_metric": "dot"}, ["a", "b", "twin", "far"]),
        ({"lambda": 0.5, "similarity_metric": "euclidean"}, ["a", "b", "twin", "far"]),
    ],
)
def test_twins_are_parted(parameters: dict[str, Any], expected: list[str]) -> None:
    assert ids(run("mmr", TWINS, {"embedding_field": "vec", **parameters})) == expected


def test_weights_of_fields_and_other_places_of_the_score() -> None:
    documents = [
        {"document_id": "1", "rank": {"r": 0.9}, "kind": "x", "maker": "m"},
        {"document_id": "2", "rank": {"r": 0.8}, "kind": "x", "maker": "n"},
        {"document_id": "3", "rank": {"r": 0.8}, "kind": "y", "maker": "m"},
        {"document_id": "4"},
    ]
    parameters: dict[str, Any] = {
        "diversity_fields": ["kind", "maker"],
        "diversity_field_weights": {"kind": 3},
        "score_field": "rank.r",
        "mmr_score_field": "rank.mmr",
    }
    found = run("mmr", documents, parameters)
    assert ids(found) == ["1", "3", "2", "4"]
    assert found[1]["mmr"]["diversity_penalty"] == pytest.approx(0.5 * 0.25)
    assert found[1]["rank"] == {"r": 0.8, "mmr": found[1]["score"]}


def test_a_list_that_is_no_vector() -> None:
    for wrong in (["x"], [float("nan")], [True], [], "text", [1.0, 2.0, 3.0]):
        with pytest.raises(SpecError, match="vec"):
            run("mmr", [*TWINS, {"document_id": "wrong", "vec": wrong}], {"embedding_field": "vec"})


def test_refused() -> None:
    assert run("mmr", [], {"diversity_fields": ["kind"]}) == []
    refused("mmr", {"lambda": 1.5}, "less than or equal to 1")
    refused("mmr", {"lambda": float("nan")}, "number")
    refused("mmr", {"lamda": 0.5}, "did you mean 'lambda'")
    refused("mmr", {"diversity_fields": ["x"], "embedding_field": "y"}, "give one of")
    refused("mmr", {"diversity_fields": ["x"], "diversity_field_weights": {"y": 1}}, "names no diversity field: y")
    refused("mmr", {"similarity_metric": "manhattan"}, "cosine")


URI = "mixpeek://text_extractor@v1/text_embedding"
SEARCH = {
    "stage_id": "feature_search",
    "parameters": {"searches": [{"feature_uri": URI, "query": [1.0] * 8, "top_k": 30}], "final_top_k": 30},
}


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"embedding_field": URI},
        {"embedding_field": "text_extractor_v1_embedding"},
        {"embedding_field": "features.text_embedding"},
        {"diversity_features": [{"feature_uri": URI, "weight": 2.0}]},
    ],
)
async def test_vectors_come_from_the_store_in_one_call(
    world: Any, parameters: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = {item["document_id"]: item["vector"] for item in world.products}
    asked: list[int] = []
    get = world.vectors.get

    async def counted(collection: str, ids: list[str], **options: Any) -> Any:
        asked.append(len(ids))
        return await get(collection, ids, **options)

    monkeypatch.setattr(world.vectors, "get", counted)
    before = (await world.run([SEARCH]))["documents"]
    answer = await world.run([SEARCH, {"stage_id": "mmr", "parameters": {"lambda": 0.6, "top_n": 9, **parameters}}])
    assert asked == [30]
    documents = [{**item, "vec": vectors[item["document_id"]]} for item in before]
    found = [{**item, "mmr": item["mmr"]} for item in answer["documents"]]
    assert len(found) == 9
    # The store keeps vectors in single precision.
    left = {item["document_id"]: item for item in documents}
    chosen: list[dict[str, Any]] = []
    for item in found:
        penalty = 0.4 * max((cosine(left[item["document_id"]], other) for other in chosen), default=0.0)
        assert item["score"] == pytest.approx(0.6 * left[item["document_id"]]["score"] - penalty, abs=1e-5)
        chosen.append(left[item["document_id"]])


async def test_features_that_cannot_be_used(world: Any) -> None:
    async def refusal(parameters: dict[str, Any]) -> str:
        with pytest.raises(SpecError) as caught:
            await world.run([SEARCH, {"stage_id": "mmr", "parameters": parameters}])
        return str(caught.value)

    assert "sparse" in await refusal({"embedding_field": "mixpeek://text_extractor@v1/text_sparse_embedding"})
    assert "nothing" in await refusal({"embedding_field": "mixpeek://text_extractor@v1/nothing"})


async def test_vectors_of_different_weights_are_not_compared(world: Any) -> None:
    embedders = world.retrieval._embedders
    for number, name in enumerate(("products", "suppliers")):
        await embedders.claim(world.declared[name], {"text_extractor_v1_embedding": f"model {number}"})
    both = {"collections": ("products", "suppliers")}
    with pytest.raises(ConflictError, match="cannot be compared"):
        await world.run([{"stage_id": "mmr"}], **both)
