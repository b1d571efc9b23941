"""`deduplicate` by fields and by text; by vectors see `test_vectors`."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.retrieval.stages.running import LAWS, refused, run

from mixpeek_operator.retrieval.stages._near import trigrams, unlike_texts

VALUES = st.sampled_from(["a", "A", "b", 1, 1.0, True, None, ["a", 1], ["A", 1.0], {"x": "a"}, {"x": "A"}])
DOCUMENTS = st.lists(st.fixed_dictionaries({}, optional={"x": VALUES, "y": VALUES}), max_size=25).map(
    lambda bodies: [{"document_id": f"d{index}", **body} for index, body in enumerate(bodies)]
)
TEXTS = st.lists(st.text("abc ", max_size=12) | st.none(), max_size=20)
PARAMETERS = st.fixed_dictionaries(
    {
        "fields": st.sampled_from([["x"], ["x", "y"], ["x.x"]]),
        "keep": st.sampled_from(["first", "last"]),
        "case_sensitive": st.booleans(),
    }
)


@LAWS
@given(DOCUMENTS, PARAMETERS)
def test_twice_is_once(documents: list[dict[str, Any]], parameters: dict[str, Any]) -> None:
    once = run("deduplicate", documents, parameters)
    assert run("deduplicate", once, parameters) == once
    positions = [documents.index(document) for document in once]
    assert positions == sorted(positions)
    assert once.metadata["removed_count"] == len(documents) - len(once)


@LAWS
@given(DOCUMENTS)
def test_first_and_last_keep_as_many(documents: list[dict[str, Any]]) -> None:
    counts = {len(run("deduplicate", documents, {"fields": ["x"], "keep": keep})) for keep in ("first", "last")}
    assert len(counts) == 1


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"fields": ["url"]}, ["a", "c", "e"]),
        ({"fields": ["url"], "keep": "last"}, ["c", "d", "f"]),
        ({"fields": ["url"], "case_sensitive": False}, ["a", "e"]),
        ({"fields": ["url", "site.n"]}, ["a", "c", "d", "e"]),
        ({"fields": "{{INPUT.fields}}"}, ["a", "c", "e"]),
    ],
)
def test_by_fields(parameters: dict[str, Any], expected: list[str]) -> None:
    documents: list[dict[str, Any]] = [
        {"document_id": "a", "url": "u", "site": {"n": 1}},
        {"document_id": "b", "url": "u", "site": {"n": 1.0}},
        {"document_id": "c", "url": "U", "site": {"n": 1}},
        {"document_id": "d", "url": "u", "site": {"n": True}},
        {"document_id": "e", "url": None},
        {"document_id": "f"},
    ]
    found = run("deduplicate", documents, parameters, {"fields": ["url"]})
    assert [document["document_id"] for document in found] == expected


def plain(texts: list[str | None], threshold: float) -> list[bool]:
    """The same by comparing every pair."""
    kept: list[frozenset[str]] = []
    result = []
    for text in texts:
        parts = trigrams(text or "", fold=False)
        alike = any(Fraction(len(parts & other), len(parts | other)) >= Fraction(str(threshold)) for other in kept)
        result.append(not parts or not alike)
        if parts and not alike:
            kept.append(parts)
    return result


@LAWS
@given(TEXTS, st.sampled_from([0.01, 0.3, 0.5, 0.9, 0.95, 1.0]))
def test_the_index_finds_what_comparing_every_pair_finds(texts: list[str | None], threshold: float) -> None:
    sets = [None if text is None else trigrams(text, fold=False) for text in texts]
    assert unlike_texts(sets, threshold) == plain(texts, threshold)


@LAWS
@given(TEXTS, st.sampled_from([0.3, 0.95]), st.sampled_from(["first", "last"]))
def test_by_content_twice_is_once(texts: list[str | None], threshold: float, keep: str) -> None:
    documents = [{"document_id": f"d{index}", "content": text} for index, text in enumerate(texts)]
    parameters = {"strategy": "content", "similarity_threshold": threshold, "keep": keep}
    once = run("deduplicate", documents, parameters)
    assert run("deduplicate", once, parameters) == once


def test_near_duplicates_of_a_text() -> None:
    text = "The committee shall publish its report before the first of May, and answer every question in writing. "
    documents: list[dict[str, Any]] = [
        {"document_id": "whole", "content": text * 3},
        {"document_id": "spaced", "content": text.replace(" ", "\n  ") * 3},
        {"document_id": "loud", "content": text.upper() * 3},
        {"document_id": "cut", "content": (text * 3)[:-4]},
        {"document_id": "other", "content": "Nothing of the kind was ever said."},
        {"document_id": "none"},
        {"document_id": "number", "content": 5},
        {"document_id": "empty", "content": ""},
    ]

    def ids(**parameters: Any) -> list[str]:
        found = run("deduplicate", documents, {"strategy": "content", **parameters})
        return [document["document_id"] for document in found]

    unread = ["none", "number", "empty"]
    assert ids() == ["whole", "loud", "other", *unread]
    assert ids(case_sensitive=False) == ["whole", "other", *unread]
    assert ids(case_sensitive=False, keep="last") == ["cut", "other", *unread]
    assert ids(content_field="document_id", similarity_threshold=1.0) == [item["document_id"] for item in documents]


def test_nothing_and_one() -> None:
    for parameters in ({"fields": ["x"]}, {"strategy": "content"}):
        assert run("deduplicate", [], parameters) == []
        assert run("deduplicate", [{"content": "x"}], parameters) == [{"content": "x"}]


def test_refused() -> None:
    refused("deduplicate", {}, "strategy field needs fields")
    refused("deduplicate", {"strategy": "content", "similarity_threshold": 0}, "greater than 0")
    refused("deduplicate", {"strategy": "content", "similarity_threshold": float("nan")}, "number")
    refused("deduplicate", {"field": ["x"]}, "did you mean 'fields'")
