"""Reads of an Edge shard: conditions, requests, scans and orders, with answers in the port's words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson
import qdrant_edge as edge

from mixpeek_operator.adapters import _edge_filters
from mixpeek_operator.adapters._edge_shard import Shard, translate
from mixpeek_operator.core import filter_values
from mixpeek_operator.core.errors import BadRequestError, SpecError
from mixpeek_operator.core.filters import Filter, fields, matches
from mixpeek_operator.ports.vectors import Hit, Page, Point, Search, SparseVector, Vector

_PAGE = 1000
_FALLING = ("cosine", "dot")


def condition(shard: Shard, filter: Filter) -> Any:
    """Return the Edge condition that holds for exactly the points the filter holds for."""
    compiled = _edge_filters.compile_filter(filter, shard.meta.arrays)
    if compiled.exact:
        return compiled.condition
    return edge.Filter(must=[edge.HasIdCondition({record.id for record in scan(shard, filter, only=())})])


def request(shard: Shard, search: Search, condition: Any, limit: int, vectors: bool | list[str]) -> Any:
    """Return the Edge request of one search."""
    if isinstance(search.vector, SparseVector):
        vector: Any = edge.SparseVector(list(search.vector.indices), list(search.vector.values))
    else:
        vector = list(search.vector)
    threshold = search.score_threshold
    if threshold is not None and not _similar(shard, search.vector_name):
        threshold = 1 / threshold - 1 if threshold > 0 else None
    return edge.QueryRequest(
        limit=limit,
        query=edge.Query.Nearest(vector, using=search.vector_name),
        filter=condition,
        score_threshold=threshold,
        with_payload=True,
        with_vector=vectors,
        params=edge.SearchParams(exact=True) if search.exact else None,
    )


def hits(shard: Shard, search: Search, answer: Iterable[Any]) -> list[Hit]:
    """Return the hits of an answer, best first, ties by id, at most as many as asked."""
    similar = _similar(shard, search.vector_name)
    hits = [
        Hit(
            str(one.id),
            one.score if similar else 1 / (1 + abs(one.score)),
            one.payload or {},
            _read_vectors(shard, one.vector),
        )
        for one in answer
    ]
    hits.sort(key=lambda hit: (-hit.score, hit.id))
    return hits[: search.limit]


def _similar(shard: Shard, vector_name: str) -> bool:
    """Whether Edge's score grows with similarity; a distance is turned to `1 / (1 + distance)`."""
    params = shard.meta.vectors[vector_name]
    return params.kind == "sparse" or params.distance in _FALLING


def retrieve(shard: Shard, ids: Sequence[str], *, payload: bool = True, vectors: bool = False) -> list[Any]:
    """Return the records that exist, in no order."""
    try:
        return list(shard.edge.retrieve(list(ids), with_payload=payload, with_vector=vectors))
    except Exception as error:
        raise translate(error) from error


def scan(
    shard: Shard,
    filter: Filter | None,
    *,
    after: str | None = None,
    page: int = _PAGE,
    vectors: bool = False,
    only: Iterable[str] | None = None,
) -> Iterator[Any]:
    """Yield every matching record in id order, from id `after` on.

    `only` names the fields the caller reads: turning whole payloads to Python is most of the cost of a scan.
    """
    compiled = _edge_filters.compile_filter(filter, shard.meta.arrays)
    wanted = True if only is None else _roots([*only, *([] if compiled.exact else fields(filter))])
    offset: Any = after
    while True:
        try:
            records, offset = shard.edge.scroll(
                edge.ScrollRequest(
                    offset=offset, limit=page, filter=compiled.condition, with_payload=wanted, with_vector=vectors
                )
            )
        except ValueError as error:
            raise BadRequestError(f"{after!r} does not continue a scroll") from error
        except Exception as error:
            raise translate(error) from error
        for record in records:
            if compiled.exact or matches(filter, record.payload or {}):
                yield record
        if offset is None:
            return


def _roots(names: Iterable[str]) -> list[str] | bool:
    """Return the top-level keys of dotted paths as Edge writes them; all, where one cannot be written."""
    roots = {filter_values.segments(name)[0] for name in names}
    if any(_edge_filters.edge_paths(root, frozenset()) is None for root in roots):
        return True
    return sorted(map(_edge_filters.written_key, roots))


def ordered_page(
    shard: Shard, filter: Filter | None, limit: int, after: str | None, order_by: tuple[str, str], vectors: bool
) -> Page:
    """Return a page by the values of an indexed field; points without it are left out."""
    name, direction = order_by
    indexed(shard, name, "an order")
    falling = direction == "desc"
    keyed: list[tuple[Any, str]] = []
    for record in scan(shard, filter, only=(name,)):
        ranks = [rank(value) for _, value in scalars(record.payload, name)]
        if ranks:
            keyed.append((max(ranks) if falling else min(ranks), str(record.id)))
    keyed.sort(key=lambda pair: pair[1])
    keyed.sort(key=lambda pair: pair[0], reverse=falling)
    start = 0
    if after is not None:
        try:
            last_rank, last_id = orjson.loads(after)
            last = (tuple(last_rank), str(last_id))
        except (orjson.JSONDecodeError, TypeError, ValueError) as error:
            raise BadRequestError(f"{after!r} does not continue a scroll in this order") from error
        # By value, not by position: points may have come and gone between two pages.
        start = sum(1 for pair in keyed if _before(pair, last, falling) or pair == last)
    chosen = keyed[start : start + limit]
    found = {str(record.id): record for record in retrieve(shard, [id for _, id in chosen], vectors=vectors)}
    points = [point(shard, found[id]) for _, id in chosen]
    more = start + limit < len(keyed)
    return Page(points, orjson.dumps([list(chosen[-1][0]), chosen[-1][1]]).decode() if more and chosen else None)


def _before(pair: tuple[Any, str], last: tuple[Any, str], falling: bool) -> bool:
    if pair[0] == last[0]:
        return pair[1] < last[1]
    return bool(pair[0] > last[0]) if falling else bool(pair[0] < last[0])


def scalars(payload: Mapping[str, Any] | None, field_name: str) -> set[tuple[str, Any]]:
    """Return the distinct values of a field, each with its type, as `1` and `true` are equal in Python."""
    values = filter_values.elements(filter_values.nodes(payload or {}, field_name))
    return {(type(value).__name__, value) for value in values if isinstance(value, str | int | float)}


def rank(value: Any) -> tuple[int, Any]:
    """An order over values of different types: numbers, then strings."""
    if isinstance(value, str):
        return (1, value)
    return (0, float(value))


def indexed(shard: Shard, field_name: str, purpose: str) -> str:
    """Return the type of the payload index on a field. SpecError when there is none."""
    kind = shard.meta.indexes.get(field_name)
    if kind is None:
        raise SpecError(f"{purpose} by {field_name!r} needs a payload index on it; add it to payload_indexes")
    return kind


def point(shard: Shard, record: Any) -> Point:
    """Return a record as the port's point."""
    return Point(str(record.id), _read_vectors(shard, record.vector), record.payload or {})


def _read_vectors(shard: Shard, vectors: Any) -> dict[str, Vector]:
    if not isinstance(vectors, dict):
        return {}
    return {
        name: SparseVector(list(vector.indices), list(vector.values))
        if isinstance(vector, edge.SparseVector)
        else vector
        for name, vector in vectors.items()
        if name in shard.meta.vectors
    }
