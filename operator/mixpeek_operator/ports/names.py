"""Port: what an organization has of one sort, by name alone."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol


class Names(Protocol):
    """Its secrets, or its connections."""

    async def names(self, organization: str) -> Collection[str]:
        """Return every name that a stage can use. UnavailableError where they cannot be read."""
        ...
