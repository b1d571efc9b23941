"""Ordering documents by a field, shared by the sort stages."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from mixpeek_operator.retrieval import paths
from mixpeek_operator.retrieval.stage import Documents

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?$")


def sort(documents: Documents, field: str, *, descending: bool, missing_last: bool) -> Documents:
    """Return the documents by a field; equal ones keep their order.

    Numbers and booleans compare as numbers, ISO 8601 dates as times, texts as texts; a mixture compares as text.
    """
    values = [document[field] if field in document else paths.read(document, field) for document in documents]
    present = [place for place, value in enumerate(values) if value is not None and value == value]
    if paths.ABSENT in values:
        present = [place for place in present if values[place] is not paths.ABSENT]
    key = _key([values[place] for place in present])
    order = sorted(
        present,
        key=values.__getitem__ if key is None else lambda place: key(values[place]),
        reverse=descending,
    )
    ordered = [documents[place] for place in order]
    if len(ordered) == len(documents):
        return ordered
    there = set(present)
    missing = [document for place, document in enumerate(documents) if place not in there]
    return ordered + missing if missing_last else missing + ordered


def _key(values: list[Any]) -> Callable[[Any], Any] | None:
    """What values of these kinds are compared by; None for the values themselves."""
    kinds = set(map(type, values))
    if kinds <= {int, float, bool}:
        return None
    if kinds != {str}:
        return str
    if all(_DATE.match(value) for value in values):
        try:
            return {value: _moment(value) for value in values}.__getitem__
        except ValueError:
            return None
    return None


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
