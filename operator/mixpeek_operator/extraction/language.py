"""Language models whose answers are kept: the same request at temperature 0 is asked once an hour."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import asdict, replace
from typing import Any

import orjson
import structlog

from mixpeek_operator.core.errors import MixpeekError
from mixpeek_operator.ports.cache import Cache
from mixpeek_operator.ports.language import Answer, LanguageModels, ModelChoice, Request, ToolCall, Usage

_log = structlog.get_logger(__name__)


class CachedLanguageModels:
    """`ports.language.LanguageModels` in front of another one; an answer that is found costs nothing.

    `ttl_s` is the life of an answer in seconds. Equal requests at the same time are asked once.
    """

    def __init__(self, inner: LanguageModels, cache: Cache, *, ttl_s: float = 3600.0) -> None:
        self._inner = inner
        self._cache = cache
        self._ttl_s = ttl_s
        self._flights: dict[str, asyncio.Task[Answer]] = {}

    def named(self, choice: ModelChoice) -> ModelChoice:
        """See the port."""
        return self._inner.named(choice)

    async def complete(self, request: Request, *, organization: str) -> Answer:
        """See the port."""
        if request.temperature != 0:
            return await self._inner.complete(request, organization=organization)
        asked = replace(request, model=self._inner.named(request.model))
        key = _key(asked, organization)
        flight = self._flights.get(key)
        if flight is None:
            found = await self._find(key)
            if found is not None:
                return found
            flight = self._flights.get(key)
        if flight is not None:
            return replace(await asyncio.shield(flight), usage=Usage())
        flight = asyncio.create_task(self._ask(key, asked, organization), name="language-model")
        self._flights[key] = flight
        flight.add_done_callback(lambda done: self._landed(key, done))
        # Others may wait for the same answer: a caller that gives up must not take them along.
        return await asyncio.shield(flight)

    async def close(self) -> None:
        await asyncio.gather(*self._flights.values(), return_exceptions=True)
        await self._inner.close()

    async def _ask(self, key: str, request: Request, organization: str) -> Answer:
        answer = await self._inner.complete(request, organization=organization)
        try:
            await self._cache.set(key, _encoded(answer), ttl_s=self._ttl_s)
        except MixpeekError as error:
            _log.warning("writing the cache of language models failed", reason=error.message)
        return answer

    def _landed(self, key: str, flight: asyncio.Task[Answer]) -> None:
        self._flights.pop(key, None)
        if not flight.cancelled():
            flight.exception()  # whoever waits is told of it; nobody else needs to be

    async def _find(self, key: str) -> Answer | None:
        try:
            value = await self._cache.get(key)
        except MixpeekError as error:
            _log.warning("reading the cache of language models failed", reason=error.message)
            return None
        return None if value is None else _decoded(value)


def _key(request: Request, organization: str) -> str:
    content = orjson.dumps(asdict(request), option=orjson.OPT_SORT_KEYS, default=str)
    return f"{organization}:language:{hashlib.sha256(content).hexdigest()}"


def _encoded(answer: Answer) -> bytes:
    return orjson.dumps(asdict(replace(answer, usage=Usage())))


def _decoded(value: bytes) -> Answer:
    found: dict[str, Any] = orjson.loads(value)
    calls = tuple(ToolCall(**call) for call in found["calls"])
    return Answer(**{**found, "calls": calls, "usage": Usage()})
