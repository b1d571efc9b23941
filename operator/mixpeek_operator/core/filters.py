"""Structured filters: one grammar for lists, documents, searches, stages and `when`.

A filter is a condition `{field, operator, value}` or a tree of `AND`, `OR` and `NOT` (wire contract, section 5).
Pure: parsing, and evaluation over plain documents. Adapters compile the same tree to their query language;
what they cannot compile is evaluated here, so both must mean the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any

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


_LOGICAL = {"AND": And, "OR": Or, "NOT": Not}
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
    if operator in (Operator.IN, Operator.NIN) and not isinstance(value, list):
        if not (isinstance(value, str) and ("{{" in value or "{" in value)):
            problem(f"operator {operator.value!r} on {field!r} takes a list")
            return None
    return Compare(field, operator, value, bool(body.get("case_insensitive")))


# Evaluation over plain documents.

_MAX_PATTERN = 512
_RISKY_PATTERN = re.compile(r"[*+}]\)?[*+{]|\([^)]*[*+}][^)]*\)\s*[*+{]|\(\?[<=!P]|\\[1-9]")
_WORD = re.compile(r"\w+", re.UNICODE)
_RANGE = (Operator.GT, Operator.GTE, Operator.LT, Operator.LTE)


def matches(filter: Filter | None, document: Mapping[str, Any]) -> bool:
    """Return whether a document satisfies a filter; None is satisfied by all.

    A path reaches into objects and, element by element, into arrays; a condition holds when any value it
    reaches satisfies it. A field that is absent satisfies only `ne`, `nin`, `exists: false` and
    `is_null: true`. `ne` and `nin` are the negation of `eq` and `in`, so over an array they mean "no element".
    """
    match filter:
        case None:
            return True
        case And(parts):
            return all(matches(part, document) for part in parts)
        case Or(parts):
            return any(matches(part, document) for part in parts)
        case Not(parts):
            return not any(matches(part, document) for part in parts)
        case Compare():
            return _compare(filter, document)


def fields(filter: Filter | None) -> frozenset[str]:
    """Return the paths that a filter looks at."""
    match filter:
        case None:
            return frozenset()
        case Compare(field=name):
            return frozenset({name})
        case And(parts) | Or(parts) | Not(parts):
            return frozenset().union(*(fields(part) for part in parts))


def to_wire(filter: Filter | None) -> dict[str, Any] | None:
    """Return the wire form; `parse(to_wire(f)) == f`."""
    match filter:
        case None:
            return None
        case Compare():
            body: dict[str, Any] = {"field": filter.field, "operator": filter.operator.value, "value": filter.value}
            if filter.case_insensitive:
                body["case_insensitive"] = True
            return body
        case And(parts):
            return {"AND": [to_wire(part) for part in parts]}
        case Or(parts):
            return {"OR": [to_wire(part) for part in parts]}
        case Not(parts):
            return {"NOT": [to_wire(part) for part in parts]}


def values_at(document: Any, path: str) -> list[Any]:
    """Return every value that a dotted path reaches; an array at the end gives its elements."""
    reached = [document]
    for name in path.split("."):
        following: list[Any] = []
        for item in reached:
            for part in item if isinstance(item, list) else (item,):
                if isinstance(part, Mapping) and name in part:
                    following.append(part[name])
        reached = following
    flat: list[Any] = []
    for item in reached:
        if isinstance(item, list):
            flat.extend(item)
        else:
            flat.append(item)
    return flat


def _compare(condition: Compare, document: Mapping[str, Any]) -> bool:
    operator, wanted = condition.operator, condition.value
    if operator is Operator.EXISTS:
        present = any(value is not None for value in values_at(document, condition.field))
        return present is (wanted is not False)
    if operator is Operator.IS_NULL:
        found = values_at(document, condition.field)
        empty = not found or any(value is None for value in found)
        return empty is (wanted is not False)
    values = values_at(document, condition.field)
    if operator is Operator.NE:
        return not _any_equal(values, wanted, condition.case_insensitive)
    if operator is Operator.NIN:
        return not any(_any_equal(values, item, condition.case_insensitive) for item in wanted)
    if operator is Operator.EQ:
        if wanted is None:
            return not values or any(value is None for value in values)
        return _any_equal(values, wanted, condition.case_insensitive)
    if operator is Operator.IN:
        return any(_any_equal(values, item, condition.case_insensitive) for item in wanted)
    if operator in _RANGE:
        return any(_ordered(operator, value, wanted) for value in values)
    if operator in (Operator.GEO_RADIUS, Operator.GEO_BOUNDING_BOX, Operator.GEO_POLYGON):
        return any(_located(operator, value, wanted) for value in values)
    if operator is Operator.CONTAINS and isinstance(wanted, list):
        return all(
            _compare(Compare(condition.field, operator, item, condition.case_insensitive), document) for item in wanted
        )
    raw = _raw(document, condition.field)
    if operator is Operator.CONTAINS and any(isinstance(item, list) for item in raw):
        if _any_equal(
            [part for item in raw if isinstance(item, list) for part in item], wanted, condition.case_insensitive
        ):
            return True
        values = [item for item in raw if not isinstance(item, list)]
    return any(_textual(operator, value, wanted, condition.case_insensitive) for value in values)


def _raw(document: Any, path: str) -> list[Any]:
    head, _, last = path.rpartition(".")
    holders = values_at(document, head) if head else [document]
    return [holder[last] for holder in holders if isinstance(holder, Mapping) and last in holder]


def _any_equal(values: list[Any], wanted: Any, fold: bool) -> bool:
    if isinstance(wanted, bool):
        return any(value is wanted for value in values)
    if isinstance(wanted, str) and fold:
        folded = wanted.casefold()
        return any(isinstance(value, str) and value.casefold() == folded for value in values)
    return any(value == wanted and not isinstance(value, bool) for value in values)


def _ordered(operator: Operator, value: Any, wanted: Any) -> bool:
    pair = _comparable(value, wanted)
    if pair is None:
        return False
    left, right = pair
    match operator:
        case Operator.GT:
            return bool(left > right)
        case Operator.GTE:
            return bool(left >= right)
        case Operator.LT:
            return bool(left < right)
        case _:
            return bool(left <= right)


def _comparable(value: Any, wanted: Any) -> tuple[Any, Any] | None:
    numbers = (int, float)
    if isinstance(value, bool) or isinstance(wanted, bool):
        return None
    if isinstance(value, numbers) and isinstance(wanted, numbers):
        return value, wanted
    if isinstance(value, str) and isinstance(wanted, str):
        left, right = instant(value), instant(wanted)
        if left is not None and right is not None:
            return left, right
    return None


def instant(text: str) -> datetime | None:
    """Return an ISO 8601 date or time as an instant (UTC when it names no zone), None for other text."""
    if len(text) < 8 or not text[:4].isdigit():
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _textual(operator: Operator, value: Any, wanted: Any, fold: bool) -> bool:
    if not isinstance(value, str) or not isinstance(wanted, str):
        return False
    if operator in (Operator.TEXT, Operator.PHRASE, Operator.WORDS):
        return _worded(operator, value.casefold(), wanted.casefold())
    if operator is Operator.REGEX:
        return _pattern(wanted, fold).search(value) is not None
    if fold:
        value, wanted = value.casefold(), wanted.casefold()
    match operator:
        case Operator.CONTAINS:
            return wanted in value
        case Operator.STARTS_WITH:
            return value.startswith(wanted)
        case _:
            return value.endswith(wanted)


def _worded(operator: Operator, value: str, wanted: str) -> bool:
    have, want = _WORD.findall(value), _WORD.findall(wanted)
    if not want:
        return False
    match operator:
        case Operator.TEXT:
            return set(want) <= set(have)
        case Operator.WORDS:
            return not set(want).isdisjoint(have)
        case _:
            return any(have[start : start + len(want)] == want for start in range(len(have) - len(want) + 1))


@lru_cache(maxsize=256)
def _pattern(text: str, fold: bool) -> re.Pattern[str]:
    """Compile a pattern that cannot run away: no repetition of repetitions, no back-references."""
    if len(text) > _MAX_PATTERN:
        raise SpecError(f"a regex may have {_MAX_PATTERN} characters, this one has {len(text)}", code="invalid_filter")
    if _RISKY_PATTERN.search(text):
        raise SpecError(
            f"the regex {text!r} repeats a repetition, looks around or refers back, which can take for ever",
            code="invalid_filter",
        )
    try:
        return re.compile(text, re.IGNORECASE if fold else 0)
    except re.error as error:
        raise SpecError(f"the regex {text!r} is not valid: {error}", code="invalid_filter") from error


def _located(operator: Operator, value: Any, wanted: Any) -> bool:
    point = _point(value)
    if point is None or not isinstance(wanted, Mapping):
        return False
    if operator is Operator.GEO_RADIUS:
        centre = _point(wanted.get("center"))
        radius = wanted.get("radius")
        return centre is not None and isinstance(radius, int | float) and _metres(point, centre) <= radius
    if operator is Operator.GEO_BOUNDING_BOX:
        top, bottom = _point(wanted.get("top_left")), _point(wanted.get("bottom_right"))
        if top is None or bottom is None:
            return False
        return bottom[1] <= point[1] <= top[1] and top[0] <= point[0] <= bottom[0]
    exterior = wanted.get("exterior")
    corners = exterior.get("points") if isinstance(exterior, Mapping) else exterior
    polygon = [found for found in map(_point, corners or ()) if found is not None]
    return _inside(point, polygon)


def _point(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, Mapping):
        return None
    lon, lat = value.get("lon"), value.get("lat")
    if isinstance(lon, int | float) and isinstance(lat, int | float):
        return float(lon), float(lat)
    return None


def _metres(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Great-circle distance (haversine, mean earth radius 6,371,008.8 m)."""
    lon1, lat1, lon2, lat2 = map(math.radians, (*one, *other))
    half = math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    return 2 * 6_371_008.8 * math.asin(min(1.0, math.sqrt(half)))


def _inside(point: tuple[float, float], polygon: list[tuple[float, float]]) -> bool:
    x, y = point
    inside = False
    for (x1, y1), (x2, y2) in zip(polygon, [*polygon[1:], *polygon[:1]], strict=True):
        if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
            inside = not inside
    return inside
