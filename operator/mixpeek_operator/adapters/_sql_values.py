"""Rows of databases as JSON holds them, within limits."""

from __future__ import annotations

import base64
import datetime
import decimal
import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from mixpeek_operator.core.errors import SpecError

MAX_BYTES: Final = 10 * 1024 * 1024
"""Of the texts and bytes in the rows of one query."""


class Collected:
    """Rows as they come in; stops when they are too large."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self._bytes = 0
        self.rows: list[dict[str, Any]] = []

    def add(self, row: Iterable[Any]) -> None:
        """Keep a row. Raises SpecError when the rows together are too large."""
        values = list(row)
        self._bytes += sum(len(value) for value in values if isinstance(value, str | bytes | bytearray | memoryview))
        if self._bytes > MAX_BYTES:
            raise SpecError(f"the query answers with more than {MAX_BYTES} bytes", code="too_large")
        self.rows.append(dict(zip(self._columns, map(plain, values), strict=True)))


def plain(value: Any) -> Any:
    """Return a value as JSON holds it: numbers as numbers, moments in ISO 8601, bytes in base64, the rest as text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, decimal.Decimal):
        if not value.is_finite():
            return None
        return int(value) if value == value.to_integral_value() and abs(value) < 2**63 else float(value)
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return str(value)
