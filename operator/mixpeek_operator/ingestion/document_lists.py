"""Reading many documents: pages, sorted pages and groups, with filters that the vector store cannot evaluate."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mixpeek_operator.core.directory import CollectionInfo
from mixpeek_operator.core.errors import NotFoundError
from mixpeek_operator.core.filters import And, Filter, all_of, equals, matches
from mixpeek_operator.core.listing import ListPage, ListQuery
from mixpeek_operator.ingestion.aggregate import order
from mixpeek_operator.ingestion.lineage import render
from mixpeek_operator.ingestion.paging import seal, unseal
from mixpeek_operator.ingestion.paths import MISSING, resolve
from mixpeek_operator.ingestion.records import mentions
from mixpeek_operator.ports.vectors import Page, Point, VectorStore

GROUP_DOCUMENTS = 100
"""Most documents shown per group; `count` says how many there are."""

_PAGE = 256


@dataclass(frozen=True, slots=True)
class Selection:
    """Which documents: what the store evaluates, and what is left to do here."""

    collection: CollectionInfo
    pushed: Filter
    rest: Filter | None
    search: str | None

    @property
    def exact(self) -> bool:
        """Whether the store alone decides."""
        return self.rest is None and not self.search


def select(
    store: VectorStore, collection: CollectionInfo, filters: Filter | None, search: str | None = None
) -> Selection:
    """Return the selection for a filter over one collection; parts the store cannot evaluate stay here."""
    own = equals("collection_id", collection.id)
    if filters is None or store.can_push_down(filters):
        return Selection(collection, all_of(own, filters) or own, None, search)
    if isinstance(filters, And):
        able = [part for part in filters.parts if store.can_push_down(part)]
        unable = [part for part in filters.parts if not store.can_push_down(part)]
        return Selection(collection, all_of(own, *able) or own, all_of(*unable), search)
    return Selection(collection, own, filters, search)


async def stream(store: VectorStore, chosen: Selection, *, page: int = _PAGE) -> AsyncIterator[Point]:
    """Yield the selected documents in id order, one page in memory."""
    needle = (chosen.search or "").lower()
    after: str | None = None
    while True:
        found = await _scroll(store, chosen, page, after)
        for point in found.points:
            if chosen.rest is not None and not matches(chosen.rest, point.payload):
                continue
            if needle and not mentions(point.payload, needle):
                continue
            yield point
        if found.next is None:
            return
        after = found.next


async def _scroll(store: VectorStore, chosen: Selection, limit: int, after: str | None) -> Page:
    """One page; nothing of a namespace whose vector collection is yet to be made."""
    collection = chosen.collection.vector_collection
    try:
        return await store.scroll(collection, filter=chosen.pushed, limit=limit, after=after)
    except NotFoundError:
        if await store.describe(collection) is not None:
            raise
        return Page((), None)


async def count(store: VectorStore, chosen: Selection) -> int:
    """Return how many documents are selected."""
    if chosen.exact:
        try:
            return await store.count(chosen.collection.vector_collection, chosen.pushed)
        except NotFoundError:
            if await store.describe(chosen.collection.vector_collection) is not None:
                raise
            return 0
    return sum([1 async for _ in stream(store, chosen)])


async def list_page(store: VectorStore, collection: CollectionInfo, query: ListQuery, *, vectors: bool) -> ListPage:
    """Return one page of documents, in id order unless sorted."""
    chosen = select(store, collection, query.filters, query.search)
    name = f"documents/{collection.id}"
    position = unseal(query, name) or {}
    after = position.get("after")
    if chosen.exact and not query.sort and (after is not None or not (query.offset or position)):
        page = await _scroll(store, chosen, query.limit, after)
        points: Sequence[Point] = page.points
        cursor = seal(query, name, {"after": page.next}) if page.next is not None else None
    else:
        offset = int(position.get("offset", query.offset))
        found = await _slice(store, chosen, query, offset + query.limit + 1)
        ids = [row.id for row in found[offset : offset + query.limit]]
        points = await store.get(collection.vector_collection, ids) if ids else []
        more = len(found) > offset + query.limit
        cursor = seal(query, name, {"offset": offset + len(ids)}) if more else None
    total = await count(store, chosen) if query.include_total else None
    return ListPage(await rendered(store, collection, points, vectors=vectors), total, cursor)


async def rendered(
    store: VectorStore, collection: CollectionInfo, points: Sequence[Point], *, vectors: bool
) -> list[dict[str, Any]]:
    """Return documents in wire shape, with their vectors when asked for."""
    if not vectors or not points:
        return [render(point.payload) for point in points]
    full = await store.get(collection.vector_collection, [point.id for point in points], with_vectors=True)
    return [render(point.payload, vectors=point.vectors) for point in full]


async def list_groups(
    store: VectorStore, collection: CollectionInfo, query: ListQuery, group_by: str, *, vectors: bool
) -> ListPage:
    """Return one page of groups `{group_key, documents, count}`, largest first; the total counts groups."""
    chosen = select(store, collection, query.filters, query.search)
    name = f"document_groups/{collection.id}/{group_by}"
    groups: dict[tuple[int, Any], tuple[Any, list[_Row], int]] = {}
    async for point in stream(store, chosen):
        value = resolve(point.payload, group_by)
        value = None if value is MISSING else value
        key, rows, size = groups.get(order(value), (value, [], 0))
        if size < GROUP_DOCUMENTS:
            rows.append(_row(point, query.sort))
        groups[order(value)] = (key, rows, size + 1)
    ranked = [groups[key] for key in sorted(groups, key=lambda key: (-groups[key][2], key))]
    position = unseal(query, name) or {}
    offset = int(position.get("offset", query.offset))
    items = []
    for key, rows, size in ranked[offset : offset + query.limit]:
        ids = [row.id for row in _sorted(rows, query.sort)]
        sample = await store.get(collection.vector_collection, ids)
        shown = await rendered(store, collection, sample, vectors=vectors)
        items.append({"group_key": key, "documents": shown, "count": size})
    more = len(ranked) > offset + query.limit
    return ListPage(items, len(ranked), seal(query, name, {"offset": offset + len(items)}) if more else None)


class _Row(NamedTuple):
    """What a list holds of a document that may not be shown: where it stands."""

    id: str
    keys: tuple[tuple[int, Any], ...]


def _row(point: Point, sort: Sequence[tuple[str, str]]) -> _Row:
    return _Row(point.id, tuple(order(resolve(point.payload, path)) for path, _ in sort))


async def _slice(store: VectorStore, chosen: Selection, query: ListQuery, wanted: int) -> list[_Row]:
    """The first `wanted` documents in the query's order, holding about twice as many rows."""
    found: list[_Row] = []
    async for point in stream(store, chosen, page=min(_PAGE, max(wanted, 16)) if not query.sort else _PAGE):
        found.append(_row(point, query.sort))
        if not query.sort and len(found) >= wanted:
            break
        if len(found) > 2 * wanted + 1000:
            found = _sorted(found, query.sort)[:wanted]
    return _sorted(found, query.sort)[:wanted]


def _sorted(rows: Sequence[_Row], sort: Sequence[tuple[str, str]]) -> list[_Row]:
    """Documents by each field in turn, those without it last, ties in id order."""
    ordered = sorted(rows, key=lambda row: row.id) if sort else list(rows)
    for position, (_, direction) in reversed(list(enumerate(sort))):
        present = [row for row in ordered if row.keys[position][0]]
        present.sort(key=lambda row, at=position: row.keys[at], reverse=direction == "desc")  # type: ignore[misc]
        ordered = present + [row for row in ordered if not row.keys[position][0]]
    return ordered
