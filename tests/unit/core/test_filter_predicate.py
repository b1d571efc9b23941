"""A filter as a function says what the filter says, of every document."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.core.test_filters import _DOCUMENTS, _FILTERS, _LEAVES, _VALUES

from mixpeek_operator.core import filter_predicate
from mixpeek_operator.core.filter_predicate import predicate, select
from mixpeek_operator.core.filters import And, Compare, Filter, Operator, matches

_NUMBERS = st.sampled_from([0, 1, -1, 1.0, 0.5, True, False, 2**53, 2**53 + 1, 2.0**53, 10**400, math.inf, math.nan])
_SHARED = st.one_of(_NUMBERS, st.sampled_from(["1", "a", "", "2026-01-01", "2026-01-01T00:00:00Z"]), st.none())
_COMPARING = [Operator.EQ, Operator.NE, Operator.GT, Operator.GTE, Operator.LT, Operator.LTE]


@given(_FILTERS, _DOCUMENTS)
def test_it_says_what_matches_says(filter: Filter, document: dict[str, Any]) -> None:
    assert predicate(filter)(document) is matches(filter, document)


@given(st.sampled_from(_COMPARING), _SHARED, st.one_of(_SHARED, st.lists(_SHARED, max_size=2)), st.booleans())
def test_of_values_that_are_nearly_equal(asked: Operator, wanted: Any, value: Any, fold: bool) -> None:
    condition = Compare("a.b", asked, wanted, fold)
    for document in ({"a": {"b": value}}, {"a": [{"b": value}]}, {"a": value}, {}):
        assert predicate(condition)(document) is matches(condition, document)


@given(st.sampled_from([Operator.IN, Operator.NIN]), st.lists(_SHARED, max_size=3), _SHARED)
def test_of_members(asked: Operator, wanted: list[Any], value: Any) -> None:
    condition = Compare("a", asked, wanted)
    assert predicate(condition)({"a": value}) is matches(condition, {"a": value})


@given(_FILTERS, st.lists(_DOCUMENTS, max_size=5))
def test_select_keeps_what_matches(filter: Filter, documents: list[dict[str, Any]]) -> None:
    assert select(filter, documents) == [document for document in documents if matches(filter, document)]
    assert select(None, documents) == documents


@given(st.lists(st.sampled_from(["a", "b", "1"]), max_size=3), st.lists(_DOCUMENTS, max_size=5))
def test_select_by_texts(wanted: list[str], documents: list[dict[str, Any]]) -> None:
    condition = Compare("a", Operator.IN, wanted)
    documents = [*documents, {"a": "a"}, {"a": ["b"]}, {"a": 1}, {"a": None}, {}]
    found = [document for document in documents if matches(condition, document)]
    assert select(condition, documents) == select(And((condition,)), documents) == found
    for text in wanted:
        equal = Compare("a", Operator.EQ, text)
        assert select(equal, documents) == [document for document in documents if matches(equal, document)]


@given(_VALUES, _LEAVES)
def test_without_a_filter_everything_holds(value: Any, leaf: Any) -> None:
    assert predicate(None)({"a": leaf, "b": value})


def test_usual_conditions_never_look_at_the_filter_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filter_predicate, "matches", lambda *_: pytest.fail("looks at the filter again"))
    assert predicate(Compare("a", Operator.IN, ["x", 1]))({"a": 1.0})
    assert predicate(Compare("a.b", Operator.NE, "x"))({"a": {"b": "y"}})
    assert predicate(Compare("price", Operator.LTE, 10))({"price": 9.5})
