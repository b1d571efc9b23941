"""The order in which collections are fed. Pure and deterministic: same collections, same plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mixpeek_operator.core.directory import CollectionInfo
from mixpeek_operator.core.errors import ConflictError


@dataclass(frozen=True, slots=True)
class Step:
    """One collection to feed: from the root sources, or from collections that an earlier step fed."""

    tier: int
    collection_id: str
    sources: tuple[str, ...]
    """Ids of collections that an earlier step fed."""
    reads_root: bool
    """Whether it reads the root itself: the bucket's objects, or the root collection's documents."""


def plan(collections: Iterable[CollectionInfo], *, root: str, only: Sequence[str] = ()) -> list[list[Step]]:
    """Return the tiers that the root reaches, each sorted by collection id.

    `root` is the id of a bucket, or of a collection whose documents are processed again downstream. `only`
    keeps those collections and whatever they need upstream; [] keeps all. Disabled collections, and what
    only they feed, are left out. Raises ConflictError for a cycle, naming it.
    """
    enabled = {item.id: item for item in collections if item.enabled}
    upstream = {id: [source for source in item.source_ids if source in enabled] for id, item in enabled.items()}
    tiers: dict[str, int] = {}
    reachable = {id for id, item in enabled.items() if root in item.source_ids and id != root}
    waiting = set(reachable)
    while waiting:
        waiting = {
            id for id, sources in upstream.items() if id not in reachable and id != root and reachable & set(sources)
        }
        reachable |= waiting
    pending = set(reachable)
    while pending:
        ready = {id for id in pending if not (set(upstream[id]) & pending)}
        if not ready:
            raise ConflictError(f"collections feed each other in a cycle: {', '.join(sorted(pending))}")
        for id in ready:
            before = [tiers[source] for source in upstream[id] if source in tiers]
            tiers[id] = max(before) + 1 if before else 0
        pending -= ready
    wanted = _needed(set(only) & reachable, upstream, reachable) if only else reachable
    depth = max((tiers[id] for id in wanted), default=-1) + 1
    return [
        [
            Step(
                tier,
                id,
                tuple(sorted(source for source in upstream[id] if source in reachable)),
                root in enabled[id].source_ids,
            )
            for id in sorted(wanted)
            if tiers[id] == tier
        ]
        for tier in range(depth)
    ]


def _needed(wanted: set[str], upstream: dict[str, list[str]], reachable: set[str]) -> set[str]:
    found = set(wanted)
    stack = list(wanted)
    while stack:
        for source in upstream[stack.pop()]:
            if source in reachable and source not in found:
                found.add(source)
                stack.append(source)
    return found
