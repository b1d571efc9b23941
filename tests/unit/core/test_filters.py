"""Filters over plain documents: each operator, and the laws that hold between them."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.core.filters import And, Compare, Filter, Not, Operator, Or, fields, matches, parse, to_wire

DOCUMENT: dict[str, Any] = {
    "n": 5,
    "f": 5.0,
    "flag": True,
    "none": None,
    "empty": [],
    "nulls": [None],
    "text": "Hello brave new World",
    "tags": ["red", "cart"],
    "nested": [["red"]],
    "at": "2026-01-01T10:00:00+02:00",
    "day": "2026-01-02",
    "o": {"p": {"q": "x"}},
    "items": [{"color": "red", "size": 1}, {"color": "blue", "sizes": [2, 3]}],
    "place": {"lat": 52.52, "lon": 13.405},
    "route": [[13.0, 52.0], [2.35, 48.85]],
    "a b": 1,
}
BERLIN = {"lat": 52.52, "lon": 13.405}


@pytest.mark.parametrize(
    ("field", "operator", "value", "expected", "reason"),
    [
        ("n", "eq", 5, True, "equal numbers"),
        ("n", "eq", 5.0, True, "an integer equals the float"),
        ("n", "eq", "5", False, "no coercion of text"),
        ("flag", "eq", True, True, "booleans"),
        ("flag", "eq", 1, False, "a boolean is no number"),
        ("n", "eq", True, False, "a number is no boolean"),
        ("none", "eq", None, True, "null equals null"),
        ("absent", "eq", None, False, "a missing field is not null"),
        ("tags", "eq", "red", True, "any element"),
        ("tags", "eq", ["red", "cart"], True, "a list equals the whole array"),
        ("tags", "eq", ["cart", "red"], False, "in order"),
        ("nested", "eq", "red", False, "one level of arrays only"),
        ("o.p", "eq", {"q": "x"}, True, "an object equals the object"),
        ("o.p.q", "eq", "x", True, "dotted path"),
        ("items.color", "eq", "blue", True, "through an array of objects"),
        ("items[].color", "eq", "blue", True, "brackets say the same"),
        ("items.sizes", "eq", 3, True, "arrays below arrays"),
        ("items.0.color", "eq", "red", False, "no positions"),
        ("a b", "eq", 1, True, "any key"),
        ("absent", "ne", 1, True, "a missing field is not equal"),
        ("tags", "ne", "red", False, "no element may equal"),
        ("n", "in", [1, 5], True, "one of"),
        ("n", "in", [], False, "none of nothing"),
        ("none", "in", [1, None], True, "null in a list"),
        ("absent", "nin", [1], True, "missing is in no list"),
        ("tags", "nin", ["cart"], False, "no element may be in the list"),
        ("n", "gt", 4.9, True, "greater"),
        ("n", "gt", 5, False, "not greater than itself"),
        ("n", "gte", 5, True, "or equal"),
        ("n", "lt", "6", False, "never across types"),
        ("flag", "gte", 0, False, "booleans have no order"),
        ("none", "lt", 1, False, "null has no order"),
        ("items.sizes", "gte", 3, True, "any element"),
        ("at", "eq", "2026-01-01T08:00:00Z", False, "equality is of text"),
        ("at", "gte", "2026-01-01T08:00:00Z", True, "instants across offsets"),
        ("at", "gt", "2026-01-01T08:00:00Z", False, "the same instant"),
        ("at", "lt", "2026-01-01T08:00:00.000001Z", True, "microseconds"),
        ("day", "gt", "2026-01-01", True, "dates"),
        ("text", "gt", "2026-01-01", False, "text is no instant"),
        ("text", "gt", "Hello", True, "other strings by code point"),
        ("text", "contains", "brave", True, "substring"),
        ("text", "contains", "BRAVE", False, "case matters"),
        ("tags", "contains", "red", True, "member"),
        ("tags", "contains", "art", False, "a member, not a part of one"),
        ("tags", "contains", ["red", "cart"], True, "every item"),
        ("tags", "contains", ["red", "x"], False, "every item"),
        ("n", "contains", "5", False, "a number contains nothing"),
        ("text", "starts_with", "Hello", True, "prefix"),
        ("text", "ends_with", "World", True, "suffix"),
        ("text", "regex", "b.*e n", True, "somewhere in the string"),
        ("tags", "regex", "^c", True, "any element"),
        ("text", "exists", True, True, "there"),
        ("absent", "exists", False, True, "not there"),
        ("none", "exists", True, False, "null is nothing, as in Qdrant"),
        ("empty", "exists", True, False, "an empty array is nothing, as in Qdrant"),
        ("n", "exists", None, True, "asks for true when it says nothing"),
        ("none", "is_null", True, True, "null"),
        ("nulls", "is_null", True, True, "an element is null"),
        ("absent", "is_null", True, False, "missing is not null"),
        ("n", "is_null", False, True, "not null"),
        ("text", "text", "world HELLO", True, "all words, any order"),
        ("text", "text", "hello moon", False, "all words"),
        ("text", "words", "hello moon", True, "any word"),
        ("text", "phrase", "brave NEW", True, "in sequence"),
        ("text", "phrase", "new brave", False, "in sequence"),
        ("text", "text", "", False, "no words match nothing"),
        ("place", "geo_radius", {"center": BERLIN, "radius": 1}, True, "here"),
        ("place", "geo_radius", {"center": {"lat": 48.85, "lon": 2.35}, "radius": 800_000}, False, "Paris is far"),
        ("place", "geo_radius", {"center": {"lat": 48.85, "lon": 2.35}, "radius": 900_000}, True, "878 km"),
        ("route", "geo_radius", {"center": [2.35, 48.85], "radius": 1000}, True, "any point of a list"),
        (
            "place",
            "geo_bounding_box",
            {"top_left": {"lat": 53, "lon": 13}, "bottom_right": {"lat": 52, "lon": 14}},
            True,
            "in the box",
        ),
        (
            "place",
            "geo_bounding_box",
            {"top_left": {"lat": 53, "lon": 170}, "bottom_right": {"lat": 52, "lon": -170}},
            False,
            "a box over the antimeridian",
        ),
        ("place", "geo_polygon", {"exterior": [[13, 52], [14, 52], [14, 53], [13, 53]]}, True, "in the polygon"),
        (
            "place",
            "geo_polygon",
            {
                "exterior": {"points": [BERLIN | {"lon": 1}, BERLIN | {"lat": 80}, BERLIN | {"lon": 60, "lat": 1}]},
                "interiors": [[[13, 52], [14, 52], [14, 53], [13, 53]]],
            },
            False,
            "in its hole",
        ),
        ("text", "geo_radius", {"center": BERLIN, "radius": 1}, False, "no point"),
    ],
)
def test_operators(field: str, operator: str, value: Any, expected: bool, reason: str) -> None:
    assert matches(parse({"field": field, "operator": operator, "value": value}), DOCUMENT) is expected, reason


@pytest.mark.parametrize(
    ("operator", "value"),
    [
        ("eq", "HELLO BRAVE NEW WORLD"),
        ("in", ["x", "hello brave new world"]),
        ("contains", "BRAVE"),
        ("starts_with", "hello"),
        ("ends_with", "WORLD"),
        ("regex", "^hello"),
    ],
)
def test_case_is_ignored_on_request(operator: str, value: Any) -> None:
    condition = {"field": "text", "operator": operator, "value": value}
    assert not matches(parse(condition), DOCUMENT)
    assert matches(parse({**condition, "case_insensitive": True}), DOCUMENT)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"field": "a", "operator": "almost"}, "unknown operator"),
        ({"operator": "eq"}, "needs 'field'"),
        ({"field": ""}, "non-empty"),
        ({"field": "a", "operator": "in", "value": 1}, "takes a list"),
        ({"field": "a", "operator": "regex", "value": "("}, "regular expression"),
        ({"field": "a", "operator": "regex", "value": "(a)\\1"}, "regular expression"),
        ({"field": "a", "operator": "regex", "value": "a" * 1001}, "1000 characters"),
        ({"field": "a", "operator": "regex", "value": 1}, "takes a regular expression"),
        ({"field": "a", "operator": "geo_radius", "value": {"radius": 1}}, "center"),
        ({"field": "a", "operator": "geo_polygon", "value": {"exterior": []}}, "three points"),
        ({"field": "a", "operator": "geo_bounding_box", "value": {}}, "top_left"),
        ({"field": "a", "valu": 1}, "unknown key"),
        ({"AND": 1}, "takes a list"),
        (7, "object"),
    ],
)
def test_mistakes_are_named(body: Any, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        parse(body)


def test_every_mistake_is_reported_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        parse({"AND": [{"field": "a", "operator": "x"}, {"OR": [{"value": 1}]}]})
    assert len(caught.value.problems) == 2


def test_templates_are_left_to_be_rendered() -> None:
    for operator in ("in", "regex", "geo_radius"):
        assert parse({"field": "a", "operator": operator, "value": "{{INPUT.x}}"}) is not None


def test_a_pattern_cannot_run_away() -> None:
    start = time.perf_counter()
    assert not matches(parse({"field": "t", "operator": "regex", "value": "(a+)+$"}), {"t": "a" * 50_000 + "b"})
    assert time.perf_counter() - start < 60, "a pattern that backtracks would take hours"


def test_fields_and_the_empty_filter() -> None:
    assert fields(parse({"AND": [{"field": "a.b"}, {"NOT": {"field": "c"}}]})) == {"a.b", "c"}
    assert fields(None) == set()
    assert parse({}) is None
    assert matches(None, {})
    assert to_wire(None) is None


_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=4), st.dates().map(str)
)
_LEAVES = st.one_of(_VALUES, st.lists(_VALUES, max_size=3))
_DOCUMENTS = st.dictionaries(
    st.sampled_from("ab"),
    st.one_of(
        _LEAVES, st.dictionaries(st.sampled_from("xy"), _LEAVES), st.lists(st.dictionaries(st.just("x"), _LEAVES))
    ),
)
_OTHERS = [item for item in Operator if item not in (Operator.IN, Operator.NIN, Operator.REGEX)]
_PLAIN = [item for item in _OTHERS if not item.value.startswith("geo")]
_FIELDS = st.sampled_from(["a", "b", "a.x", "b.y"])
_CONDITIONS = st.one_of(
    st.builds(Compare, _FIELDS, st.sampled_from(_PLAIN), _VALUES, st.booleans()),
    st.builds(Compare, _FIELDS, st.sampled_from([Operator.IN, Operator.NIN]), st.lists(_VALUES, max_size=3)),
)
_PARTS = st.lists(_CONDITIONS, min_size=1, max_size=3).map(tuple)
_FILTERS: st.SearchStrategy[Filter] = st.recursive(
    _CONDITIONS,
    lambda inner: st.one_of(
        *(st.builds(kind, st.lists(inner, min_size=1, max_size=3).map(tuple)) for kind in (And, Or, Not))
    ),
    max_leaves=6,
)


@given(_PARTS, _DOCUMENTS)
def test_de_morgan(parts: tuple[Filter, ...], document: dict[str, Any]) -> None:
    negated = tuple(Not((part,)) for part in parts)
    assert matches(Not((And(parts),)), document) == matches(Or(negated), document)
    assert matches(Not(parts), document) == matches(And(negated), document)
    assert matches(Not((Not((parts[0],)),)), document) == matches(parts[0], document)


@given(_FIELDS, _VALUES, _DOCUMENTS)
def test_negative_operators_are_negations(field: str, value: Any, document: dict[str, Any]) -> None:
    def holds(operator: Operator, given: Any) -> bool:
        return matches(Compare(field, operator, given), document)

    assert holds(Operator.NE, value) is not holds(Operator.EQ, value)
    assert holds(Operator.NIN, [value]) is not holds(Operator.IN, [value])
    assert holds(Operator.IN, [value]) is holds(Operator.EQ, value)
    assert holds(Operator.EXISTS, False) is not holds(Operator.EXISTS, True)
    assert holds(Operator.GTE, value) >= holds(Operator.GT, value)


@given(_FILTERS)
def test_the_wire_form_is_read_back(filter: Filter) -> None:
    assert parse(to_wire(filter)) == filter


@given(_FILTERS, _DOCUMENTS)
def test_matching_never_raises(filter: Filter, document: dict[str, Any]) -> None:
    assert matches(filter, document) in (True, False)
