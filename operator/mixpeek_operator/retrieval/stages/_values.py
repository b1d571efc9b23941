"""Values of documents as stages compare and group them: equal JSON values are one, whatever their type in Python."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import orjson

from mixpeek_operator.retrieval import paths


def mark(value: Any, *, fold: bool = False) -> bytes:
    """Return the same bytes for equal values: 1 and 1.0 are equal, "1" and true are not; missing is null.

    With `fold`, texts that differ only in case are equal too.
    """
    return orjson.dumps(_canonical(value, fold), option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS, default=str)


def number(value: Any) -> float | int | None:
    """Return a finite number, None for anything else; a boolean is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        return None


def score(document: Mapping[str, Any], field: str = "score") -> float:
    """Return a document's score, 0 when it has none."""
    found = number(paths.read(document, field))
    return 0.0 if found is None else float(found)


def scores(documents: Sequence[Mapping[str, Any]], field: str) -> list[float]:
    """Return the scores of documents, as `score` does of one."""
    values = paths.column(documents, field)
    if set(map(type, values)) <= {int, float}:
        with suppress(OverflowError):
            numbers = list(map(float, values))
            # No sum is finite that has an infinity or a not-a-number in it.
            if math.isfinite(sum(numbers)):
                return numbers
    return [0.0 if found is None else float(found) for found in map(number, values)]


def present(document: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path, None when there is none."""
    value = paths.read(document, path)
    return None if value is paths.ABSENT else value


def _canonical(value: Any, fold: bool) -> Any:
    if value is paths.ABSENT:
        return None
    if isinstance(value, str):
        return value.casefold() if fold else value
    if isinstance(value, float) and value.is_integer():
        return int(value) if abs(value) < 2**63 else value
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return float(value)
    if isinstance(value, list):
        return [_canonical(item, fold) for item in value]
    if isinstance(value, Mapping):
        return {key: _canonical(item, fold) for key, item in value.items()}
    return value
