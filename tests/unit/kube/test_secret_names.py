from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime

import pytest

from mixpeek_operator.core.errors import UnavailableError
from mixpeek_operator.kube.secret_names import SecretNames


class _Clock:
    at = 1000.0

    def now(self) -> datetime:
        return datetime(2026, 1, 31, tzinfo=UTC)

    def monotonic(self) -> float:
        return self.at


class _Secrets:
    """Counts how often it is asked; an answer waits while `slow` is clear."""

    def __init__(self) -> None:
        self.held: dict[str, list[str]] = {"acme": ["exa"], "other": []}
        self.asked = 0
        self.away = False
        self.reached, self.slow = asyncio.Event(), asyncio.Event()
        self.slow.set()

    async def names(self, organization: str) -> Collection[str]:
        self.asked += 1
        if self.away:
            raise UnavailableError("the API server is away")
        found = list(self.held[organization])
        self.reached.set()
        await self.slow.wait()
        return found


async def test_names_are_read_once_until_a_change_is_told_of() -> None:
    secrets = _Secrets()
    known = SecretNames(secrets, _Clock(), max_age_s=300)
    for _ in range(100):
        assert await known.names("acme") == {"exa"}
    assert await known.names("other") == set()
    assert secrets.asked == 2
    secrets.held["acme"].append("crm")
    known.changed("acme")
    assert await known.names("acme") == {"exa", "crm"}
    assert await known.names("other") == set()
    assert secrets.asked == 3


async def test_a_change_that_nobody_told_of_is_found_in_time() -> None:
    secrets, clock = _Secrets(), _Clock()
    known = SecretNames(secrets, clock, max_age_s=300)
    await known.names("acme")
    secrets.held["acme"] = []
    clock.at += 299
    assert await known.names("acme") == {"exa"}
    clock.at += 1
    assert await known.names("acme") == set()


async def test_what_was_read_while_it_changed_is_not_kept() -> None:
    secrets = _Secrets()
    known = SecretNames(secrets, _Clock(), max_age_s=300)
    secrets.slow.clear()
    reading = asyncio.create_task(known.names("acme"))
    await secrets.reached.wait()
    secrets.held["acme"] = []
    known.changed("acme")
    secrets.slow.set()
    await reading
    assert await known.names("acme") == set()


async def test_a_failure_is_told_and_not_kept() -> None:
    secrets = _Secrets()
    known = SecretNames(secrets, _Clock(), max_age_s=300)
    secrets.away = True
    with pytest.raises(UnavailableError):
        await known.names("acme")
    secrets.away = False
    assert await known.names("acme") == {"exa"}
