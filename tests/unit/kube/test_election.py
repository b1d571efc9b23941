"""Two candidates over one lease that can be away."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from mixpeek_operator.core.clock import SystemClock
from mixpeek_operator.core.errors import ConflictError, UnavailableError
from mixpeek_operator.kube.election import Election
from mixpeek_operator.kube.lease import Move
from mixpeek_operator.ports.leases import Lease


class Memory:
    """A lease in memory, with compare-and-swap, that can be away or lose an answer."""

    def __init__(self) -> None:
        self.lease = Lease()
        self.away = False
        self.loses_answers = False

    async def read(self) -> Lease:
        if self.away:
            raise UnavailableError("the API server is away")
        return self.lease

    async def write(self, lease: Lease) -> Lease:
        if self.away:
            raise UnavailableError("the API server is away")
        if lease.version != self.lease.version:
            raise ConflictError("another was faster")
        self.lease = replace(lease, version=str(int(lease.version or 0) + 1))
        if self.loses_answers:
            raise UnavailableError("the answer was lost")
        return self.lease


class Clock(SystemClock):
    """Time that moves when told to."""

    def __init__(self) -> None:
        self.time = 0.0

    def monotonic(self) -> float:
        return self.time


def candidate(leases: Memory, clock: Clock, name: str) -> Election:
    return Election(leases, name, clock=clock, duration_s=15.0)


async def test_the_second_waits_and_takes_over_when_the_first_is_silent() -> None:
    leases, clock = Memory(), Clock()
    one, two = candidate(leases, clock, "one"), candidate(leases, clock, "two")
    assert await one.turn() is Move.TAKE and one.holds()
    assert await two.turn() is Move.WAIT and not two.holds()
    clock.time = 14.9
    assert await two.turn() is Move.WAIT
    clock.time = 15.0
    assert not one.holds()
    assert await two.turn() is Move.TAKE and two.holds()
    assert await one.turn() is Move.WAIT
    assert leases.lease.transitions == 2


async def test_a_holder_that_cannot_renew_stops_before_its_lease_ends() -> None:
    leases, clock = Memory(), Clock()
    one = candidate(leases, clock, "one")
    await one.turn()
    leases.away = True
    clock.time = 11.0
    with pytest.raises(UnavailableError):
        await one.turn()
    await asyncio.wait_for(one.lost(), 60)
    assert one.holds(), "there is time left to let visits end"
    clock.time = 15.0
    assert not one.holds()


async def test_a_lost_answer_is_no_lease_and_the_next_turn_finds_out() -> None:
    leases, clock = Memory(), Clock()
    one = candidate(leases, clock, "one")
    leases.loses_answers = True
    with pytest.raises(UnavailableError):
        await one.turn()
    assert not one.holds()
    leases.loses_answers = False
    assert await one.turn() is Move.RENEW and one.holds()


async def test_what_is_released_is_taken_at_once() -> None:
    leases, clock = Memory(), Clock()
    one, two = candidate(leases, clock, "one"), candidate(leases, clock, "two")
    await one.turn()
    await two.turn()
    await one.release()
    assert not one.holds()
    assert await two.turn() is Move.TAKE


async def test_somebody_who_took_it_by_force_is_respected() -> None:
    leases, clock = Memory(), Clock()
    one = candidate(leases, clock, "one")
    await one.turn()
    leases.lease = replace(leases.lease, holder="intruder", version="99")
    await one.turn()
    assert not one.holds()
    await asyncio.wait_for(one.lost(), 60)


async def test_run_keeps_it_and_goes_on_after_an_outage() -> None:
    leases = Memory()
    one = Election(leases, "one", clock=SystemClock(), duration_s=0.6)
    running = asyncio.create_task(one.run())
    try:
        await asyncio.wait_for(one.held(), 60)
        await asyncio.sleep(1)
        assert one.holds() and leases.lease.transitions == 1
        leases.away = True
        await asyncio.wait_for(one.lost(), 60)
        leases.away = False
        await asyncio.wait_for(one.held(), 60)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_one_that_stands_by_reaches_the_lease_until_it_is_away() -> None:
    leases, clock = Memory(), Clock()
    one, two = candidate(leases, clock, "one"), candidate(leases, clock, "two")
    await one.turn()
    running = asyncio.create_task(two.run())
    try:
        await asyncio.sleep(0)
        clock.time = 10.0
        assert two.unreachable() == ""
        leases.away = True
        clock.time = 15.5
        assert "not reached for 16 s" in two.unreachable()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
