"""Lists and times of the records that ingestion keeps in the metadata store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from mixpeek_operator.core.errors import BadRequestError
from mixpeek_operator.core.filters import Filter, all_of
from mixpeek_operator.core.listing import ListPage, ListQuery
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.ingestion.paging import seal, unseal
from mixpeek_operator.ports.metadata import MetadataStore, Record

_SCAN = 500
_SORTED_SCAN = 2000


def namespace_of(scope: Scope) -> str:
    """Return the namespace of the call. Raises BadRequestError when it names none."""
    if scope.namespace_id is None:
        raise BadRequestError("name the namespace in the X-Namespace header", code="namespace_required")
    return scope.namespace_id


async def scan(
    store: MetadataStore,
    table: str,
    namespace_id: str,
    filter: Filter | None = None,
    *,
    sort: Sequence[tuple[str, str]] = (),
    size: int = _SCAN,
) -> AsyncIterator[Record]:
    """Yield every matching record, holding one page of `size` in memory."""
    offset = 0
    while True:
        page = await store.find(table, namespace_id, filter=filter, sort=sort, limit=size, offset=offset)
        for record in page:
            yield record
        if len(page) < size:
            return
        offset += len(page)


def mentions(value: Any, needle: str) -> bool:
    """Whether any string or number inside `value` holds `needle` (lower case), whatever its case."""
    if isinstance(value, Mapping):
        return any(mentions(item, needle) for key, item in value.items() if not str(key).startswith("_"))
    if isinstance(value, list | tuple):
        return any(mentions(item, needle) for item in value)
    return value is not None and not isinstance(value, bool) and needle in str(value).lower()


async def list_records(
    store: MetadataStore,
    table: str,
    namespace_id: str,
    query: ListQuery,
    *,
    base: Filter | None,
    name: str,
    render: Callable[[Mapping[str, Any]], dict[str, Any]],
) -> ListPage:
    """Return one page of records in wire shape; `name` says what is listed, so that cursors cannot be mixed up.

    `search` looks into every value of a record, so it reads them one page after the other, to the end only where the
    total is asked for.
    """
    position = unseal(query, name)
    offset = int(position["offset"]) if position else query.offset
    filter = all_of(base, query.filters)
    if query.search:
        page: list[Record] = []
        seen = 0
        async for record in _searched(store, table, namespace_id, filter, query):
            seen += 1
            if offset < seen <= offset + query.limit:
                page.append(record)
            elif seen > offset and not query.include_total:
                break
        more = seen > offset + query.limit
        total = seen if query.include_total else None
    else:
        page = await store.find(
            table, namespace_id, filter=filter, sort=query.sort, limit=query.limit + 1, offset=offset
        )
        more = len(page) > query.limit
        page = page[: query.limit]
        total = await store.count(table, namespace_id, filter) if query.include_total else None
    cursor = seal(query, name, {"offset": offset + len(page)}) if more else None
    return ListPage([render(record.body) for record in page], total, cursor)


async def _searched(
    store: MetadataStore, table: str, namespace_id: str, filter: Filter | None, query: ListQuery
) -> AsyncIterator[Record]:
    needle = str(query.search).lower()
    # Each page of a sorted scan sorts anew, so these are larger.
    size = _SORTED_SCAN if query.sort else _SCAN
    async for record in scan(store, table, namespace_id, filter, sort=query.sort, size=size):
        if mentions(record.body, needle):
            yield record
