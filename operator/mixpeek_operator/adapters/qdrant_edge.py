"""VectorStore on Qdrant Edge: Qdrant's engine inside our process, one shard per collection.

Edge's calls hold the interpreter lock from start to end, so a thread would add its hand-over and win nothing:
calls run where they are made, and long writes are cut into slices between which other tasks run. Searches scan
exactly (about 2 ms for 20,000 × 384 unfiltered, less with a filter on an indexed field); no HNSW graph is built, as
building one would stop the process for seconds. That is the cluster's business, with the Qdrant server.

A write is in the shard's write-ahead log before the call returns and survives the death of the process. Every
filter is accepted: what Edge cannot decide exactly is narrowed there and decided by `core.filters`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from mixpeek_operator.adapters import _edge_filters, _edge_reads, _edge_shard
from mixpeek_operator.adapters._edge_shard import Shard, translate
from mixpeek_operator.adapters._vector_rules import (
    check_name,
    check_params,
    check_vectors,
    index_path,
    is_name,
    listed,
    need_index,
    object_arrays,
    rank,
    scalars,
    sliced,
)
from mixpeek_operator.core.errors import ConflictError, NotFoundError, UnavailableError
from mixpeek_operator.core.filters import Filter
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

_SLICE = 64
"""Points of one write to the shard: about 5 ms."""
_PAGE = 1000
_TIES = 10_000
_FLUSH_AFTER = 5000
"""Writes after which the log is folded into the segments, which bounds the time of the next start."""


class QdrantEdgeVectors:
    """Vector collections below `path`; see ports.vectors.VectorStore. One process at a time (see DataLock)."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        _edge_shard.sweep(path)
        self._root = path
        self._open: dict[str, Shard] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._unflushed: Counter[str] = Counter()

    async def describe(self, collection: str, *, max_age_s: float = 0.0) -> CollectionState | None:
        if not _edge_shard.exists(self._directory(collection)):
            return None
        shard = self._shard(collection)
        return CollectionState(
            collection,
            dict(shard.meta.vectors),
            dict(shard.meta.indexes),
            shard.edge.count(edge.CountRequest(exact=True)),
            dict(shard.meta.labels),
        )

    async def list_collections(self) -> list[str]:
        return sorted(found.name for found in self._root.iterdir() if is_name(found.name) and _edge_shard.exists(found))

    async def create_collection(
        self, collection: str, vectors: Mapping[str, VectorParams], *, labels: Mapping[str, str]
    ) -> None:
        directory = self._directory(collection)
        for name, params in vectors.items():
            check_params(name, params)
        async with self._lock(collection):
            if _edge_shard.exists(directory):
                found = self._shard(collection).meta.vectors
                if found != dict(vectors):
                    raise ConflictError(
                        f"collection {collection!r} exists with the vectors {listed(found)}, not {listed(vectors)}"
                    )
                return
            self._open[collection] = Shard.create(directory, vectors, labels)

    async def delete_collection(self, collection: str) -> None:
        directory = self._directory(collection)
        async with self._lock(collection):
            shard = self._open.pop(collection, None)
            if shard is not None:
                shard.close()
            await asyncio.to_thread(_edge_shard.drop, directory)

    async def add_vector(self, collection: str, name: str, params: VectorParams) -> None:
        async with self._lock(collection):
            shard = self._shard(collection)
            found = shard.meta.vectors.get(name)
            if found is not None and found != params:
                raise ConflictError(f"collection {collection!r} has another vector {name!r}: {found}, not {params}")
            if found is None:
                shard.add_vector(name, params)

    async def delete_vector(self, collection: str, name: str) -> None:
        async with self._lock(collection):
            shard = self._shard(collection)
            if name in shard.meta.vectors:
                shard.delete_vector(name)

    async def create_payload_index(self, collection: str, field_name: str, type: str) -> None:
        async with self._lock(collection):
            shard = self._shard(collection)
            if shard.meta.indexes.get(field_name) != type:
                if field_name in shard.meta.indexes:
                    shard.delete_index(field_name, index_path(field_name))
                shard.create_index(field_name, index_path(field_name), type)

    async def delete_payload_index(self, collection: str, field_name: str) -> None:
        async with self._lock(collection):
            shard = self._shard(collection)
            if field_name in shard.meta.indexes:
                shard.delete_index(field_name, index_path(field_name))

    async def upsert(self, collection: str, points: Sequence[Point]) -> None:
        async with self._lock(collection):
            shard = self._shard(collection)
            for point in points:
                check_vectors(shard.meta.vectors, point.id, point.vectors)
            arrays: set[str] = set()
            for point in points:
                arrays |= object_arrays(point.payload)
            shard.learn_arrays(arrays)
            for part in sliced(points, _SLICE):
                try:
                    made = [edge.Point(one.id, _written(one.vectors), dict(one.payload)) for one in part]
                except Exception as error:
                    raise translate(error) from error
                shard.learn_values([one.payload for one in part], whole=True)
                shard.update(edge.UpdateOperation.upsert_points(made))
                await asyncio.sleep(0)
            self._wrote(collection, shard, len(points))

    async def set_payload(self, collection: str, ids: Sequence[str], payload: Mapping[str, Any]) -> None:
        async with self._lock(collection):
            shard = self._shard(collection)
            shard.learn_arrays(object_arrays(dict(payload)))
            for part in sliced(ids, _PAGE):
                present = [record.id for record in _edge_reads.retrieve(shard, part, payload=False)]
                if present:
                    shard.learn_values([payload], whole=False)
                    shard.update(edge.UpdateOperation.set_payload(present, dict(payload)))
                await asyncio.sleep(0)
            self._wrote(collection, shard, len(ids))

    async def delete_points(self, collection: str, ids: Sequence[str]) -> None:
        async with self._lock(collection):
            shard = self._shard(collection)
            await self._delete(collection, shard, ids)

    async def delete_by_filter(self, collection: str, filter: Filter) -> None:
        async with self._lock(collection):
            shard = self._shard(collection)
            compiled = _edge_filters.compile_filter(filter, shard.meta.arrays)
            if compiled.exact:
                shard.update(edge.UpdateOperation.delete_points_by_filter(compiled.condition))
                self._wrote(collection, shard, _PAGE)
            else:
                await self._delete(
                    collection, shard, [str(record.id) for record in _edge_reads.scan(shard, filter, only=())]
                )

    async def get(self, collection: str, ids: Sequence[str], *, with_vectors: bool = False) -> list[Point]:
        shard = self._shard(collection)
        found = {str(record.id): record for record in _edge_reads.retrieve(shard, ids, vectors=with_vectors)}
        return [_edge_reads.point(shard, found[id]) for id in ids if id in found]

    async def search(
        self, collection: str, searches: Sequence[Search], *, with_vectors: bool | Sequence[str] = False
    ) -> list[list[Hit]]:
        shard = self._shard(collection)
        vectors = with_vectors if isinstance(with_vectors, bool) else list(with_vectors)
        for search in searches:
            check_vectors(shard.meta.vectors, "query", {search.vector_name: search.vector})
        conditions: dict[int, Any] = {}
        requests: list[Any] = []
        asked: list[int] = []
        for index, search in enumerate(searches):
            if search.limit < 1 or (isinstance(search.vector, SparseVector) and not search.vector.indices):
                continue
            key = id(search.filter)
            if key not in conditions:
                conditions[key] = None if search.filter is None else _edge_reads.condition(shard, search.filter)
            # One more than asked for shows whether equal scores stand on both sides of the limit.
            requests.append(_edge_reads.request(shard, search, conditions[key], search.limit + 1, vectors))
            asked.append(index)
        results: list[list[Hit]] = [[] for _ in searches]
        try:
            answers = shard.edge.query_batch(edge.QueryBatchRequest(requests)) if requests else []
            for index, request, answer in zip(asked, requests, answers, strict=True):
                search = searches[index]
                if len(answer) > search.limit and answer[-1].score == answer[-2].score:
                    many = search.limit + _TIES
                    request = _edge_reads.request(shard, search, conditions[id(search.filter)], many, vectors)
                    answer = shard.edge.query_batch(edge.QueryBatchRequest([request]))[0]
                results[index] = _edge_reads.hits(shard, search, answer)
        except Exception as error:
            raise translate(error) from error
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
        shard = self._shard(collection)
        if order_by is not None:
            return _edge_reads.ordered_page(shard, filter, limit, after, order_by, with_vectors)
        found: list[Point] = []
        for record in _edge_reads.scan(shard, filter, after=after, page=limit + 1, vectors=with_vectors):
            if len(found) == limit:
                return Page(found, str(record.id))
            found.append(_edge_reads.point(shard, record))
        return Page(found, None)

    async def count(self, collection: str, filter: Filter | None = None) -> int:
        shard = self._shard(collection)
        compiled = _edge_filters.compile_filter(filter, shard.meta.arrays)
        if not compiled.exact:
            return sum(1 for _ in _edge_reads.scan(shard, filter, only=()))
        try:
            return int(shard.edge.count(edge.CountRequest(exact=True, filter=compiled.condition)))
        except Exception as error:
            raise translate(error) from error

    async def facet(
        self, collection: str, field_name: str, *, filter: Filter | None = None, limit: int = 10
    ) -> list[tuple[Any, int]]:
        shard = self._shard(collection)
        kind = need_index(shard.meta.indexes, field_name, "a facet")
        compiled = _edge_filters.compile_filter(filter, shard.meta.arrays)
        paths = _edge_filters.edge_paths(field_name, shard.meta.arrays)
        if compiled.exact and kind in ("keyword", "uuid", "bool") and paths == [index_path(field_name)]:
            # All values are counted, as those that share the last place are told apart by value.
            request = edge.FacetRequest(paths[0], limit=1_000_000, exact=True, filter=compiled.condition)
            try:
                counted = [(hit.value, hit.count) for hit in shard.edge.facet(request)]
            except Exception as error:
                raise translate(error) from error
        else:
            counts: Counter[Any] = Counter()
            for record in _edge_reads.scan(shard, filter, only=(field_name,)):
                counts.update(scalars(record.payload, field_name))
            counted = [(value, count) for (_, value), count in counts.items()]
        counted.sort(key=lambda entry: (-entry[1], rank(entry[0])))
        return counted[:limit]

    def can_push_down(self, filter: Filter) -> bool:
        return _edge_filters.is_exact(filter)

    async def snapshot(self, collection: str, target: Path) -> None:
        async with self._lock(collection):
            await asyncio.to_thread(self._shard(collection).snapshot, target)

    async def restore(self, collection: str, source: Path) -> None:
        directory = self._directory(collection)
        async with self._lock(collection):
            await asyncio.to_thread(_edge_shard.restore, directory, source)
            before = self._open.pop(collection, None)
            if before is not None:
                before.close()
            self._shard(collection)

    async def health(self) -> None:
        try:
            next(self._root.iterdir(), None)
        except OSError as error:
            raise UnavailableError(f"the vector store's directory cannot be read: {error.strerror}") from error

    async def close(self) -> None:
        for name in list(self._open):
            async with self._lock(name):
                self._open.pop(name).close()

    async def _delete(self, collection: str, shard: Shard, ids: Sequence[str]) -> None:
        for part in sliced(ids, _PAGE):
            shard.update(edge.UpdateOperation.delete_points(list(part)))
            await asyncio.sleep(0)
        self._wrote(collection, shard, len(ids))

    def _wrote(self, collection: str, shard: Shard, count: int) -> None:
        self._unflushed[collection] += count
        if self._unflushed[collection] >= _FLUSH_AFTER:
            shard.flush()
            del self._unflushed[collection]

    def _lock(self, collection: str) -> asyncio.Lock:
        return self._locks.setdefault(collection, asyncio.Lock())

    def _directory(self, collection: str) -> Path:
        return self._root / check_name(collection)

    def _shard(self, collection: str) -> Shard:
        shard = self._open.get(collection)
        if shard is None:
            directory = self._directory(collection)
            if not _edge_shard.exists(directory):
                raise NotFoundError(f"there is no vector collection {collection!r}")
            shard = self._open[collection] = Shard.load(directory)
        return shard


def _written(vectors: Mapping[str, Vector]) -> dict[str, Any]:
    return {
        name: edge.SparseVector(list(vector.indices), list(vector.values))
        if isinstance(vector, SparseVector)
        else list(vector)
        for name, vector in vectors.items()
    }
