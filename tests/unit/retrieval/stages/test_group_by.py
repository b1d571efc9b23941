"""`group_by` parts the documents: each is in one group."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.retrieval.stages.running import LAWS, refused, run

VALUES = st.sampled_from(["a", "b", 1, 1.0, True, None, ["a"], {"k": 1}])
DOCUMENTS = st.lists(
    st.fixed_dictionaries({}, optional={"kind": VALUES, "score": st.integers(-3, 3) | st.none()}), max_size=30
).map(lambda bodies: [{"document_id": f"d{index}", **body} for index, body in enumerate(bodies)])
BY = st.sampled_from(["count", "field", "score"])


def ids(documents: list[dict[str, Any]]) -> list[str]:
    return [document["document_id"] for document in documents]


@LAWS
@given(DOCUMENTS, BY, st.sampled_from(["asc", "desc"]))
def test_each_document_is_in_one_group(documents: list[dict[str, Any]], by: str, order: str) -> None:
    groups = run("group_by", documents, {"field": "kind", "sort_groups_by": by, "sort_order": order})
    assert sorted(id for group in groups for id in ids(group["documents"])) == sorted(ids(documents))
    for group in groups:
        assert group["count"] == len(group["documents"])
        assert all(document.get("kind") == group["key"] for document in group["documents"])
    flat = run(
        "group_by", documents, {"field": "kind", "sort_groups_by": by, "sort_order": order, "output_mode": "flatten"}
    )
    assert ids(flat) == [id for group in groups for id in ids(group["documents"])]
    if by == "count":
        counts = [group["count"] for group in groups]
        assert counts == sorted(counts, reverse=order == "desc")


@LAWS
@given(DOCUMENTS, st.integers(1, 4), st.integers(1, 3))
def test_limits_take_the_first(documents: list[dict[str, Any]], groups: int, size: int) -> None:
    whole = run("group_by", documents, {"field": "kind"})
    some = run("group_by", documents, {"field": "kind", "max_groups": groups, "docs_per_group": size})
    assert [group["key"] for group in some] == [group["key"] for group in whole][:groups]
    for group, full in zip(some, whole, strict=False):
        assert group["documents"] == full["documents"][:size]
        assert group["count"] == full["count"]


SHOP = [
    {"document_id": "1", "collection_id": "c", "score": 0.4, "kind": "lamp", "price": 9},
    {"document_id": "2", "collection_id": "c", "score": 0.9, "kind": "lamp", "price": 5},
    {"document_id": "3", "collection_id": "c", "score": 0.6, "kind": "chair", "price": 7},
    {"document_id": "4", "collection_id": "c", "score": 0.5, "kind": "lamp", "price": None},
    {"document_id": "5", "collection_id": "c", "score": 0.95},
]


def test_a_group_has_the_id_and_score_of_its_best() -> None:
    groups = run("group_by", SHOP, {"field": "kind"})
    assert [(group["key"], group["count"], ids(group["documents"])) for group in groups] == [
        ("lamp", 3, ["2", "4", "1"]),
        ("chair", 1, ["3"]),
        (None, 1, ["5"]),
    ]
    assert {key: groups[0][key] for key in ("document_id", "collection_id", "score")} == {
        "document_id": "2",
        "collection_id": "c",
        "score": 0.9,
    }
    assert groups.metadata == {"field": "kind", "total_groups": 3, "total_documents": 5}


@pytest.mark.parametrize(
    ("parameters", "keys"),
    [
        ({"sort_groups_by": "score"}, [None, "lamp", "chair"]),
        ({"sort_groups_by": "field", "sort_order": "asc"}, ["chair", "lamp", None]),
        ({"exclude_null": True}, ["lamp", "chair"]),
        ({"group_by_field": "kind", "field": None, "max_per_group": 1}, ["lamp", "chair", None]),
    ],
)
def test_order_of_groups(parameters: dict[str, Any], keys: list[Any]) -> None:
    assert [group["key"] for group in run("group_by", SHOP, {"field": "kind", **parameters})] == keys


def test_documents_within_a_group() -> None:
    by_price = run("group_by", SHOP, {"field": "kind", "sort_docs_by": "price", "max_groups": 1})
    assert ids(by_price[0]["documents"]) == ["1", "2", "4"]
    parameters = {"field": "collection_id", "sort_docs_by": "_random", "output_mode": "flatten"}
    orders = {tuple(ids(run("group_by", SHOP, {**parameters, "seed": seed}))) for seed in range(20)}
    assert len(orders) > 5
    assert run("group_by", SHOP, {**parameters, "seed": 4}) == run("group_by", SHOP, {**parameters, "seed": 4})
    first = run("group_by", SHOP, {"field": "kind", "output_mode": "first"})
    assert [(item["document_id"], item["group_key"]) for item in first] == [("2", "lamp"), ("3", "chair"), ("5", None)]


def test_without_a_field_by_the_object_they_come_from() -> None:
    documents = [
        {"document_id": str(index), "_internal": {"lineage": {"source_object_id": f"obj_{index // 2}"}}}
        for index in range(4)
    ]
    assert [(group["key"], group["count"]) for group in run("group_by", documents)] == [("obj_0", 2), ("obj_1", 2)]


@LAWS
@given(st.lists(st.sampled_from(["x", "y", "z"]), max_size=20))
def test_as_the_standard_library_groups(kinds: list[str]) -> None:
    documents = [{"document_id": str(index), "kind": kind} for index, kind in enumerate(kinds)]
    groups = run("group_by", documents, {"field": "kind", "sort_groups_by": "field", "sort_order": "asc"})
    expected = [(kind, len(list(found))) for kind, found in groupby(sorted(kinds))]
    assert [(group["key"], group["count"]) for group in groups] == expected


def test_refused() -> None:
    assert run("group_by", [], {"field": "x"}) == []
    refused("group_by", {"field": "x", "max_groups": 0}, "greater than or equal to 1")
    refused("group_by", {"field": "x", "sort_group_by": "count"}, "did you mean 'sort_groups_by'")
