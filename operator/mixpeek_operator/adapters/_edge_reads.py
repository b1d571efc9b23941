"""Reads of an Edge shard: conditions, requests, scans and orders, with answers in the port's words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import qdrant_edge as edge

from mixpeek_operator.adapters import _edge_filters
from mixpeek_operator.adapters._edge_shard import Shard, translate
from mixpeek_operator.adapters._vector_rules import Order, grows_with_similarity, need_index, root_paths
from mixpeek_operator.core.errors import BadRequestError
from mixpeek_operator.core.filters import And, Compare, Filter, Operator, all_of, fields, matches
from mixpeek_operator.ports.vectors import Hit, Page, Point, Search, SparseVector, Vector

_PAGE = 1000


def condition(shard: Shard, filter: Filter) -> Any:
    """Return the Edge condition that holds for exactly the points the filter holds for, None when it is all of them."""
    selective = _selective(shard, filter)
    if selective is None:
        return None
    compiled = _edge_filters.compile_filter(selective, shard.meta.arrays)
    if compiled.exact:
        return compiled.condition
    return edge.Filter(must=[edge.HasIdCondition({record.id for record in scan(shard, selective, only=())})])


def _selective(shard: Shard, filter: Filter) -> Filter | None:
    """Return the filter without the conditions that every point meets: to check one takes Edge as long as to search.

    The collection of a search is the usual one, in a namespace with one collection.
    """
    parts = filter.parts if isinstance(filter, And) else (filter,)
    return all_of(*(part for part in parts if not _met_by_all(shard, part)))


def _met_by_all(shard: Shard, part: Filter) -> bool:
    return (
        isinstance(part, Compare)
        and part.operator is Operator.EQ
        and isinstance(part.value, str)
        and not part.case_insensitive
        and shard.only_value(part.field) == part.value
    )


def request(shard: Shard, search: Search, condition: Any, limit: int, vectors: bool | list[str]) -> Any:
    """Return the Edge request of one search."""
    if isinstance(search.vector, SparseVector):
        vector: Any = edge.SparseVector(list(search.vector.indices), list(search.vector.values))
    else:
        vector = list(search.vector)
    threshold = search.score_threshold
    if threshold is not None and not grows_with_similarity(shard.meta.vectors[search.vector_name]):
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
    similar = grows_with_similarity(shard.meta.vectors[search.vector_name])
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
    read = None if only is None else root_paths([*only, *([] if compiled.exact else fields(filter))])
    wanted = True if read is None else read
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


def ordered_page(
    shard: Shard, filter: Filter | None, limit: int, after: str | None, order_by: tuple[str, str], vectors: bool
) -> Page:
    """Return a page by the values of an indexed field; points without it are left out."""
    name, direction = order_by
    need_index(shard.meta.indexes, name, "an order")
    order = Order(name, direction)
    for record in scan(shard, filter, only=(name,)):
        order.add(str(record.id), record.payload)
    ids, following = order.page(after, limit)
    found = {str(record.id): record for record in retrieve(shard, ids, vectors=vectors)}
    return Page([point(shard, found[id]) for id in ids], following)


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
