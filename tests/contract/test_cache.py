"""What every Cache does; an adapter joins with one line in `CACHES`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpeek_operator.adapters.memory_cache import MemoryCache
from mixpeek_operator.ports.cache import Cache


class HandClock:
    """Time that moves only when told."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


CACHES: dict[str, Callable[[HandClock], Cache]] = {"memory": lambda clock: MemoryCache(10_000, clock)}


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(params=sorted(CACHES))
async def cache(request: pytest.FixtureRequest, clock: HandClock) -> AsyncIterator[Cache]:
    made = CACHES[request.param](clock)
    yield made
    await made.close()


async def test_a_value_lives_until_it_expires(cache: Cache, clock: HandClock) -> None:
    assert await cache.get("ns/a") is None
    await cache.set("ns/a", b"\x00\xff", ttl_s=10)
    clock.seconds = 9.9
    assert await cache.get("ns/a") == b"\x00\xff"
    clock.seconds = 10
    assert await cache.get("ns/a") is None


async def test_a_write_replaces_value_and_expiry(cache: Cache, clock: HandClock) -> None:
    await cache.set("ns/a", b"1", ttl_s=10)
    clock.seconds = 5
    await cache.set("ns/a", b"2", ttl_s=10)
    clock.seconds = 12
    assert await cache.get("ns/a") == b"2"


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
