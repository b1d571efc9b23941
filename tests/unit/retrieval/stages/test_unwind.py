"""`unwind`: one document for each element, and back again by `group_by`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.retrieval.stages.running import LAWS, refused, run

from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.retrieval.stages import unwind

VALUES = st.none() | st.integers(-2, 2) | st.sampled_from(["a", "b", ""]) | st.booleans()
DOCUMENTS = st.lists(st.lists(VALUES, max_size=5) | st.none() | st.just("scalar"), max_size=12).map(
    lambda lists: [{"document_id": f"d{index}", "deep": {"tags": tags, "kept": 1}} for index, tags in enumerate(lists)]
)


@LAWS
@given(DOCUMENTS)
def test_grouped_back_it_is_what_it_was(documents: list[dict[str, Any]]) -> None:
    parts = run("unwind", documents, {"field": "deep.tags", "include_array_index": "at"})
    groups = run("group_by", parts, {"field": "document_id", "sort_docs_by": "none", "max_groups": 1000})
    back = {group["key"]: [part["deep"]["tags"] for part in group["documents"]] for group in groups}
    whole = [document for document in documents if isinstance(document["deep"]["tags"], list)]
    lists = {document["document_id"]: document["deep"]["tags"] for document in whole if document["deep"]["tags"]}
    assert {key: value for key, value in back.items() if key in lists} == lists
    for group in groups:
        if group["key"] in lists:
            assert [part["at"] for part in group["documents"]] == list(range(group["count"]))


@LAWS
@given(DOCUMENTS)
def test_nothing_is_lost_when_empty_lists_stay(documents: list[dict[str, Any]]) -> None:
    found = run("unwind", documents, {"field": "deep.tags", "preserve_null_and_empty": True})
    expected = sum(max(1, len(tags)) if isinstance(tags := item["deep"]["tags"], list) else 1 for item in documents)
    assert len(found) == expected
    assert list(dict.fromkeys(item["document_id"] for item in found)) == [item["document_id"] for item in documents]
    assert all(item["deep"]["kept"] == 1 for item in found)


def test_what_becomes_of_each_kind_of_value() -> None:
    documents: list[dict[str, Any]] = [
        {"document_id": "list", "tags": ["x", {"y": 1}]},
        {"document_id": "scalar", "tags": "one"},
        {"document_id": "null", "tags": None},
        {"document_id": "empty", "tags": []},
        {"document_id": "missing"},
    ]
    assert run("unwind", documents, {"field": "tags"}) == [
        {"document_id": "list", "tags": "x"},
        {"document_id": "list", "tags": {"y": 1}},
        {"document_id": "scalar", "tags": "one"},
    ]
    parameters = {"field": "tags", "output_field": "tag.value", "include_array_index": "tag.at"}
    assert run("unwind", documents, {**parameters, "preserve_null_and_empty": True}) == [
        {"document_id": "list", "tags": ["x", {"y": 1}], "tag": {"value": "x", "at": 0}},
        {"document_id": "list", "tags": ["x", {"y": 1}], "tag": {"value": {"y": 1}, "at": 1}},
        {"document_id": "scalar", "tags": "one"},
        {"document_id": "null", "tags": None, "tag": {"value": None, "at": None}},
        {"document_id": "empty", "tags": [], "tag": {"value": None, "at": None}},
        {"document_id": "missing"},
    ]
    assert run("unwind", [], {"field": "tags"}) == []


def test_it_makes_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unwind, "MAX_DOCUMENTS", 3)
    documents = [{"tags": [1, 2]}, {"tags": [3, 4]}]
    with pytest.raises(SpecError, match="put a filter or limit before it"):
        run("unwind", documents, {"field": "tags"})
    assert len(run("unwind", documents[:1], {"field": "{{INPUT.field}}"}, {"field": "tags"})) == 2


def test_refused() -> None:
    refused("unwind", {}, "'field' is required")
    refused("unwind", {"field": "a", "include_index": "b"}, "did you mean 'include_array_index'")
