"""Opaque cursors, bound to the query they continue. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any

import orjson

from mixpeek_operator.core.errors import BadRequestError
from mixpeek_operator.core.listing import ListQuery


def seal(query: ListQuery, scope: str, position: dict[str, Any]) -> str:
    """Return the cursor for `position` in this query; `scope` names what is listed."""
    body = orjson.dumps([_mark(query, scope), position])
    return base64.urlsafe_b64encode(body).decode().rstrip("=")


def unseal(query: ListQuery, scope: str) -> dict[str, Any] | None:
    """Return the position of the query's cursor, None without one.

    Raises BadRequestError for a cursor that is not ours or that belongs to another query.
    """
    if query.cursor is None:
        return None
    try:
        padded = query.cursor + "=" * (-len(query.cursor) % 4)
        mark, position = orjson.loads(base64.urlsafe_b64decode(padded.encode()))
    except (binascii.Error, orjson.JSONDecodeError, UnicodeError, ValueError, TypeError) as error:
        raise BadRequestError("the cursor cannot be read; start again without it", code="invalid_cursor") from error
    if mark != _mark(query, scope) or not isinstance(position, dict):
        raise BadRequestError(
            "the cursor belongs to another query; start again without it", code="cursor_of_another_query"
        )
    return position


def _mark(query: ListQuery, scope: str) -> str:
    text = repr((scope, query.search, query.filters, tuple(map(tuple, query.sort))))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
