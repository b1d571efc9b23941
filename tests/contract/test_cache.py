"""What every Cache does; an adapter joins with one line in `CACHES`."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.servers import stores
from tests.servers.process import Program

from mixpeek_operator.adapters.memory_cache import MemoryCache
from mixpeek_operator.adapters.redis_cache import RedisCache
from mixpeek_operator.core.errors import SpecError, UnavailableError
from mixpeek_operator.ports.cache import Cache


class HandClock:
    """Time that moves only when told."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if given := os.environ.get("REDIS_URL"):
        yield given
        return
    with stores.redis(tmp_path_factory.mktemp("redis")) as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@pytest.fixture(params=["memory", "redis"])
async def cache(request: pytest.FixtureRequest, clock: HandClock) -> AsyncIterator[Cache]:
    if request.param == "memory":
        made: Cache = MemoryCache(10_000, clock)
    else:
        url = request.getfixturevalue("redis_url")
        made = RedisCache(url, prefix=f"test-{uuid.uuid4().hex}:[*]?\\", timeout_s=20)
    yield made
    await made.delete_prefix("")
    await made.close()


async def test_a_value_lives_until_it_is_replaced(cache: Cache) -> None:
    assert await cache.get("ns/a") is None
    await cache.set("ns/a", b"\x00\xff", ttl_s=60)
    assert await cache.get("ns/a") == b"\x00\xff"
    await cache.set("ns/a", b"2", ttl_s=60)
    assert await cache.get("ns/a") == b"2"
    await cache.set("ns/a", b"3", ttl_s=0)
    assert await cache.get("ns/a") is None


async def test_memory_expires(clock: HandClock) -> None:
    cache = MemoryCache(10_000, clock)
    await cache.set("ns/a", b"1", ttl_s=10)
    clock.seconds = 5
    await cache.set("ns/b", b"2", ttl_s=10)
    clock.seconds = 9.9
    assert await cache.get("ns/a") == b"1"
    clock.seconds = 10
    assert await cache.get_many(["ns/a", "ns/b"]) == [None, b"2"]


async def test_many_at_once_in_the_order_asked(cache: Cache) -> None:
    await cache.set_many([("ns/a", b"1"), ("ns/b", b"")], ttl_s=10)
    assert await cache.get_many(["ns/b", "ns/x", "ns/a"]) == [b"", None, b"1"]
    assert await cache.get_many([]) == []


async def test_delete_prefix_takes_nothing_else(cache: Cache) -> None:
    await cache.set_many([("ns_1/a", b"1"), ("ns_1/b", b"2"), ("ns_10/a", b"3"), ("x/ns_1/", b"4")], ttl_s=10)
    assert await cache.delete_prefix("ns_1/") == 2
    assert await cache.delete_prefix("ns_1/") == 0
    assert await cache.get_many(["ns_1/a", "ns_10/a", "x/ns_1/"]) == [None, b"3", b"4"]
    await cache.health()


async def test_memory_gives_way_to_the_least_recently_used(clock: HandClock) -> None:
    cache = MemoryCache(3_000, clock)
    for name in "abc":
        await cache.set(name, b"x" * 700, ttl_s=99)
    assert await cache.get("a") is not None
    await cache.set("d", b"x" * 700, ttl_s=99)
    assert [await cache.get(name) is not None for name in "abcd"] == [True, False, True, True]
    await cache.set("huge", b"x" * 9_999, ttl_s=99)
    assert await cache.get("huge") is None
    assert await cache.get("a") is not None


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 1500), st.integers(-1, 5)), max_size=40))
async def test_memory_stays_within_its_bound(writes: list[tuple[str, int, int]]) -> None:
    clock = HandClock()
    cache = MemoryCache(4_000, clock)
    for key, size, ttl in writes:
        await cache.set(key, b"x" * size, ttl_s=ttl)
        clock.seconds += 1
        assert sum(len(value) for value in await cache.get_many(list("abcdef")) if value is not None) <= 4_000
        assert (await cache.get(key) is not None) == (ttl > 1 and size < 3_000)
    assert await cache.delete_prefix("") <= 6


# Redis' own.


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Program]:
    with stores.redis(tmp_path / "redis") as started:
        yield started


async def eventually(cache: Cache, *, within_s: float = 30) -> None:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        await cache.set("ns/back", b"1", ttl_s=60)
        if await cache.get("ns/back") == b"1":
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the cache did not come back")


async def test_redis_expires(redis_url: str) -> None:
    cache = RedisCache(redis_url, prefix=f"test-{uuid.uuid4().hex}:", timeout_s=20)
    await cache.set("ns/a", b"1", ttl_s=0.2)
    await cache.set("ns/b", b"2", ttl_s=60)
    await asyncio.sleep(0.4)
    assert await cache.get_many(["ns/a", "ns/b"]) == [None, b"2"]
    await cache.delete_prefix("")
    await cache.close()


async def test_two_prefixes_do_not_meet(redis_url: str) -> None:
    one, two = (RedisCache(redis_url, prefix=f"{uuid.uuid4().hex}:", timeout_s=20) for _ in range(2))
    await one.set("k", b"1", ttl_s=60)
    await two.set("k", b"2", ttl_s=60)
    assert await one.delete_prefix("") == 1
    assert await two.get("k") == b"2"
    assert await two.delete_prefix("k") == 1
    await one.close()
    await two.close()


async def test_a_redis_that_is_killed_misses_and_comes_back(server: Program) -> None:
    cache = RedisCache(f"redis://127.0.0.1:{server.port}", timeout_s=5)
    await cache.set("ns/a", b"1", ttl_s=60)
    server.kill()
    for _ in range(3):
        assert await cache.get_many(["ns/a", "ns/b"]) == [None, None]
        await cache.set("ns/a", b"2", ttl_s=60)
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1"):
        await cache.health()
    with pytest.raises(UnavailableError):
        await cache.delete_prefix("ns/")
    server.start()
    await eventually(cache)
    await cache.health()
    await cache.close()


async def test_a_redis_that_hangs_is_waited_for_once(server: Program) -> None:
    cache = RedisCache(f"redis://127.0.0.1:{server.port}", timeout_s=0.5)
    await eventually(cache)
    server.pause()
    try:
        assert await cache.get("ns/back") is None
        asked = 0

        async def count(*_: Any) -> None:
            nonlocal asked
            asked += 1

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cache._redis, "mget", count)
            assert [await cache.get("ns/back") for _ in range(50)] == [None] * 50
        assert asked == 0
        with pytest.raises(UnavailableError):
            await cache.health()
    finally:
        server.resume()
    await eventually(cache)
    await cache.close()


async def test_no_message_holds_the_password() -> None:
    cache = RedisCache("redis://user:hunter2@127.0.0.1:1/0")
    with pytest.raises(UnavailableError) as caught:
        await cache.health()
    assert "hunter2" not in str(caught.value)
    await cache.close()
    with pytest.raises(SpecError) as wrong:
        RedisCache("rodis://user:hunter2@nowhere")
    assert "hunter2" not in str(wrong.value)
