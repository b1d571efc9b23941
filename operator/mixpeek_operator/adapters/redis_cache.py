"""Cache in Redis, for several processes to share. While Redis is away or slow, reads miss and writes are dropped.

The guard sits here and not with the callers, because every call behaves alike: a call waits `timeout_s` at most, and
after a failure Redis is left alone for a moment, so that a dead one costs a search nothing.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from mixpeek_operator.core.errors import SpecError, UnavailableError

_CONNECTIONS = 64
_REST_S = 1.0
"""Seconds between attempts while Redis is away."""
_PAGE = 1000
_GLOB = re.compile(r"([\\*?\[\]])")
_FAILURES = (RedisError, OSError, TimeoutError)

_log = structlog.get_logger(__name__)


class RedisCache:
    """Keys under `prefix` of the Redis at `url` (redis://, rediss://, unix://); see ports.cache.Cache.

    `get*` and `set*` never raise. `delete_prefix` raises UnavailableError, for what it should have deleted would be
    found again when Redis returns: its callers reconcile, and try again.
    """

    def __init__(self, url: str, *, prefix: str = "mixpeek:", timeout_s: float = 0.5) -> None:
        self._prefix = prefix
        self._timeout_s = timeout_s
        self._again_at = 0.0
        self._away = False
        try:
            parts = urlsplit(url)
            self._place = f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=_CONNECTIONS,
                timeout=timeout_s,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                # The first use of a pooled connection after a restart fails at once; once more with a new one.
                retry=Retry(NoBackoff(), 1),
            )
        except ValueError as error:
            # Not chained: the text of the cause may hold the URL with its password.
            raise SpecError(
                f"the URL of Redis does not parse ({type(error).__name__}); write redis://host:6379/0"
            ) from None
        self._redis = Redis.from_pool(pool)

    async def get(self, key: str) -> bytes | None:
        (value,) = await self.get_many([key])
        return value

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        if not keys:
            return []
        names = [self._prefix + key for key in keys]
        found: list[bytes | None] | None = await self._attempt(lambda: self._redis.mget(names))
        return found or [None] * len(keys)

    async def set(self, key: str, value: bytes, *, ttl_s: float) -> None:
        await self.set_many([(key, value)], ttl_s=ttl_s)

    async def set_many(self, items: Sequence[tuple[str, bytes]], *, ttl_s: float) -> None:
        if not items:
            return
        pipeline = self._redis.pipeline(transaction=False)
        for key, value in items:
            if ttl_s > 0:
                pipeline.set(self._prefix + key, value, px=max(1, int(ttl_s * 1000)))
            else:
                pipeline.unlink(self._prefix + key)
        await self._attempt(pipeline.execute)

    async def delete_prefix(self, prefix: str) -> int:
        pattern = _GLOB.sub(r"\\\1", self._prefix + prefix) + "*"
        deleted, cursor = 0, 0
        try:
            while True:
                cursor, names = await self._redis.scan(cursor, match=pattern, count=_PAGE)
                if names:
                    deleted += int(await self._redis.unlink(*names))
                if cursor == 0:
                    return deleted
        except _FAILURES as error:
            raise self._unavailable(error) from error

    async def health(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._redis.ping()
        except _FAILURES as error:
            raise self._unavailable(error) from error

    async def close(self) -> None:
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    async def _attempt(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Return what Redis answers, None when it does not."""
        now = time.monotonic()
        if self._away:
            if now < self._again_at:
                return None
            # One call tries; those beside it do not wait for a Redis that may still be away.
            self._again_at = now + self._timeout_s + _REST_S
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await call()
        except _FAILURES as error:
            if not self._away:
                _log.warning("cache_away", host=self._place, reason=_reason(error))
            self._away, self._again_at = True, time.monotonic() + _REST_S
            return None
        if self._away:
            _log.info("cache_back", host=self._place)
            self._away = False
        return answer

    def _unavailable(self, error: Exception) -> UnavailableError:
        return UnavailableError(f"Redis at {self._place} does not serve: {_reason(error)}")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
