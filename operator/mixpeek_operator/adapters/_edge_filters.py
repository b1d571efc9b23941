"""Filters as Qdrant Edge conditions, for what means exactly the same there.

Differences that are bridged here: Edge compares integers and floats as different types (so numbers become ranges),
reads a Python boolean as an integer, and steps into arrays only where a path says `[]`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Set
from dataclasses import dataclass
from typing import Any, cast

import qdrant_edge as edge

from mixpeek_operator.adapters._vector_rules import path_keys
from mixpeek_operator.core import filter_values
from mixpeek_operator.core.filters import And, Compare, Filter, Not, Operator, Or

_BOUNDS = {Operator.GT: "gt", Operator.GTE: "gte", Operator.LT: "lt", Operator.LTE: "lte"}
_VARIANTS = 8
"""Ways to read a path through arrays before it is left to Python."""


@dataclass(frozen=True, slots=True)
class EdgeFilter:
    """A condition for Edge; not `exact` when it lets more points through than the filter does."""

    condition: edge.Filter
    exact: bool


class bool_:
    """A boolean the binding does not take for an integer: it accepts NumPy's by type name."""

    __slots__ = ("_value",)
    __module__ = "numpy"

    def __init__(self, value: bool) -> None:
        self._value = value

    def __bool__(self) -> bool:
        return self._value


def compile_filter(filter: Filter | None, arrays: Set[str] = frozenset()) -> EdgeFilter:
    """Return the condition; `arrays` are the dotted paths where some point holds an array of objects."""
    match filter:
        case None:
            return EdgeFilter(edge.Filter(), True)
        case And(parts):
            made = [compile_filter(part, arrays) for part in parts]
            return EdgeFilter(_all(*(part.condition for part in made)), all(part.exact for part in made))
        case Or(parts):
            made = [compile_filter(part, arrays) for part in parts]
            return EdgeFilter(_any(*(part.condition for part in made)), all(part.exact for part in made))
        case Not(parts):
            made = [compile_filter(part, arrays) for part in parts]
            # The complement of too much would be too little.
            safe = [part.condition for part in made if part.exact]
            return EdgeFilter(_none(*safe), len(safe) == len(made))
        case Compare():
            condition = _compare(filter, arrays)
            return EdgeFilter(edge.Filter(), False) if condition is None else EdgeFilter(condition, True)


def is_exact(filter: Filter) -> bool:
    """Return whether `compile_filter` of it is exact; what most filters are made of is not compiled for that."""
    if isinstance(filter, And):
        return all(map(is_exact, filter.parts))
    if isinstance(filter, Compare) and filter.operator is Operator.EQ and type(filter.value) is str:
        return not filter.case_insensitive and path_keys(filter.field) is not None
    return compile_filter(filter).exact


def _compare(condition: Compare, arrays: Set[str]) -> edge.Filter | None:
    operator, value = condition.operator, condition.value
    paths = edge_paths(condition.field, arrays)
    if paths is None:
        return None
    if operator in (Operator.NE, Operator.NIN):
        positive = Operator.EQ if operator is Operator.NE else Operator.IN
        inner = _compare(Compare(condition.field, positive, value, condition.case_insensitive), arrays)
        return None if inner is None else _none(inner)
    if operator is Operator.EQ:
        return _over(paths, _equal(value, condition.case_insensitive))
    if operator is Operator.IN and isinstance(value, list | tuple):
        return _one_of(paths, list(value), condition.case_insensitive)
    if operator in _BOUNDS:
        return _over(paths, _ordered(_BOUNDS[operator], value))
    if operator is Operator.EXISTS and isinstance(value, bool | None):
        missing = _all(*(_missing(path) for path in paths))
        return missing if value is False else _none(missing)
    if operator is Operator.IS_NULL and isinstance(value, bool | None):
        null = _any(*(edge.Filter(must=[edge.IsNullCondition(path)]) for path in paths))
        return _none(null) if value is False else null
    if not isinstance(value, str) or condition.case_insensitive or not value:
        return None
    if operator is Operator.STARTS_WITH:
        return _over(paths, {"match": edge.MatchPrefix(value)})
    if operator is Operator.CONTAINS and len(paths) == 1:
        return _contains(paths[0], value)
    return None


def _equal(value: Any, fold: bool) -> dict[str, Any] | None:
    if isinstance(value, bool):
        return {"match": edge.MatchValue(cast(bool, bool_(value)))}
    if filter_values.is_number(value):
        number = _number(value)
        if number is None:
            return None
        return {"range": edge.RangeFloat(gte=number, lte=number)}
    if isinstance(value, str) and not fold:
        return {"match": edge.MatchValue(value)}
    return {"is_null": True} if value is None else None


def _one_of(paths: list[str], values: list[Any], fold: bool) -> edge.Filter | None:
    texts = [value for value in values if isinstance(value, str)]
    if texts and fold:
        return None
    made = [_over(paths, {"match": edge.MatchAny(texts)})] if texts else []
    for value in values:
        if not isinstance(value, str):
            made.append(_over(paths, _equal(value, fold)))
    found = [part for part in made if part is not None]
    return _any(*found) if len(found) == len(made) else None


def _ordered(bound: str, value: Any) -> dict[str, Any] | None:
    if filter_values.is_number(value):
        number = _number(value)
        return None if number is None else {"range": edge.RangeFloat(**{bound: number})}
    moment = filter_values.instant(value) if isinstance(value, str) else None
    if moment is None:
        return None
    return {"range": edge.RangeDateTime(**{bound: moment.isoformat().replace("+00:00", "Z")})}


def _number(value: float) -> float | None:
    """Return a finite double; Python compares with the others as well, Edge does not."""
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _contains(path: str, value: str) -> edge.Filter:
    """A string holds the text, an array has it as a member: `path[]` reaches members only."""
    inside = _field(path, {"match": edge.MatchSubstring(value)})
    in_member = _field(f"{path}[]", {"match": edge.MatchSubstring(value)})
    return _any(_all(inside, _none(in_member)), _field(path, {"match": edge.MatchValue(value)}))


def edge_paths(field: str, arrays: Set[str]) -> list[str] | None:
    """Return the Edge paths that together reach what a dotted path does, None when they cannot be written."""
    keys, written = filter_values.segments(field), path_keys(field)
    if written is None:
        return None
    choices: list[list[str]] = []
    for index, key in enumerate(written):
        many = index < len(keys) - 1 and ".".join(keys[: index + 1]) in arrays
        choices.append([key, f"{key}[]"] if many else [key])
    paths = [".".join(path) for path in itertools.product(*choices)]
    return paths if len(paths) <= _VARIANTS else None


def _over(paths: list[str], condition: dict[str, Any] | None) -> edge.Filter | None:
    return None if condition is None else _any(*(_field(path, condition) for path in paths))


def _missing(path: str) -> edge.Filter:
    """Nothing but null and [] stands there; an array of nulls alone does not count as empty."""
    inside = f"{path}[]"
    only_nulls = edge.Filter(must=[edge.IsNullCondition(inside), edge.IsEmptyCondition(inside)])
    return _any(edge.Filter(must=[edge.IsEmptyCondition(path)]), only_nulls)


def _field(path: str, condition: dict[str, Any]) -> edge.Filter:
    if condition.get("is_null"):
        return edge.Filter(must=[edge.IsNullCondition(path)])
    return edge.Filter(must=[edge.FieldCondition(path, **condition)])


def _all(*parts: edge.Filter) -> edge.Filter:
    return parts[0] if len(parts) == 1 else edge.Filter(must=list(parts))


def _any(*parts: edge.Filter) -> edge.Filter:
    if len(parts) == 1:
        return parts[0]
    # An empty list of alternatives would mean "anything".
    return edge.Filter(should=list(parts)) if parts else edge.Filter(must=[edge.HasIdCondition(set())])


def _none(*parts: edge.Filter) -> edge.Filter:
    return edge.Filter(must_not=list(parts))
