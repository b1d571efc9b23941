"""What an execution came upon while it ran, and what is kept of it therefore depends on: collections, retrievers and
taxonomies that no declaration names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

Mark = Callable[[str, str], Awaitable[str | None]]
"""(kind, identifier) → what would differ if the resource or its documents had changed; None when it is not there."""


class Dependencies:
    """Marks by kind and identifier, taken before anything was read of what they stand for."""

    def __init__(self, mark: Mark) -> None:
        self._mark = mark
        self._marks: dict[str, str] = {}

    async def add(self, kind: str, identifier: str) -> None:
        """Depend on a resource from now on; to be called before it or its documents are read."""
        key = f"{kind}/{identifier}"
        if key not in self._marks:
            mark = await self._mark(kind, identifier) or ""
            # The first of several at once counts: what was read behind it may be older than a later mark.
            self._marks.setdefault(key, mark)

    def snapshot(self) -> dict[str, str]:
        """All marks so far."""
        return dict(self._marks)

    async def hold(self, marks: Mapping[str, str]) -> bool:
        """Whether what was kept with these marks is still what would be made now; they then count from now on."""
        for key, mark in marks.items():
            kind, _, identifier = key.partition("/")
            if not mark or await self._mark(kind, identifier) != mark:
                return False
        for key, mark in marks.items():
            self._marks.setdefault(key, mark)
        return True
