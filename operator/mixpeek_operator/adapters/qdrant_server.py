"""VectorStore on a Qdrant server, 1.16 or newer, over REST or gRPC.

A collection is a physical one behind an alias (`_qdrant_collections`). A write is acknowledged when the server has
applied it, so what was acknowledged is seen by every later call and survives the server's restart. Every filter is
accepted: what the server cannot decide exactly is narrowed there and decided by `core.filters`.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from qdrant_client import AsyncQdrantClient, models

from mixpeek_operator.adapters import _qdrant_filters, _qdrant_snapshots
from mixpeek_operator.adapters._qdrant_calls import Server
from mixpeek_operator.adapters._qdrant_collections import Collections, Facts, canonical
from mixpeek_operator.adapters._qdrant_filters import compile_filter, marked, unmarked
from mixpeek_operator.adapters._shared_reads import SharedReads
from mixpeek_operator.adapters._vector_rules import (
    Order,
    check_name,
    check_params,
    check_vectors,
    grows_with_similarity,
    index_path,
    need_index,
    rank,
    root_paths,
    scalars,
    sliced,
)
from mixpeek_operator.core.errors import BadRequestError, ConflictError, NotFoundError, SpecError, UnavailableError
from mixpeek_operator.core.filters import Filter, fields, matches
from mixpeek_operator.ports.vectors import (
    CollectionState,
    Hit,
    Page,
    Point,
    Search,
    SparseVector,
    Vector,
    VectorParams,
)

T = TypeVar("T")

_SLICE = 128
"""Points of one write: below the server's limit of 32 MB for vectors of 4,096 numbers."""
_PAGE = 1000
_TIES = 10_000
_FACTS_S = 30.0
"""How long vectors and indexes of a collection are remembered; what is not known is looked up before it is refused."""
_REBUILD_S = 30.0
"""How long a write waits for a rebuild."""


class QdrantServerVectors:
    """Vector collections of a server; see ports.vectors.VectorStore. Safe for several processes at a time."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._collections = Collections(server)
        self._facts: dict[str, Facts] = {}
        # Every resource of a namespace is visited with a look at its collection, hundreds at a start.
        self._described = SharedReads(self._describe)

    @classmethod
    def connect(
        cls, url: str, api_key: str | None = None, *, prefer_grpc: bool = False, timeout_s: int = 20
    ) -> QdrantServerVectors:
        """Return the store at `url`; nothing is sent before the first call. SpecError for a URL that is none."""
        return cls(Server.connect(url, api_key, prefer_grpc=prefer_grpc, timeout_s=timeout_s))

    async def describe(self, collection: str, *, max_age_s: float = 0.0) -> CollectionState | None:
        facts = self._facts.get(collection)
        if facts is not None and facts.empty and time.monotonic() - facts.read_at < max_age_s:
            return _state(collection, facts)
        return await self._described(collection)

    async def _describe(self, collection: str) -> CollectionState | None:
        facts = await self._collections.read(collection)
        if facts is None:
            self._facts.pop(collection, None)
            return None
        self._facts[collection] = facts
        points = 0
        if not facts.empty:
            try:
                points = (await self._server.call(self._client.count, collection, exact=True)).count
            except NotFoundError:
                return None
        return _state(collection, facts, points)

    async def list_collections(self) -> list[str]:
        return await self._collections.names()

    async def create_collection(
        self, collection: str, vectors: Mapping[str, VectorParams], *, labels: Mapping[str, str]
    ) -> None:
        await self._collections.create(collection, vectors, labels)
        self._facts.pop(collection, None)

    async def delete_collection(self, collection: str) -> None:
        await self._collections.delete(collection)
        self._facts.pop(collection, None)

    async def add_vector(self, collection: str, name: str, params: VectorParams) -> None:
        check_params(name, params)
        facts = await self._known(collection, fresh=True)
        found = facts.vectors.get(name)
        if found is not None and found != canonical(params):
            raise ConflictError(f"collection {collection!r} has another vector {name!r}: {found}, not {params}")
        if found is None:
            await self._collections.add_vector(collection, facts, name, params)
            self._facts.pop(collection, None)

    async def delete_vector(self, collection: str, name: str) -> None:
        facts = await self._known(collection, fresh=True)
        if name in facts.vectors:
            await self._collections.delete_vector(collection, facts, name)
            self._facts.pop(collection, None)

    async def create_payload_index(self, collection: str, field_name: str, type: str) -> None:
        await self._collections.create_index(await self._known(collection, fresh=True), field_name, type)
        self._facts.pop(collection, None)

    async def delete_payload_index(self, collection: str, field_name: str) -> None:
        await self._collections.delete_index(await self._known(collection, fresh=True), field_name)
        self._facts.pop(collection, None)

    async def upsert(self, collection: str, points: Sequence[Point]) -> None:
        await self._check(collection, [(_uuid(point.id), point.vectors) for point in points])
        made = [models.PointStruct(id=one.id, vector=_sent(one.vectors), payload=marked(one.payload)) for one in points]
        for part in sliced(made, _SLICE):
            await self._write(collection, self._client.upsert, list(part), wait=True)

    async def set_payload(self, collection: str, ids: Sequence[str], payload: Mapping[str, Any]) -> None:
        stored = marked(payload)
        for part in sliced(ids, _PAGE) if ids else [ids]:
            # By a condition and not by id: the server refuses ids that do not exist.
            there = _qdrant_filters.ids_only([_uuid(id) for id in part])
            await self._write(collection, self._client.set_payload, stored, there, wait=True)

    async def delete_points(self, collection: str, ids: Sequence[str]) -> None:
        for part in sliced(ids, _PAGE) if ids else [ids]:
            listed = models.PointIdsList(points=[_uuid(id) for id in part])
            await self._write(collection, self._client.delete, listed, wait=True)

    async def delete_by_filter(self, collection: str, filter: Filter) -> None:
        compiled = compile_filter(filter)
        if not compiled.exact:
            await self.delete_points(
                collection, [str(record.id) async for record in self._scan(collection, filter, ())]
            )
            return
        selector = models.FilterSelector(filter=compiled.condition)
        await self._write(collection, self._client.delete, selector, wait=True)

    async def get(self, collection: str, ids: Sequence[str], *, with_vectors: bool = False) -> list[Point]:
        return await self._points(collection, ids, with_vectors)

    async def search(
        self, collection: str, searches: Sequence[Search], *, with_vectors: bool | Sequence[str] = False
    ) -> list[list[Hit]]:
        facts = await self._check(collection, [("query", {one.vector_name: one.vector}) for one in searches])
        vectors = with_vectors if isinstance(with_vectors, bool) else list(with_vectors)
        conditions: dict[int, models.Filter | None] = {}
        requests: list[models.QueryRequest] = []
        asked: list[int] = []
        for index, search in enumerate(searches):
            if search.limit < 1 or (isinstance(search.vector, SparseVector) and not search.vector.indices):
                continue
            if id(search.filter) not in conditions:
                conditions[id(search.filter)] = await self._condition(collection, search.filter)
            # One more than asked for shows whether equal scores stand on both sides of the limit.
            requests.append(_request(facts, search, conditions[id(search.filter)], search.limit + 1, vectors))
            asked.append(index)
        results: list[list[Hit]] = [[] for _ in searches]
        if not requests:
            return results
        answers = await self._read(collection, self._client.query_batch_points, requests)
        for index, request, answer in zip(asked, requests, answers, strict=True):
            search, found = searches[index], answer.points
            if len(found) > search.limit and found[-1].score == found[-2].score:
                many = request.model_copy(update={"limit": search.limit + _TIES})
                again = await self._read(collection, self._client.query_batch_points, [many])
                found = again[0].points
            results[index] = _hits(facts, search, found)
        return results

    async def scroll(
        self,
        collection: str,
        *,
        filter: Filter | None = None,
        limit: int = 100,
        after: str | None = None,
        order_by: tuple[str, str] | None = None,
        with_vectors: bool = False,
    ) -> Page:
        if order_by is not None:
            return await self._ordered_page(collection, filter, limit, after, order_by, with_vectors)
        found: list[Point] = []
        async for record in self._scan(collection, filter, None, after=after, page=limit + 1, vectors=with_vectors):
            if len(found) == limit:
                return Page(found, str(record.id))
            found.append(_point(record))
        return Page(found, None)

    async def count(self, collection: str, filter: Filter | None = None) -> int:
        compiled = compile_filter(filter)
        if not compiled.exact:
            return sum([1 async for _ in self._scan(collection, filter, ())])
        answer = await self._read(collection, self._client.count, count_filter=compiled.condition, exact=True)
        return answer.count

    async def facet(
        self, collection: str, field_name: str, *, filter: Filter | None = None, limit: int = 10
    ) -> list[tuple[Any, int]]:
        facts = await self._indexed(collection, field_name, "a facet")
        compiled = compile_filter(filter)
        counted: list[tuple[Any, int]]
        countable = compiled.exact and facts.indexes[field_name] in ("keyword", "uuid", "bool")
        if countable and not await self._through_arrays(collection, field_name):
            # All values are counted, as those that share the last place are told apart by value.
            answer = await self._read(
                collection,
                self._client.facet,
                index_path(field_name),
                compiled.condition,
                limit=1_000_000,
                exact=True,
            )
            counted = [(hit.value, hit.count) for hit in answer.hits]
        else:
            counts: Counter[Any] = Counter()
            async for record in self._scan(collection, filter, (field_name,)):
                counts.update(scalars(record.payload, field_name))
            counted = [(value, count) for (_, value), count in counts.items()]
        counted.sort(key=lambda entry: (-entry[1], rank(entry[0])))
        return counted[:limit]

    def can_push_down(self, filter: Filter) -> bool:
        return compile_filter(filter).exact

    async def snapshot(self, collection: str, target: Path) -> None:
        facts = await self._known(collection, fresh=True)
        await _qdrant_snapshots.save(self._server, facts.physical, target)

    async def restore(self, collection: str, source: Path) -> None:
        made = await self._collections.unused_name(check_name(collection))
        await _qdrant_snapshots.load(self._server, made, source)
        await self._collections.replace(collection, await self._collections.read(collection), made)
        self._facts.pop(collection, None)

    async def health(self) -> None:
        await self._server.call(self._client.info)

    async def close(self) -> None:
        await self._server.close()

    @property
    def _client(self) -> AsyncQdrantClient:
        return self._server.client

    async def _read(self, collection: str, make: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        try:
            return await self._server.call(make, collection, *args, **kwargs)
        except NotFoundError:
            self._facts.pop(collection, None)
            raise

    async def _write(self, collection: str, make: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """Write to where writes go now; while a rebuild copies the points, that is nowhere, and the write waits."""
        ends = time.monotonic() + _REBUILD_S
        facts = await self._known(collection)
        while True:
            target = facts.writes
            try:
                return await self._server.call(make, target, *args, **kwargs)
            except NotFoundError:
                facts = await self._known(collection, fresh=True)
                if target == collection == facts.writes:
                    raise
                if time.monotonic() > ends:
                    raise UnavailableError(
                        f"collection {collection!r} is being rebuilt; try again in a moment", code="rebuilding"
                    ) from None
            await asyncio.sleep(0.2)

    async def _known(self, collection: str, *, fresh: bool = False) -> Facts:
        facts = self._facts.get(collection)
        if facts is None or fresh or time.monotonic() - facts.read_at > _FACTS_S:
            facts = await self._collections.read(collection)
            if facts is None:
                self._facts.pop(collection, None)
                raise NotFoundError(f"there is no vector collection {collection!r}")
            self._facts[collection] = facts
        return facts

    async def _check(self, collection: str, given: Sequence[tuple[str, Mapping[str, Vector]]]) -> Facts:
        """Return what is known of the collection. SpecError for vectors that do not fit it."""
        facts = await self._known(collection)
        try:
            for owner, vectors in given:
                check_vectors(facts.vectors, owner, vectors)
        except SpecError:
            # Another process may have added the vector since we looked.
            facts = await self._known(collection, fresh=True)
            for owner, vectors in given:
                check_vectors(facts.vectors, owner, vectors)
        return facts

    async def _indexed(self, collection: str, field_name: str, purpose: str) -> Facts:
        facts = await self._known(collection)
        if field_name not in facts.indexes:
            facts = await self._known(collection, fresh=True)
        need_index(facts.indexes, field_name, purpose)
        return facts

    async def _condition(self, collection: str, filter: Filter | None) -> models.Filter | None:
        """Return the condition that holds for exactly the points the filter holds for."""
        compiled = compile_filter(filter)
        if compiled.exact:
            return None if filter is None else compiled.condition
        return _qdrant_filters.ids_only([str(record.id) async for record in self._scan(collection, filter, ())])

    async def _through_arrays(self, collection: str, field_name: str) -> bool:
        """Whether some point has arrays on the way to a field."""
        marks = _qdrant_filters.mark_path(field_name)
        if marks is None:
            return False
        there = models.Filter(must_not=[models.IsEmptyCondition(is_empty=models.PayloadField(key=marks))])
        found = await self._read(
            collection,
            self._client.scroll,
            scroll_filter=there,
            limit=1,
            with_payload=False,
        )
        return bool(found[0])

    async def _scan(
        self,
        collection: str,
        filter: Filter | None,
        only: Iterable[str] | None,
        *,
        after: str | None = None,
        page: int = _PAGE,
        vectors: bool = False,
    ) -> AsyncIterator[Any]:
        """Yield every matching record in id order, from id `after` on; `only` names the fields the caller reads."""
        compiled = compile_filter(filter)
        read = None if only is None else root_paths([*only, *([] if compiled.exact else fields(filter))])
        offset: Any = None if after is None else _token(after)
        while True:
            records, offset = await self._read(
                collection,
                self._client.scroll,
                scroll_filter=compiled.condition,
                limit=page,
                offset=offset,
                with_payload=True if read is None else read or False,
                with_vectors=vectors,
            )
            for record in records:
                if compiled.exact or matches(filter, record.payload or {}):
                    yield record
            if offset is None:
                return

    async def _ordered_page(
        self,
        collection: str,
        filter: Filter | None,
        limit: int,
        after: str | None,
        order_by: tuple[str, str],
        vectors: bool,
    ) -> Page:
        name, direction = order_by
        await self._indexed(collection, name, "an order")
        order = Order(name, direction)
        async for record in self._scan(collection, filter, (name,)):
            order.add(str(record.id), record.payload)
        ids, following = order.page(after, limit)
        return Page(await self._points(collection, ids, vectors), following)

    async def _points(self, collection: str, ids: Sequence[str], vectors: bool) -> list[Point]:
        found: dict[str, Point] = {}
        for part in sliced(ids, _PAGE) if ids else [ids]:
            wanted = [_uuid(id) for id in part]
            records = await self._read(
                collection,
                self._client.retrieve,
                wanted,
                with_payload=True,
                with_vectors=vectors,
            )
            found |= {str(record.id): _point(record) for record in records}
        return [found[id] for id in ids if id in found]


def _state(collection: str, facts: Facts, points: int = 0) -> CollectionState:
    return CollectionState(
        collection,
        dict(facts.vectors),
        dict(facts.indexes),
        points,
        dict(facts.labels),
        physical=facts.physical,
    )


def _request(
    facts: Facts, search: Search, condition: models.Filter | None, limit: int, vectors: bool | list[str]
) -> models.QueryRequest:
    threshold = search.score_threshold
    if threshold is not None and not grows_with_similarity(facts.vectors[search.vector_name]):
        threshold = 1 / threshold - 1 if threshold > 0 else None
    sent: Any = _sent({"query": search.vector})["query"]
    return models.QueryRequest(
        query=models.NearestQuery(nearest=sent),
        using=search.vector_name,
        filter=condition,
        limit=limit,
        score_threshold=threshold,
        with_payload=True,
        with_vector=vectors,
        params=models.SearchParams(exact=True) if search.exact else None,
    )


def _hits(facts: Facts, search: Search, found: Sequence[models.ScoredPoint]) -> list[Hit]:
    """Best first, ties by id, at most as many as asked."""
    similar = grows_with_similarity(facts.vectors[search.vector_name])
    hits = [
        Hit(
            str(one.id),
            one.score if similar else 1 / (1 + abs(one.score)),
            unmarked(one.payload),
            _received(one.vector),
        )
        for one in found
    ]
    hits.sort(key=lambda hit: (-hit.score, hit.id))
    return hits[: search.limit]


def _point(record: Any) -> Point:
    return Point(str(record.id), _received(record.vector), unmarked(record.payload))


def _sent(vectors: Mapping[str, Vector]) -> dict[str, Any]:
    return {
        name: models.SparseVector(indices=list(vector.indices), values=list(vector.values))
        if isinstance(vector, SparseVector)
        else list(vector)
        for name, vector in vectors.items()
    }


def _received(vectors: Any) -> dict[str, Vector]:
    if not isinstance(vectors, dict):
        return {}
    return {
        name: SparseVector(list(vector.indices), list(vector.values))
        if isinstance(vector, models.SparseVector)
        else vector
        for name, vector in vectors.items()
    }


def _uuid(id: str) -> str:
    try:
        return str(uuid.UUID(id))
    except ValueError as error:
        raise SpecError(f"{id!r} cannot identify a point; use a UUID") from error


def _token(after: str) -> str:
    try:
        return str(uuid.UUID(after))
    except ValueError as error:
        raise BadRequestError(f"{after!r} does not continue a scroll") from error
