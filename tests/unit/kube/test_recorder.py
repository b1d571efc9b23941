from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import structlog

from mixpeek_operator.core.clock import SystemClock
from mixpeek_operator.core.errors import ForbiddenError, UnavailableError
from mixpeek_operator.core.resource import Event, ResourceKey
from mixpeek_operator.kube.recorder import EventRecorder

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Clock(SystemClock):
    def now(self) -> datetime:
        return NOW


class World:
    """An API server that takes events, and a queue that is busy until it is not."""

    def __init__(self, **options: int) -> None:
        self.written: list[str] = []
        self.errors: dict[str, list[Exception]] = {}
        self.quiet = asyncio.Event()
        self.at_once = 0
        self.most = 0
        self.recorder = EventRecorder(write=self.write, idle=self.idle, clock=Clock(), **options)

    async def idle(self) -> None:
        await self.quiet.wait()

    async def write(self, event: Event) -> None:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        errors = self.errors.get(event.message)
        if errors:
            raise errors.pop(0)
        self.written.append(event.message)

    def tell(self, message: str, type_: str = "Normal", ago_s: float = 0.0) -> None:
        at = NOW - timedelta(seconds=ago_s)
        self.recorder.record(Event(ResourceKey("Bucket", "org", "b"), type_, "Reason", message, at))


@asynccontextmanager
async def running(world: World) -> AsyncIterator[None]:
    task = asyncio.create_task(world.recorder.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_news_wait_for_the_work_and_are_written_one_by_one_in_order() -> None:
    world = World()
    async with running(world):
        for number in range(5):
            world.tell(f"{number}")
        await asyncio.sleep(0.02)
        assert (world.written, world.recorder.waiting) == ([], 5)
        world.quiet.set()
        await world.recorder.flush(5)
    assert (world.written, world.recorder.waiting, world.most) == (["0", "1", "2", "3", "4"], 0, 1)


async def test_a_warning_waits_for_nothing() -> None:
    world = World()
    async with running(world):
        world.tell("ready")
        world.tell("lost", "Warning")
        await asyncio.sleep(0.02)
        assert world.written == ["lost"]


async def test_news_do_not_wait_for_ever() -> None:
    world = World()
    async with running(world):
        world.tell("old", ago_s=31)
        world.tell("new", ago_s=29)
        await asyncio.sleep(0.02)
        assert world.written == ["old"]


async def test_what_the_api_server_could_not_take_is_written_when_it_is_back_and_what_it_refuses_is_told() -> None:
    world = World()
    world.quiet.set()
    world.errors = {
        "first": [UnavailableError("away")],
        "second": [ForbiddenError("the namespace is being deleted")],
        "third": [KeyError("a bug of ours")],
    }
    with structlog.testing.capture_logs() as lines:
        async with running(world):
            for message in ("first", "second", "third", "fourth"):
                world.tell(message)
            await world.recorder.flush(10)
    assert world.written == ["first", "fourth"]
    assert [line["error"] for line in lines] == ["the namespace is being deleted", "'a bug of ours'"]
    assert [bool(line["exc_info"]) for line in lines] == [False, True]


async def test_more_than_can_be_kept_is_dropped_aloud_and_so_is_what_a_stop_cannot_wait_for() -> None:
    world = World(kept=2)
    with structlog.testing.capture_logs() as lines:
        async with running(world):
            for message in ("a", "b", "c"):
                world.tell(message)
            await world.recorder.flush(0.02)
    assert [line["event"] for line in lines] == ["too many events wait; dropped one", "events were not written"]
    assert (lines[0]["event_message"], lines[1]["events"]) == ("c", 2)
