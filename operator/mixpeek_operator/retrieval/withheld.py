"""Fields of documents that no cache may hold: taken out of what is kept, read again from the store when it is found.

That gives back what was there, for a hit stands on the signatures of the collections that it was made from. What the
store would not give back (a stage rewrote it, or it stands inside another field) is not kept at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import structlog

from mixpeek_operator.core import ids
from mixpeek_operator.core.directory import NamespaceInfo
from mixpeek_operator.core.errors import MixpeekError
from mixpeek_operator.ports.vectors import VectorStore
from mixpeek_operator.retrieval.paths import ABSENT, write
from mixpeek_operator.retrieval.stage import Documents

Gaps = list[tuple[int, str]]
"""What was taken out: position of the document, and path of the field."""

_log = structlog.get_logger(__name__)


class Withheld:
    """The fields of one retriever's `cache_config.exclude_fields`. True when there are any."""

    def __init__(self, fields: Sequence[str], vectors: VectorStore, namespace: NamespaceInfo) -> None:
        # What stands inside another excluded field goes with it.
        self._fields = tuple(
            field for field in dict.fromkeys(fields) if not any(field.startswith(f"{other}.") for other in fields)
        )
        self._vectors = vectors
        self._namespace = namespace

    def __bool__(self) -> bool:
        return bool(self._fields)

    async def taken_out(self, documents: Documents, *rest: Any) -> tuple[Documents, Gaps] | None:
        """Return the documents without the fields, and where they were.

        None when they cannot be kept: the store has other values, or a field stands inside the documents or `rest`.
        """
        gaps = [
            (position, field)
            for position, document in enumerate(documents)
            for field in self._fields
            if _value(document, field) is not ABSENT
        ]
        stored = await self._stored(documents, gaps)
        bare = list(documents)
        for position, field in gaps:
            if _value(stored.get(position, {}), field) != _value(documents[position], field):
                return None
            bare[position] = _without(bare[position], field)
        if any(self._occurs(part) for part in (bare, *rest)):
            return None
        return bare, gaps

    async def put_back(self, documents: Documents, gaps: Sequence[Sequence[Any]]) -> Documents | None:
        """Return the documents as they were; None when one of them is no longer what it was."""
        whole = list(documents)
        stored = await self._stored(documents, gaps)
        for position, field in gaps:
            value = _value(stored.get(position, {}), field)
            if value is ABSENT:
                return None
            whole[position] = write(whole[position], field, value)
        return whole

    async def _stored(self, documents: Documents, gaps: Sequence[Sequence[Any]]) -> dict[int, Mapping[str, Any]]:
        """The stored documents by the positions concerned."""
        point_ids = {
            position: ids.point_id(self._namespace.id, str(documents[position].get("document_id")))
            for position in {position for position, _ in gaps}
        }
        if not point_ids:
            return {}
        wanted = list(dict.fromkeys(point_ids.values()))
        try:
            points = await self._vectors.get(self._namespace.vector_collection, wanted)
        except MixpeekError as error:
            # Keeping an answer is not worth failing it for, and what cannot be read again is no hit.
            _log.warning("excluded_fields_not_read", reason=error.message)
            return {}
        payloads = {point.id: point.payload for point in points}
        return {position: payloads[id] for position, id in point_ids.items() if id in payloads}

    def _occurs(self, value: Any) -> bool:
        return any(_holds(inner, field) for inner in _objects(value) for field in self._fields)


def _value(document: Mapping[str, Any], field: str) -> Any:
    """The value at a path through objects, ABSENT when there is none."""
    value: Any = document
    for part in field.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return ABSENT
        value = value[part]
    return value


def _holds(value: Any, field: str) -> bool:
    """Whether a path leads anywhere, through lists too."""
    if isinstance(value, list | tuple):
        return any(_holds(inner, field) for inner in value)
    if not isinstance(value, Mapping):
        return False
    head, _, rest = field.partition(".")
    return field in value or (head in value and (not rest or _holds(value[head], rest)))


def _without(document: Mapping[str, Any], field: str) -> dict[str, Any]:
    head, _, rest = field.partition(".")
    if not rest:
        return {name: value for name, value in document.items() if name != head}
    return {**document, head: _without(document[head], rest)}


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
        for inner in value.values():
            yield from _objects(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _objects(inner)
