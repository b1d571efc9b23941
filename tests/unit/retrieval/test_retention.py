"""The oldest executions leave the history, by age and by number, and nothing else does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mixpeek_operator.adapters.sqlite_metadata import SqliteMetadata
from mixpeek_operator.ports.metadata import Write
from mixpeek_operator.retrieval.history import TABLE
from mixpeek_operator.retrieval.retention import EVERY_S, Retention


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteMetadata]:
    store = SqliteMetadata(tmp_path / "metadata.db")
    yield store
    await store.close()


async def fill(store: SqliteMetadata, clock: Clock, namespace: str, ages_h: list[int]) -> None:
    writes = []
    for number, age_h in enumerate(ages_h):
        at = (clock.now() - timedelta(hours=age_h)).isoformat(timespec="microseconds").replace("+00:00", "Z")
        writes.append(Write(TABLE, namespace, f"exec_{number:04d}", {"created_at": at, "age_h": age_h}))
    await store.transact([*writes, Write("interactions", namespace, "old", {"created_at": "2001-01-01T00:00:00Z"})])


async def ages(store: SqliteMetadata, namespace: str) -> list[int]:
    return [record.body["age_h"] for record in await store.find(TABLE, namespace)]


@pytest.mark.parametrize(
    ("days", "most", "kept"),
    [
        (1.0, 0, 24),
        (0.5, 0, 12),
        (0.0, 100, 100),
        (1.0, 10, 10),
        (2.0, 1000, 48),
        (0.0, 0, 700),
        (1e4, 10**6, 700),
        (1e-6, 1, 0),
    ],
)
async def test_what_stays(store: SqliteMetadata, days: float, most: int, kept: int) -> None:
    clock = Clock()
    await fill(store, clock, "ns_a", list(range(700, 0, -1)))
    await fill(store, clock, "ns_b", [1])
    retention = Retention(store, lambda: ["ns_a", "ns_empty"], clock, days=days, most=most)
    await retention.chore()
    assert await ages(store, "ns_a") == list(range(kept, 0, -1))
    assert await ages(store, "ns_b") == [1] and await store.count("interactions", "ns_a") == 1


async def test_it_looks_again_after_a_while(store: SqliteMetadata) -> None:
    clock = Clock()
    retention = Retention(store, lambda: ["ns_a"], clock, days=0, most=2)
    await retention.chore()
    await fill(store, clock, "ns_a", [3, 2, 1])
    clock.time += timedelta(seconds=EVERY_S - 1)
    await retention.chore()
    assert await ages(store, "ns_a") == [3, 2, 1]
    clock.time += timedelta(seconds=1)
    await retention.chore()
    assert await ages(store, "ns_a") == [2, 1]
