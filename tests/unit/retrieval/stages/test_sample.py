"""`sample`: seeded, without replacement, fair to groups."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.retrieval.stages.running import LAWS, refused, run

KINDS = st.sampled_from(["a", "b", "c", None, 1, ["x"]])
DOCUMENTS = st.lists(KINDS, max_size=40).map(
    lambda kinds: [
        {"document_id": f"d{index}", "kind": kind, "score": -float(index % 7)} for index, kind in enumerate(kinds)
    ]
)


def ids(documents: list[dict[str, Any]]) -> list[str]:
    return [document["document_id"] for document in documents]


@LAWS
@given(DOCUMENTS, st.integers(0, 50), st.integers(), st.sampled_from(["random", "stratified", "systematic"]))
def test_without_replacement_in_order_and_repeatable(
    documents: list[dict[str, Any]], size: int, seed: int, method: str
) -> None:
    parameters = {"method": method, "size": size, "seed": seed, "group_field": "kind"}
    found = run("sample", documents, parameters)
    positions = [ids(documents).index(id) for id in ids(found)]
    assert positions == sorted(set(positions))
    assert len(found) == min(size, len(documents)) == found.metadata["sample_size"]
    assert run("sample", documents, parameters) == found


@LAWS
@given(DOCUMENTS, st.integers(0, 40), st.sampled_from(["equal", "proportional"]))
def test_groups_get_their_share(documents: list[dict[str, Any]], size: int, allocation: str) -> None:
    found = run(
        "sample",
        documents,
        {"method": "stratified", "size": size, "group_field": "kind", "allocation": allocation, "min_per_stratum": 0},
    )
    whole = Counter(str(document["kind"]) for document in documents)
    taken = Counter(str(document["kind"]) for document in found)
    for one in whole:
        for other in whole:
            if allocation == "equal" and taken[one] < whole[one]:
                assert taken[one] >= taken[other] - 1
            if allocation == "proportional" and whole[one] >= whole[other]:
                assert taken[one] >= taken[other] - 1
    if allocation == "proportional" and documents:
        for kind, count in whole.items():
            quota = count * min(size, len(documents)) / len(documents)
            assert abs(taken[kind] - quota) <= len(whole)
    assert sum(item["sampled"] for item in found.metadata["strata"]) == len(found)


def test_every_document_may_be_drawn_without_a_seed() -> None:
    documents = [{"document_id": str(index)} for index in range(5)]
    drawn = {id for _ in range(200) for id in ids(run("sample", documents, {"size": 1}))}
    assert drawn == set("01234")


def test_systematic_takes_every_nth() -> None:
    documents = [{"document_id": str(index)} for index in range(1, 11)]
    assert ids(run("sample", documents, {"method": "systematic", "size": 3})) == ["1", "4", "7"]


def test_so_many_of_each_group() -> None:
    documents = [{"document_id": f"{kind}{index}", "kind": kind} for kind in "AABBBC" for index in range(2)]
    parameters = {"method": "stratified", "group_field": "kind", "samples_per_group": 3, "seed": 1}
    found = run("sample", documents, parameters)
    assert Counter(document["sample"]["stratum"] for document in found) == {"A": 3, "B": 3, "C": 2}
    found = run("sample", documents, {**parameters, "size": 4})
    assert Counter(document["kind"] for document in found) == {"A": 2, "B": 1, "C": 1}


def test_small_groups_are_kept_by_the_other_spelling() -> None:
    documents = [{"document_id": str(index), "kind": "rare" if index == 50 else "usual"} for index in range(100)]
    parameters = {"strategy": "stratified", "count": 5, "stratify_by": "kind", "seed": 3}
    found = run("sample", documents, parameters)
    assert Counter(document["kind"] for document in found) == {"usual": 4, "rare": 1}


def test_the_best_are_kept() -> None:
    documents = [{"document_id": str(index), "score": index / 100} for index in range(100)]
    found = run("sample", documents, {"size": 5, "preserve_top_k": 3, "seed": 0})
    assert {"99", "98", "97"} < set(ids(found))
    assert len(found) == 5
    assert ids(run("sample", documents, {"size": 2, "preserve_top_k": 9})) == ["98", "99"]


def test_an_unknown_group_field_is_told() -> None:
    found = run("sample", [{"document_id": "1"}, {"document_id": "2"}], {"method": "stratified", "group_field": "kin"})
    assert len(found) == 2
    assert "no document has 'kin'" in found.warnings[0]
    assert run("sample", []) == []


def test_refused() -> None:
    refused("sample", {"method": "stratified"}, "needs group_field")
    refused("sample", {"size": -1}, "greater than or equal to 0")
    refused("sample", {"siz": 1}, "did you mean 'size'")
    refused("sample", {"seed": float("nan")}, "finite number")
