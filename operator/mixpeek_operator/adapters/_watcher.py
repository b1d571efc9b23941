"""What one subscriber of a watch has not read yet."""

from __future__ import annotations

import asyncio

from mixpeek_operator.core.resource import ResourceKey
from mixpeek_operator.ports.resources import Change


class Watcher:
    """The newest state per resource that is still unread, so memory stays bounded."""

    def __init__(self, organization: str | None) -> None:
        self._organization = organization
        self._pending: dict[ResourceKey, Change] = {}
        self._some = asyncio.Event()

    def put(self, change: Change) -> None:
        """Take in one change; the reader gets the latest of each resource."""
        key = change.resource.key
        if self._organization not in (None, key.organization):
            return
        before = self._pending.pop(key, None)
        # A DELETED stays: the reader never saw this one, but may have seen an earlier one of that name.
        if before is not None and before.type == "ADDED" and change.type != "DELETED":
            change = Change("ADDED", change.resource)
        self._pending[key] = change
        self._some.set()

    async def next(self) -> Change:
        """Return the change that waited longest."""
        while not self._pending:
            self._some.clear()
            await self._some.wait()
        return self._pending.pop(next(iter(self._pending)))
