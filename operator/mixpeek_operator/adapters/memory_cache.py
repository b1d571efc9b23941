"""Cache in this process: expiry, and a bound in bytes that the least recently used entries give way to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from mixpeek_operator.core.clock import Clock

_ENTRY_OVERHEAD = 200
"""Bytes a dictionary entry costs besides its key and value; an estimate, so that tiny values count too."""


class MemoryCache:
    """At most `max_bytes` of keys and values; see ports.cache.Cache."""

    def __init__(self, max_bytes: int, clock: Clock) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._bytes = 0

    async def get(self, key: str) -> bytes | None:
        return self._get(key)

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        return [self._get(key) for key in keys]

    async def set(self, key: str, value: bytes, *, ttl_s: float) -> None:
        self._set(key, value, ttl_s)

    async def set_many(self, items: Sequence[tuple[str, bytes]], *, ttl_s: float) -> None:
        for key, value in items:
            self._set(key, value, ttl_s)

    async def delete_prefix(self, prefix: str) -> int:
        doomed = [key for key in self._entries if key.startswith(prefix)]
        for key in doomed:
            self._drop(key)
        return len(doomed)

    async def health(self) -> None:
        return None

    async def close(self) -> None:
        self._entries.clear()
        self._bytes = 0

    def _get(self, key: str) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, until = entry
        if until <= self._clock.monotonic():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return value

    def _set(self, key: str, value: bytes, ttl_s: float) -> None:
        if key in self._entries:
            self._drop(key)
        size = _size(key, value)
        if size > self._max_bytes or ttl_s <= 0:
            return
        self._entries[key] = (value, self._clock.monotonic() + ttl_s)
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: str) -> None:
        value, _ = self._entries.pop(key)
        self._bytes -= _size(key, value)


def _size(key: str, value: bytes) -> int:
    return len(key) + len(value) + _ENTRY_OVERHEAD
