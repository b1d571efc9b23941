"""Port: a cache of bytes with expiry. Keys begin with the namespace id. Losing it loses no data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Cache(Protocol):
    """Every adapter passes `tests/contract/cache`."""

    async def get(self, key: str) -> bytes | None: ...

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]: ...

    async def set(self, key: str, value: bytes, *, ttl_s: float) -> None: ...

    async def set_many(self, items: Sequence[tuple[str, bytes]], *, ttl_s: float) -> None: ...

    async def delete_prefix(self, prefix: str) -> int: ...

    async def health(self) -> None: ...

    async def close(self) -> None: ...
