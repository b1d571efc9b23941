"""Structured filters: one grammar for lists, documents, searches, stages and `when`.

A filter is a condition `{field, operator, value}` or a tree of `AND`, `OR` and `NOT` (wire contract, section 5).
Pure: parsing, and evaluation over plain documents. Adapters compile the same tree to their query language;
what they cannot compile is evaluated here, so both must mean the same. Paths, numbers and instants are told in
`core.filter_values`. A condition on an array holds when it holds for any element; then:

| operator | holds when |
| --- | --- |
| eq, in | a value equals (one of) the given; `eq null` is `is_null`; a list given to `eq` equals a whole array |
| ne, nin | eq, in do not hold: also for a missing field, as in Qdrant |
| gt gte lt lte | numbers by value, instants in time, other strings by code point; never across types |
| contains | a string holds the text; an array has the value as a member; a list given: each of its items |
| starts_with, ends_with | of a string |
| regex | RE2 finds the pattern somewhere in a string |
| exists | something stands there that is neither null nor an empty array; `value: false` turns it round |
| is_null | null stands there (a missing field is not null); `value: false` turns it round |
| text, words, phrase | all words, any word, the words in sequence; case never matters |
| geo_* | any point lies in the shape; points are `{lat, lon}` or `[lon, lat]` |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mixpeek_operator.core import filter_values
from mixpeek_operator.core.errors import Place, Problem, SpecError


class Operator(StrEnum):
    """Comparison operators; `eq` is the default."""

    EQ = "eq"
    NE = "ne"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"
    IN = "in"
    NIN = "nin"
    CONTAINS = "contains"
    STARTS_WITH = "starts_with"
    ENDS_WITH = "ends_with"
    REGEX = "regex"
    EXISTS = "exists"
    IS_NULL = "is_null"
    TEXT = "text"
    PHRASE = "phrase"
    WORDS = "words"
    GEO_RADIUS = "geo_radius"
    GEO_BOUNDING_BOX = "geo_bounding_box"
    GEO_POLYGON = "geo_polygon"


@dataclass(frozen=True, slots=True)
class Compare:
    """One comparison on a dotted path."""

    field: str
    operator: Operator
    value: Any
    case_insensitive: bool = False


@dataclass(frozen=True, slots=True)
class And:
    """Every part holds; empty is true."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one part holds; empty is false."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """No part holds (`NOT: [a, b]` is neither a nor b)."""

    parts: tuple[Filter, ...]


Filter = Compare | And | Or | Not


def all_of(*filters: Filter | None) -> Filter | None:
    """Return the conjunction of the given filters, None when there is none."""
    present = tuple(item for item in filters if item is not None)
    if len(present) < 2:
        return present[0] if present else None
    return And(present)


def parse(body: Any, *, place: Place | None = None) -> Filter | None:
    """Return the tree for a wire filter, None for an empty one.

    Raises SpecError with every mistake: an unknown operator, a condition without field, a wrong shape.
    """
    problems: list[Problem] = []
    result = _parse(body, (), problems, place or Place())
    if problems:
        raise SpecError.of(problems)
    return result


def equals(field: str, value: Any) -> Compare:
    """Return the condition `field == value`."""
    return Compare(field, Operator.EQ, value)


def one_of(field: str, values: list[Any]) -> Compare:
    """Return the condition `field in values`."""
    return Compare(field, Operator.IN, values)


def matches(filter: Filter | None, document: Mapping[str, Any]) -> bool:
    """Return whether a document satisfies the filter; None is satisfied by everything. Never raises."""
    if filter is None:
        return True
    if isinstance(filter, And):
        return all(matches(part, document) for part in filter.parts)
    if isinstance(filter, Or):
        return any(matches(part, document) for part in filter.parts)
    if isinstance(filter, Not):
        return not any(matches(part, document) for part in filter.parts)
    return _holds(filter, filter_values.nodes(document, filter.field))


def fields(filter: Filter | None) -> set[str]:
    """Return every path the filter looks at."""
    if filter is None:
        return set()
    if isinstance(filter, Compare):
        return {filter.field}
    return {name for part in filter.parts for name in fields(part)}


def to_wire(filter: Filter | None) -> dict[str, Any] | None:
    """Return the wire form; `parse` of it gives the same tree back."""
    if filter is None:
        return None
    if isinstance(filter, Compare):
        body = {"field": filter.field, "operator": filter.operator.value, "value": filter.value}
        return {**body, "case_insensitive": True} if filter.case_insensitive else body
    name = {And: "AND", Or: "OR", Not: "NOT"}[type(filter)]
    return {name: [to_wire(part) for part in filter.parts]}


def _holds(condition: Compare, found: list[Any]) -> bool:
    operator, value, fold = condition.operator, condition.value, condition.case_insensitive
    values = filter_values.elements(found)
    if operator is Operator.EQ:
        return _equals(found, values, value, fold)
    if operator is Operator.NE:
        return not _equals(found, values, value, fold)
    if operator in (Operator.IN, Operator.NIN):
        wanted = value if isinstance(value, list | tuple) else [value]
        return any(_equals(found, values, item, fold) for item in wanted) is (operator is Operator.IN)
    if operator in _ORDERED:
        return any(_ORDERED[operator](filter_values.compare(item, value)) for item in values)
    if operator is Operator.EXISTS:
        return any(item is not None for item in values) is _asked(value)
    if operator is Operator.IS_NULL:
        return any(item is None for item in values) is _asked(value)
    if operator is Operator.CONTAINS:
        wanted = value if isinstance(value, list | tuple) else [value]
        return bool(wanted) and all(_contains(found, item, fold) for item in wanted)
    if operator in _SHAPES:
        return isinstance(value, Mapping) and any(
            _SHAPES[operator](where, value) for where in filter_values.points(found)
        )
    texts = [item for item in values if isinstance(item, str)]
    return isinstance(value, str) and any(_text_holds(operator, text, value, fold) for text in texts)


def _equals(found: list[Any], values: list[Any], value: Any, fold: bool) -> bool:
    if value is None:
        return any(item is None for item in values)
    tried = found if isinstance(value, list | tuple) else values
    return any(filter_values.same(item, value, fold=fold) for item in tried)


def _contains(found: list[Any], value: Any, fold: bool) -> bool:
    for node in found:
        if isinstance(node, list | tuple):
            if any(filter_values.same(item, value, fold=fold) for item in node):
                return True
        elif (
            isinstance(node, str)
            and isinstance(value, str)
            and (value.casefold() in node.casefold() if fold else value in node)
        ):
            return True
    return False


def _text_holds(operator: Operator, text: str, value: str, fold: bool) -> bool:
    if operator is Operator.REGEX:
        try:
            return filter_values.pattern(value, fold).search(text) is not None
        except ValueError:
            # Parsing a filter reports a bad pattern; one that a template made of an input matches nothing.
            return False
    if operator in _WORDS:
        return _WORDS[operator](text, value)
    if fold:
        text, value = text.casefold(), value.casefold()
    return text.startswith(value) if operator is Operator.STARTS_WITH else text.endswith(value)


def _asked(value: Any) -> bool:
    """`exists` and `is_null` without a value ask for true; the strings of a rendered template count as well."""
    if isinstance(value, str):
        return value.strip().lower() not in ("false", "0", "no")
    return value is None or bool(value)


_ORDERED: dict[Operator, Callable[[int | None], bool]] = {
    Operator.GT: lambda sign: sign == 1,
    Operator.GTE: lambda sign: sign in (0, 1),
    Operator.LT: lambda sign: sign == -1,
    Operator.LTE: lambda sign: sign in (0, -1),
}
_WORDS: dict[Operator, Callable[[str, str], bool]] = {
    Operator.TEXT: filter_values.has_words,
    Operator.WORDS: filter_values.has_any_word,
    Operator.PHRASE: filter_values.has_phrase,
}
_SHAPES: dict[Operator, Callable[[tuple[float, float], Mapping[str, Any]], bool]] = {
    Operator.GEO_RADIUS: filter_values.in_radius,
    Operator.GEO_BOUNDING_BOX: filter_values.in_box,
    Operator.GEO_POLYGON: filter_values.in_polygon,
}
_LOGICAL: dict[str, type[And | Or | Not]] = {"AND": And, "OR": Or, "NOT": Not}
_IGNORED = {"case_sensitive"}
_CONDITION_KEYS = {"field", "operator", "value", "case_insensitive"}


def _parse(body: Any, path: tuple[str | int, ...], problems: list[Problem], place: Place) -> Filter | None:
    def problem(message: str) -> None:
        where = Place(place.file, place.line, place.column, place.resource, ".".join(map(str, path)) or place.path)
        problems.append(Problem("invalid_filter", message, where, location=path))

    if body is None or body == {} or body == []:
        return None
    if isinstance(body, list):
        return _parse({"AND": body}, path, problems, place)
    if not isinstance(body, Mapping):
        problem(f"a filter is an object with field, operator and value, or AND/OR/NOT; got {type(body).__name__}")
        return None
    parts: list[Filter] = []
    logical = [key for key in body if str(key).upper() in _LOGICAL]
    for key in logical:
        name = str(key).upper()
        items = body[key]
        if items is None:
            continue
        if isinstance(items, Mapping):
            items = [items]
        if not isinstance(items, list):
            problem(f"{name} takes a list of conditions")
            continue
        children = [_parse(item, (*path, key, index), problems, place) for index, item in enumerate(items)]
        parsed = tuple(child for child in children if child is not None)
        if parsed:
            parts.append(_LOGICAL[name](parsed))
    if "field" in body:
        unknown = sorted(set(map(str, body)) - _CONDITION_KEYS - _IGNORED - set(map(str, logical)))
        if unknown:
            problem(f"unknown key {unknown[0]!r} in a condition; it takes field, operator, value, case_insensitive")
        condition = _condition(body, problem)
        if condition is not None:
            parts.append(condition)
    elif not logical:
        problem(f"a condition needs 'field'; got the keys {', '.join(sorted(map(str, body)))}")
    if len(parts) == 1:
        return parts[0]
    return And(tuple(parts)) if parts else None


def _condition(body: Mapping[str, Any], problem: Any) -> Compare | None:
    field = body["field"]
    if not isinstance(field, str) or not field:
        problem("'field' must be a non-empty string")
        return None
    raw = body.get("operator")
    try:
        operator = Operator.EQ if raw is None else Operator(str(raw).lower())
    except ValueError:
        known = ", ".join(item.value for item in Operator)
        problem(f"unknown operator {raw!r} for field {field!r}; use one of {known}")
        return None
    value = body.get("value")
    template = isinstance(value, str) and "{" in value
    if operator in (Operator.IN, Operator.NIN) and not isinstance(value, list) and not template:
        problem(f"operator {operator.value!r} on {field!r} takes a list")
        return None
    fold = bool(body.get("case_insensitive"))
    wrong = None if _is_template(value) else _value_problem(operator, value, fold)
    if wrong:
        problem(f"operator {operator.value!r} on {field!r} {wrong}")
        return None
    return Compare(field, operator, value, fold)


def _is_template(value: Any) -> bool:
    return isinstance(value, str) and ("{{" in value or "{INPUT" in value or "{DOC" in value)


def _value_problem(operator: Operator, value: Any, fold: bool) -> str | None:
    if operator is Operator.REGEX:
        if not isinstance(value, str):
            return "takes a regular expression"
        try:
            filter_values.pattern(value, fold)
        except ValueError as error:
            return f"has a regular expression that cannot be used: {error}"
    if operator in _SHAPES and not isinstance(value, str):
        return filter_values.shape_problem(operator.value, value)
    return None
