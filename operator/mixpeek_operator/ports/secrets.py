"""Port: secret values of an organization, for `${{ secrets.NAME }}` and `secret_ref`."""

from __future__ import annotations

from typing import Protocol


class Secrets(Protocol):
    """A value leaves this port only to be used; it is never logged, stored in a spec or put in an error."""

    async def value(self, organization: str, name: str) -> str:
        """Raises NotFoundError naming the secret and how to create it."""
        ...

    async def names(self, organization: str) -> list[str]: ...
