"""Structured filters: one grammar for lists, documents, searches, stages and `when`.

A filter is a condition `{field, operator, value}` or a tree of `AND`, `OR` and `NOT` (wire contract, section 5).
Pure: parsing, and evaluation over plain documents. Adapters compile the same tree to their query language;
what they cannot compile is evaluated here, so both must mean the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
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
