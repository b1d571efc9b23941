"""Ordering documents by a field, shared by the sort stages."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from math import isnan
from operator import eq, itemgetter
from typing import Any, Final

from mixpeek_operator.retrieval import paths
from mixpeek_operator.retrieval.stage import Documents

_NUMBERS: Final = frozenset({int, float, bool})
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?$")


def sort(documents: Documents, field: str, *, descending: bool, missing_last: bool) -> Documents:
    """Return the documents by a field; equal ones keep their order.

    Numbers and booleans compare as numbers, ISO 8601 dates as times, texts as texts; a mixture compares as text.
    """
    values = paths.column(documents, field)
    kinds = set(map(type, values))
    if kinds == {str} or comparable(values, kinds):
        key = _key(values, kinds)
        if key is None:
            return in_order(documents, field, values, descending=descending)
        present = list(range(len(values)))
    else:
        present = [
            place
            for place, value in enumerate(values)
            if value is not None and value is not paths.ABSENT and value == value
        ]
        there = [values[place] for place in present]
        key = _key(there, set(map(type, there)))
    present.sort(key=values.__getitem__ if key is None else lambda place: key(values[place]), reverse=descending)
    ordered = [documents[place] for place in present]
    if len(ordered) == len(documents):
        return ordered
    found = set(present)
    missing = [document for place, document in enumerate(documents) if place not in found]
    return ordered + missing if missing_last else missing + ordered


def comparable(values: list[Any], kinds: set[type]) -> bool:
    """Whether values of these kinds are all numbers, which compare with each other; not-a-number does not."""
    if not kinds <= _NUMBERS:
        return False
    # The sum of floats is not-a-number if one of them is, and takes a fifth of the time.
    return float not in kinds or (kinds == {float} and not isnan(sum(values))) or all(map(eq, values, values))


def in_order(documents: Documents, field: str, values: list[Any], *, descending: bool) -> Documents:
    """Return the documents by the values that all of them have at the path `field`."""
    try:
        return sorted(documents, key=itemgetter(field), reverse=descending)
    except KeyError:
        places = sorted(range(len(values)), key=values.__getitem__, reverse=descending)
        return [documents[place] for place in places]


def _key(values: list[Any], kinds: set[type]) -> Callable[[Any], Any] | None:
    """What values of these kinds are compared by; None for the values themselves."""
    if kinds <= _NUMBERS:
        return None
    if kinds != {str}:
        return str
    if all(map(_DATE.match, values)):
        try:
            return {value: _moment(value) for value in values}.__getitem__
        except ValueError:
            return None
    return None


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
