"""Finding documents: searches and scans with any filter, whatever part of it the store can evaluate.

A filter is cut at its top-level conjunction. What the store evaluates exactly is pushed down; the rest is evaluated
here, fetching more until enough documents pass or there are no more. Both ways mean the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mixpeek_operator.core.filters import And, Filter, all_of, equals, matches, one_of
from mixpeek_operator.ports.vectors import Hit, Search, Vector, VectorStore

MAX_CANDIDATES: Final = 100_000
"""Documents one search looks at when its filter has to be evaluated here."""
MAX_SCAN: Final = 10_000
"""Documents a pipeline without a search starts from."""


@dataclass(frozen=True, slots=True)
class Job:
    """One search: the best `want` documents that pass `filter`."""

    vector_name: str
    vector: Vector
    want: int
    filter: Filter | None
    min_score: float | None = None


def in_collections(ids: Sequence[str]) -> Filter:
    """Return the filter that keeps a search inside collections; every search has one."""
    return equals("collection_id", ids[0]) if len(ids) == 1 else one_of("collection_id", list(ids))


def divide(store: VectorStore, filter: Filter | None) -> tuple[Filter | None, Filter | None]:
    """Return (what the store evaluates, what is left to evaluate here)."""
    if filter is None or store.can_push_down(filter):
        return filter, None
    parts = _conjuncts(filter)
    pushed = [part for part in parts if store.can_push_down(part)]
    rest = [part for part in parts if not store.can_push_down(part)]
    return all_of(*pushed), all_of(*rest)


async def search(store: VectorStore, collection: str, jobs: Sequence[Job]) -> list[list[Hit]]:
    """Run all jobs in one round trip, further ones only for those whose rest of a filter left too few."""
    divided = [divide(store, job.filter) for job in jobs]
    limits = [job.want if rest is None else max(64, 4 * job.want) for job, (_, rest) in zip(jobs, divided, strict=True)]
    found: list[list[Hit]] = [[] for _ in jobs]
    pending = list(range(len(jobs)))
    while pending:
        answers = await store.search(
            collection,
            [
                Search(jobs[i].vector_name, jobs[i].vector, limits[i], divided[i][0], _below(jobs[i].min_score))
                for i in pending
            ],
        )
        again = []
        for index, hits in zip(pending, answers, strict=True):
            rest, least = divided[index][1], jobs[index].min_score
            full = len(hits) == limits[index]
            if least is not None:
                # Stores compare single-precision scores, some strictly: the border itself belongs to the result.
                hits = [hit for hit in hits if hit.score >= least]
                full = full and len(hits) == limits[index]
            if rest is None:
                found[index] = hits
                continue
            passing = [hit for hit in hits if matches(rest, hit.payload)]
            found[index] = passing[: jobs[index].want]
            if len(passing) < jobs[index].want and full and limits[index] < MAX_CANDIDATES:
                limits[index] = min(MAX_CANDIDATES, limits[index] * 8)
                again.append(index)
        pending = again
    return found


async def scan(store: VectorStore, collection: str, filter: Filter, *, limit: int) -> tuple[list[dict[str, Any]], bool]:
    """Return the first `limit` documents that pass, in id order, and whether there are more."""
    pushed, rest = divide(store, filter)
    documents: list[dict[str, Any]] = []
    after: str | None = None
    while True:
        page = await store.scroll(
            collection, filter=pushed, limit=min(1000, max(64, limit + 1 - len(documents))), after=after
        )
        for point in page.points:
            if rest is None or matches(rest, point.payload):
                if len(documents) == limit:
                    return documents, True
                documents.append(document(point.payload))
        if page.next is None:
            return documents, False
        after = page.next


async def count(store: VectorStore, collection: str, filter: Filter) -> int:
    """Return how many documents pass."""
    pushed, rest = divide(store, filter)
    if rest is None:
        return await store.count(collection, pushed)
    documents, _ = await scan(store, collection, filter, limit=MAX_CANDIDATES)
    return len(documents)


def document(payload: Mapping[str, Any], score: float | None = None) -> dict[str, Any]:
    """Return the document of a stored payload, with its score when a search found it."""
    found = dict(payload)
    if score is not None:
        found["score"] = score
    return found


def _below(score: float | None) -> float | None:
    return None if score is None else score - 1e-5


def _conjuncts(filter: Filter) -> list[Filter]:
    if isinstance(filter, And):
        return [leaf for part in filter.parts for leaf in _conjuncts(part)]
    return [filter]
