"""The order of sorted records: numbers, then strings, then the rest; without the field last, in either direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mixpeek_operator.core import filter_values

_ABSENT = 3

SortKey = tuple[tuple[int, Any], ...]


def sort_key(body: Mapping[str, Any], sort: Sequence[tuple[str, str]]) -> SortKey:
    """Return what of a record decides its place; `sort` holds (field, asc|desc) pairs."""
    return tuple(_part(body, field) for field, _ in sort)


def ordered(keyed: list[tuple[SortKey, str]], sort: Sequence[tuple[str, str]]) -> list[str]:
    """Return the ids of (key, id) pairs in order; ties stay as they were given."""
    for position, (_, direction) in reversed(list(enumerate(sort))):
        present = [item for item in keyed if item[0][position][0] != _ABSENT]
        present.sort(key=lambda item, at=position: item[0][at], reverse=direction == "desc")  # type: ignore[misc]
        keyed = present + [item for item in keyed if item[0][position][0] == _ABSENT]
    return [id for _, id in keyed]


def _part(body: Mapping[str, Any], field: str) -> tuple[int, Any]:
    values = filter_values.elements(filter_values.nodes(body, field))
    value = values[0] if values else None
    if value is None:
        return (_ABSENT, 0)
    if isinstance(value, bool | int | float):
        return (0, value)
    return (1, value) if isinstance(value, str) else (2, str(value))
