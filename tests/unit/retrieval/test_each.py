"""Calls for each document: in order, within the limit, and all stopped by the first failure."""

from __future__ import annotations

import asyncio

import pytest

from mixpeek_operator.retrieval.each import each


@pytest.mark.parametrize("at_once", [1, 3, 50])
async def test_answers_come_in_order_and_no_more_calls_run_than_allowed(at_once: int) -> None:
    running = most = 0

    async def call(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(1 + number % 5):
            await asyncio.sleep(0)
        running -= 1
        return number * 2

    assert await each(range(20), call, at_once=at_once) == [number * 2 for number in range(20)]
    assert most == min(at_once, 20)
    assert await each([], call) == []


async def test_the_first_failure_stops_the_others() -> None:
    started: list[int] = []
    stopped: list[int] = []

    async def call(number: int) -> None:
        started.append(number)
        if number == 2:
            raise ValueError("two")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.append(number)
            raise

    with pytest.raises(ValueError, match="two"):
        await each(range(9), call, at_once=3)
    assert (started, stopped) == ([0, 1, 2], [0, 1])
