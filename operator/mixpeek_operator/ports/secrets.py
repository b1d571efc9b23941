"""Port: secret values of an organization, for `${{ secrets.NAME }}` and `secret_ref`."""

from __future__ import annotations

from typing import Protocol


class Secrets(Protocol):
    """A value leaves this port only to be used; it is never logged, stored in a spec or put in an error."""

    async def value(self, organization: str, name: str) -> str:
        """Raises NotFoundError naming the secret and how to create it."""
        ...

    async def names(self, organization: str) -> list[str]: ...


class SecretStore(Secrets, Protocol):
    """Secrets that the REST API writes as well."""

    async def create(self, organization: str, name: str, value: str) -> None:
        """Raises AlreadyExistsError, and SpecError for a name that no placeholder can hold."""
        ...

    async def update(self, organization: str, name: str, value: str) -> None: ...

    async def delete(self, organization: str, name: str) -> None: ...
