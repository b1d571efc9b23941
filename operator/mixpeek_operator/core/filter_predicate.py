"""A filter as a function, for many documents: what `filters.matches` says, without looking at the filter each time.

Conditions that compare one plain value with plain values, which most are, become set look-ups and comparisons; every
other condition, and every value of another kind, is left to `matches`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import methodcaller
from typing import Any, Final

from mixpeek_operator.core import filter_values
from mixpeek_operator.core.filters import And, Compare, Filter, Operator, Or, matches

Documents = Sequence[dict[str, Any]]
Predicate = Callable[[Mapping[str, Any]], bool]
Selector = Callable[[Documents], list[dict[str, Any]]]

_EXACT: Final = 2**53
"""Up to here an integer is one double, and doubles are what numbers are compared as."""
_ORDERED: Final[dict[Operator, Callable[[Any, Any], bool]]] = {
    Operator.GT: operator.gt,
    Operator.GTE: operator.ge,
    Operator.LT: operator.lt,
    Operator.LTE: operator.le,
}


def predicate(filter: Filter | None) -> Predicate:
    """Return a function that says of a document what `matches(filter, document)` says."""
    if filter is None:
        return lambda document: True
    if isinstance(filter, Compare):
        return _condition(filter)
    parts = [predicate(part) for part in filter.parts]
    if isinstance(filter, And):
        return lambda document: all(part(document) for part in parts)
    if isinstance(filter, Or):
        return lambda document: any(part(document) for part in parts)
    return lambda document: not any(part(document) for part in parts)


def select(filter: Filter | None, documents: Documents) -> list[dict[str, Any]]:
    """Return the documents that satisfy the filter, in order."""
    return selector(filter)(documents)


def selector(filter: Filter | None) -> Selector:
    """Return `select` of one filter, for many calls."""
    if isinstance(filter, And):
        return _every([selector(part) for part in filter.parts])
    holds = predicate(filter)
    texts = _texts(filter) if isinstance(filter, Compare) else None
    if not isinstance(filter, Compare) or texts is None:
        return lambda documents: [document for document in documents if holds(document)]
    [key] = filter_values.segments(filter.field)

    def among(documents: Documents) -> list[dict[str, Any]]:
        try:
            # No value but a text equals one; a list or an object, which may hold one, cannot be looked up.
            return [document for document in documents if document[key] in texts]
        except (KeyError, TypeError):
            return [document for document in documents if holds(document)]

    return among


def _every(parts: Sequence[Selector]) -> Selector:
    def chosen(documents: Documents) -> list[dict[str, Any]]:
        found = list(documents)
        for part in parts:
            found = part(found)
        return found

    return chosen


def _texts(condition: Compare) -> frozenset[str] | None:
    """The texts that a field of the document itself has to be one of; None for any other condition."""
    asked, value = condition.operator, condition.value
    wanted = [value] if asked is Operator.EQ else value if asked is Operator.IN else None
    if condition.case_insensitive or not isinstance(wanted, list) or len(filter_values.segments(condition.field)) > 1:
        return None
    return frozenset(wanted) if all(type(item) is str for item in wanted) else None


def _condition(condition: Compare) -> Predicate:
    asked, value = condition.operator, condition.value
    plainly: Predicate = partial(matches, condition)
    if condition.case_insensitive:
        return plainly
    if asked in (Operator.EQ, Operator.NE) and _is_plain(value):
        return _member(condition, [value], asked is Operator.EQ, plainly)
    if asked in (Operator.IN, Operator.NIN) and isinstance(value, list) and all(map(_is_plain, value)):
        return _member(condition, value, asked is Operator.IN, plainly)
    if asked in _ORDERED and type(value) in (int, float) and _is_plain(value):
        return _ordered(condition, _ORDERED[asked], value, plainly)
    return plainly


def _member(condition: Compare, wanted: list[Any], inside: bool, plainly: Predicate) -> Predicate:
    # Apart by kind, since True, 1 and 1.0 are equal to Python.
    texts = frozenset(value for value in wanted if type(value) is str)
    numbers = frozenset(value for value in wanted if type(value) in (int, float))
    read = _reader(condition.field)

    def test(document: Mapping[str, Any]) -> bool:
        value = read(document)
        kind = type(value)
        if kind is str:
            return (value in texts) is inside
        if kind is float or (kind is int and -_EXACT < value < _EXACT):
            return (value in numbers) is inside
        return plainly(document)

    return test


def _ordered(condition: Compare, holds: Callable[[Any, Any], bool], wanted: float, plainly: Predicate) -> Predicate:
    read = _reader(condition.field)

    def test(document: Mapping[str, Any]) -> bool:
        value = read(document)
        kind = type(value)
        if kind is float or (kind is int and -_EXACT < value < _EXACT):
            return holds(value, wanted)
        return plainly(document)

    return test


def _reader(path: str) -> Callable[[Mapping[str, Any]], Any]:
    """What stands at a path through objects alone; something that is no plain value for any other."""
    keys = filter_values.segments(path)
    if len(keys) == 1:
        return methodcaller("get", keys[0])

    def read(document: Mapping[str, Any]) -> Any:
        value: Any = document
        for key in keys:
            value = value.get(key) if type(value) is dict else None
        return value

    return read


def _is_plain(value: Any) -> bool:
    """Whether equality with the value is equality in Python, once kinds are kept apart."""
    kind = type(value)
    return kind is str or (kind is float and value == value) or (kind is int and -_EXACT < value < _EXACT)
