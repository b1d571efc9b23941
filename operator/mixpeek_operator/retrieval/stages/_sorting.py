"""Ordering documents by a field, shared by the sort stages."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final

from mixpeek_operator.retrieval import paths
from mixpeek_operator.retrieval.stage import Documents

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?$")


def sort(documents: Documents, field: str, *, descending: bool, missing_last: bool) -> Documents:
    """Return the documents by a field; equal ones keep their order.

    Numbers and booleans compare as numbers, ISO 8601 dates as times, texts as texts; a mixture compares as text.
    """
    present: list[tuple[Any, dict[str, Any]]] = []
    missing: Documents = []
    for document in documents:
        value = paths.read(document, field)
        if value is paths.ABSENT or value is None or value != value:
            missing.append(document)
        else:
            present.append((value, document))
    key = _key([value for value, _ in present])
    present.sort(key=lambda pair: key(pair[0]), reverse=descending)
    ordered = [document for _, document in present]
    return ordered + missing if missing_last else missing + ordered


def _key(values: list[Any]) -> Any:
    if all(isinstance(value, int | float) for value in values):
        return lambda value: value
    if all(isinstance(value, str) for value in values):
        if all(_DATE.match(value) for value in values):
            try:
                moments = {value: _moment(value) for value in values}
            except ValueError:
                return lambda value: value
            return lambda value: moments[value]
        return lambda value: value
    return str


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
