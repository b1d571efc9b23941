"""Port: where documents and their vectors live. One vector collection per Mixpeek namespace.

Every adapter passes `tests/contract/vectors`. Payloads are plain JSON objects; point ids are UUID strings.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mixpeek_operator.core.errors import UnavailableError
from mixpeek_operator.core.filters import Filter


@dataclass(frozen=True, slots=True)
class SparseVector:
    """Non-zero entries of a sparse vector; indices are unique."""

    indices: Sequence[int]
    values: Sequence[float]


Vector = Sequence[float] | SparseVector


@dataclass(frozen=True, slots=True)
class VectorParams:
    """A named vector; `size` is None for sparse ones."""

    kind: str
    """`dense` or `sparse`."""
    size: int | None = None
    distance: str = "cosine"
    modifier: str | None = None
    """`idf` or None; sparse only."""


@dataclass(frozen=True, slots=True)
class CollectionState:
    """What is really there."""

    name: str
    vectors: Mapping[str, VectorParams]
    payload_indexes: Mapping[str, str]
    """Field → keyword | integer | float | bool | datetime | text | geo | uuid."""
    points: int
    labels: Mapping[str, str] = field(default_factory=dict)
    """Owner marks written at creation (organization, namespace id)."""
    physical: str | None = None
    """What the store itself calls it, where that is another name."""


@dataclass(frozen=True, slots=True)
class Point:
    """A document as stored."""

    id: str
    vectors: Mapping[str, Vector]
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Hit:
    """A point found by a query; similarity falls with rank for a single search."""

    id: str
    score: float
    payload: Mapping[str, Any]
    vectors: Mapping[str, Vector] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Search:
    """One nearest-neighbour search on one named vector."""

    vector_name: str
    vector: Vector
    limit: int
    filter: Filter | None = None
    score_threshold: float | None = None
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a scroll; `next` continues it, None on the last page."""

    points: Sequence[Point]
    next: str | None


class VectorStore(Protocol):
    """Vector collections. Raises NotFoundError for an unknown collection, SpecError for a vector of the wrong
    size or an unknown vector name, UnavailableError when the store is away."""

    async def describe(self, collection: str, *, max_age_s: float = 0.0) -> CollectionState | None:
        """The collection as it is, None when it does not exist.

        With `max_age_s` one without points may be told as it was so many seconds ago.
        """
        ...

    async def list_collections(self) -> list[str]: ...

    async def create_collection(
        self, collection: str, vectors: Mapping[str, VectorParams], *, labels: Mapping[str, str]
    ) -> None:
        """Create it; no error when it exists with the same vectors, ConflictError when they differ."""
        ...

    async def delete_collection(self, collection: str) -> None:
        """Delete it and its points; no error when it does not exist."""
        ...

    async def add_vector(self, collection: str, name: str, params: VectorParams) -> None:
        """Add a named vector to a live collection; no error when it exists with the same parameters."""
        ...

    async def delete_vector(self, collection: str, name: str) -> None: ...

    async def create_payload_index(self, collection: str, field_name: str, type: str) -> None: ...

    async def delete_payload_index(self, collection: str, field_name: str) -> None: ...

    async def upsert(self, collection: str, points: Sequence[Point]) -> None:
        """Write points, whole; visible to every later call, durable before it returns."""
        ...

    async def set_payload(self, collection: str, ids: Sequence[str], payload: Mapping[str, Any]) -> None:
        """Merge top-level keys into the payload of existing points."""
        ...

    async def delete_points(self, collection: str, ids: Sequence[str]) -> None: ...

    async def delete_by_filter(self, collection: str, filter: Filter) -> None: ...

    async def get(self, collection: str, ids: Sequence[str], *, with_vectors: bool = False) -> list[Point]:
        """The points that exist, in the order asked."""
        ...

    async def search(
        self, collection: str, searches: Sequence[Search], *, with_vectors: bool | Sequence[str] = False
    ) -> list[list[Hit]]:
        """Run searches in one round trip; one list of hits per search, best first, ties by id."""
        ...

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
        """Points in id order, or by (field, asc|desc) when the field is indexed."""
        ...

    async def count(self, collection: str, filter: Filter | None = None) -> int: ...

    async def facet(
        self, collection: str, field_name: str, *, filter: Filter | None = None, limit: int = 10
    ) -> list[tuple[Any, int]]:
        """Values of an indexed field with their counts, most frequent first, ties by value."""
        ...

    def can_push_down(self, filter: Filter) -> bool:
        """Whether `filter` is evaluated by the store with exactly the meaning of `core.filters`."""
        ...

    async def snapshot(self, collection: str, target: Path) -> None:
        """Write a snapshot file to `target`."""
        ...

    async def restore(self, collection: str, source: Path) -> None:
        """Replace the collection by a snapshot."""
        ...

    async def health(self) -> None:
        """Return when the store answers, raise UnavailableError otherwise."""
        ...

    async def close(self) -> None: ...


def not_provisioned(namespace: str) -> UnavailableError:
    """Return what a call gets that needs the vector collection of a namespace before it exists."""
    return UnavailableError(
        f"the vectors of namespace {namespace!r} are not provisioned yet; wait until it is Ready and try again",
        code="namespace_not_ready",
    )


async def scroll_all(
    store: VectorStore, collection: str, *, filter: Filter | None = None, with_vectors: bool = False
) -> AsyncIterator[Point]:
    """Yield every matching point in id order, holding one page in memory."""
    after: str | None = None
    while True:
        page = await store.scroll(collection, filter=filter, limit=256, after=after, with_vectors=with_vectors)
        for point in page.points:
            yield point
        if page.next is None:
            return
        after = page.next
