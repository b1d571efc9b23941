"""Order of things that depend on each other: deterministic, linear in nodes and edges, a cycle told as its path."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from mixpeek_operator.core.errors import SpecError

N = TypeVar("N", bound=Hashable)

KIND_ORDER = ("Namespace", "Extractor", "Bucket", "Collection", "Retriever", "Cluster", "Taxonomy")
"""Order of kinds where dependencies leave a choice; a kind outside the list comes last."""
_RANK = {kind: rank for rank, kind in enumerate(KIND_ORDER)}


class CycleError(SpecError, Generic[N]):
    """Things that depend on each other in a circle; `path` starts and ends with the same one."""

    default_code = "dependency_cycle"

    def __init__(self, path: Sequence[N]) -> None:
        self.path: tuple[N, ...] = tuple(path)
        super().__init__("dependency cycle: " + " → ".join(_text(item) for item in self.path))


def kind_rank(node: tuple[str, Any]) -> tuple[int, str, str]:
    """Sort key of a node `(kind, name)`: order of kinds, then the name."""
    kind, name = node[0], str(node[1])
    return _RANK.get(kind, len(_RANK)), kind, name


def order(
    dependencies: Mapping[N, Iterable[N]],
    key: Callable[[N], Any] = kind_rank,  # type: ignore[assignment]
) -> list[N]:
    """Return the nodes, each after everything it depends on; of those that may come next the least by `key`.

    Dependencies that are no nodes themselves are passed over. The same graph gives the same order, however its
    mapping is sorted. Raises CycleError with the path that closes.
    """
    waiting, dependents = _counted(dependencies)
    ready = [(key(node), position, node) for position, node in enumerate(waiting) if waiting[node] == 0]
    heapq.heapify(ready)
    result: list[N] = []
    position = len(waiting)
    while ready:
        _rank, _position, node = heapq.heappop(ready)
        result.append(node)
        for dependent in dependents.get(node, ()):
            waiting[dependent] -= 1
            if waiting[dependent] == 0:
                position += 1
                heapq.heappush(ready, (key(dependent), position, dependent))
    if len(result) != len(waiting):
        raise CycleError(min(_cycles(dependencies, _stuck(dependencies), key), key=lambda path: key(path[0])))
    return result


def levels(
    dependencies: Mapping[N, Iterable[N]],
    key: Callable[[N], Any] = kind_rank,  # type: ignore[assignment]
) -> list[list[N]]:
    """Return the nodes in waves: a node's wave comes after the waves of everything it depends on."""
    depth: dict[N, int] = {}
    for node in order(dependencies, key):
        depth[node] = 1 + max((depth[item] for item in dependencies[node] if item in depth), default=-1)
    waves: list[list[N]] = [[] for _ in range(1 + max(depth.values(), default=-1))]
    for node in sorted(depth, key=key):
        waves[depth[node]].append(node)
    return waves


def find_cycles(
    dependencies: Mapping[N, Iterable[N]],
    key: Callable[[N], Any] = kind_rank,  # type: ignore[assignment]
) -> list[tuple[N, ...]]:
    """Return one closed path for each group of nodes that depend on each other, [] when there is none."""
    remaining = dict(dependencies)
    found: list[tuple[N, ...]] = []
    while True:
        stuck = _stuck(remaining)
        if not stuck:
            return sorted(found, key=lambda path: key(path[0]))
        for path in _cycles(remaining, stuck, key):
            found.append(tuple(path))
            for node in path:
                remaining.pop(node, None)


def _counted(dependencies: Mapping[N, Iterable[N]]) -> tuple[dict[N, int], dict[N, list[N]]]:
    waiting: dict[N, int] = {}
    dependents: dict[N, list[N]] = {}
    for node, needs in dependencies.items():
        unique = {item for item in needs if item in dependencies}
        waiting[node] = len(unique)
        for item in unique:
            dependents.setdefault(item, []).append(node)
    return waiting, dependents


def _stuck(dependencies: Mapping[N, Iterable[N]]) -> set[N]:
    """Return the nodes that are on a cycle or depend on one."""
    waiting, dependents = _counted(dependencies)
    ready = [node for node, count in waiting.items() if count == 0]
    while ready:
        for dependent in dependents.get(ready.pop(), ()):
            waiting[dependent] -= 1
            if waiting[dependent] == 0:
                ready.append(dependent)
    return {node for node, count in waiting.items() if count > 0}


def _cycles(dependencies: Mapping[N, Iterable[N]], stuck: set[N], key: Callable[[N], Any]) -> list[list[N]]:
    """Return cycles among the stuck nodes, none sharing a node, each from its least node back to it.

    Each stuck node depends on a stuck node, so that following the least such one must end in a circle.
    """
    follow = {node: min((item for item in dependencies[node] if item in stuck), key=key) for node in stuck}
    visited: set[N] = set()
    found: list[list[N]] = []
    for start in stuck:
        position: dict[N, int] = {}
        path: list[N] = []
        node = start
        while node not in visited:
            visited.add(node)
            position[node] = len(path)
            path.append(node)
            node = follow[node]
        if node in position:
            circle = path[position[node] :]
            first = circle.index(min(circle, key=key))
            circle = circle[first:] + circle[:first]
            found.append([*circle, circle[0]])
    return found


def _text(node: Any) -> str:
    if isinstance(node, tuple) and node and all(isinstance(part, str) for part in node):
        return "/".join(node)
    return str(node)
