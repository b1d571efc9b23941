from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.reconciling.world import BASE, DENSE, SCOPE, World, condition

from mixpeek_operator.core.queue import Queue
from mixpeek_operator.core.resource import FINALIZER, ID_ANNOTATION, Metadata, Resource, ResourceKey
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.core.visit import Again, Outcome
from mixpeek_operator.ports.resources import Change


async def test_declared_resources_become_ready_by_themselves(world: World) -> None:
    queue = world.queue()
    await queue.start()
    try:
        scope = await world.base()
        for kind, body in BASE:
            found = await world.resources.get(scope, kind, body["name"])
            settled = await world.resources.wait_settled(found.key, 5)
            assert condition(settled, "Ready")["status"] == "True"
        await world.resources.delete(SCOPE, "Namespace", "products")
        key = ResourceKey("Namespace", SCOPE.organization, "products")
        assert await world.resources.wait_settled(key, 5) is None
        assert world.vectors.states == {}
    finally:
        await queue.stop()


async def test_a_waiting_resource_is_woken_when_its_reference_comes(world: World) -> None:
    queue = world.queue(drift_interval_s=1000)
    await queue.start()
    try:
        scope = await world.base()
        await queue.idle()
        kind, body = BASE[1]
        late = world.resources.prepare(
            scope, kind, {**body, "name": "later", "source": {"type": "bucket", "bucket_ids": ["not_yet"]}}
        )
        (late,) = await world.resources.commit([late], [], [])
        await queue.idle()
        assert condition(world.index.get(late.key), "Ready")["reason"] == "WaitingForBucket"
        await world.resources.create(scope, "Bucket", {**BASE[0][1], "name": "not_yet"})
        assert condition(await world.resources.wait_settled(late.key, 5), "Ready")["status"] == "True"
    finally:
        await queue.stop()


async def test_a_pause_begins_with_the_end_of_the_last_visit(world: World) -> None:
    queue = world.queue(drift_interval_s=1000)
    await queue.start()
    try:
        await asyncio.wait_for(queue.idle(60), 1)  # nothing was visited yet
        scope = await world.base()
        paused = asyncio.create_task(queue.idle(1.0))
        await queue.idle()
        await asyncio.sleep(0.5)
        await world.resources.create(scope, "Bucket", {**BASE[0][1], "name": "later"})
        await queue.idle()
        ended = asyncio.get_running_loop().time()
        await paused
        assert asyncio.get_running_loop().time() - ended > 0.75
    finally:
        await queue.stop()


async def test_an_absent_store_is_tried_again_until_it_is_back(world: World) -> None:
    queue = world.queue()
    await queue.start()
    try:
        world.vectors.away = True
        made = await world.namespace()
        await asyncio.sleep(0.1)
        assert condition(world.index.get(made.key), "Synced")["reason"] == "BackendUnavailable"
        world.vectors.away = False
        assert condition(await world.resources.wait_settled(made.key, 5), "Ready")["status"] == "True"
    finally:
        await queue.stop()


async def test_drift_is_found_without_a_change(world: World) -> None:
    queue = world.queue(drift_interval_s=0.1)
    await queue.start()
    try:
        made = await world.namespace()
        await world.resources.wait_settled(made.key, 5)
        world.vectors.states.clear()
        async with asyncio.timeout(60):
            while made.id not in world.vectors.states:  # noqa: ASYNC110 - the store sends no events
                await asyncio.sleep(0.02)
    finally:
        await queue.stop()


async def test_collections_add_their_vectors_again_when_the_namespace_lost_them(world: World) -> None:
    queue = world.queue(drift_interval_s=1000)
    await queue.start()
    try:
        scope = await world.base()
        await queue.idle()
        namespace = await world.resources.get(SCOPE, "Namespace", "products")
        world.vectors.states.clear()
        queue.wake(namespace.key)
        await queue.idle()
        assert set(world.vectors.states[scope.namespace_id or ""].vectors) == {DENSE.name}
        collection = await world.resources.get(scope, "Collection", "article_texts")
        assert condition(collection, "Ready")["status"] == "True"
    finally:
        await queue.stop()


async def test_a_quiet_queue_does_nothing(world: World) -> None:
    queue = world.queue(drift_interval_s=1000)
    await queue.start()
    try:
        await world.base()
        await queue.idle()
        calls = world.vectors.calls
        used = time.process_time()
        await asyncio.sleep(0.3)
        assert world.vectors.calls == calls
        assert time.process_time() - used < 0.1
    finally:
        await queue.stop()


async def test_a_restart_visits_what_was_left(world: World) -> None:
    await world.base()
    queue = world.queue()
    await queue.start()
    try:
        await queue.idle()
        for key in world.index.everything():
            assert condition(world.index.get(key), "Ready")["status"] == "True"
    finally:
        await queue.stop()


class Recorder:
    """An engine that only notes who is visited when."""

    def __init__(self, outcome: Outcome | None = None) -> None:
        self.visits: list[ResourceKey] = []
        self.active: set[ResourceKey] = set()
        self.most = 0
        self.overlapped = False
        self.outcome = outcome or Outcome()

    async def reconcile(self, key: ResourceKey, *, reading: Callable[[], None]) -> Outcome:
        self.visits.append(key)
        self.overlapped |= key in self.active
        self.active.add(key)
        self.most = max(self.most, len(self.active))
        await asyncio.sleep(0.005)
        self.active.discard(key)
        return self.outcome


def _queue(world: World, engine: Any, **options: Any) -> Queue:
    return Queue(store=world.store, index=world.index, engine=engine, **options)


async def test_one_visit_per_resource_and_so_many_at_once(world: World) -> None:
    engine = Recorder()
    queue = _queue(world, engine, concurrency=3)
    await queue.start()
    keys = [ResourceKey("Namespace", "int_one", f"n{number}") for number in range(10)]
    for _ in range(3):
        for key in keys:
            queue.wake(key)
        await asyncio.sleep(0.002)
    await queue.idle()
    await queue.stop()
    assert not engine.overlapped
    assert engine.most == 3
    assert set(engine.visits) == set(keys)


@pytest.mark.parametrize(
    ("changes", "visits"),
    [
        ([{"annotations": {ID_ANNOTATION: "ns_1"}, "finalizers": [FINALIZER]}], 1),
        ([{"annotations": {"a": "b", ID_ANNOTATION: "ns_1"}, "finalizers": [FINALIZER]}], 2),
        ([{"finalizers": [FINALIZER], "generation": 2}], 2),
        # Taken away again: a visit has to give it back.
        ([{"annotations": {ID_ANNOTATION: "ns_1"}, "finalizers": [FINALIZER]}, {"annotations": {}}], 2),
        ([{"annotations": {ID_ANNOTATION: "ns_1"}, "finalizers": [FINALIZER]}, {"finalizers": []}], 2),
        ([{"annotations": {ID_ANNOTATION: "ns_1"}}, {"annotations": {ID_ANNOTATION: "ns_2"}}], 3),
    ],
)
async def test_what_a_visit_gives_a_resource_does_not_bring_it_back(
    world: World, changes: list[dict[str, Any]], visits: int
) -> None:
    engine = Recorder()
    queue = _queue(world, engine)
    await queue.start()
    resource = Resource("Namespace", Metadata("n", "acme", uid="u", resource_version=1), {"name": "n"})
    world.index.apply(Change("ADDED", resource))
    await queue.idle()
    for number, change in enumerate(changes, start=2):
        resource = replace(resource, metadata=replace(resource.metadata, resource_version=number, **change))
        world.index.apply(Change("MODIFIED", resource))
        await queue.idle()
    await queue.stop()
    assert len(engine.visits) == visits


@pytest.mark.parametrize(("woken", "visits"), [("before it reads", 1), ("after it has read", 2)])
async def test_a_visit_answers_for_what_it_was_woken_for_before_it_reads(world: World, woken: str, visits: int) -> None:
    key = ResourceKey("Namespace", "acme", "n")
    seen: list[ResourceKey] = []

    class Reading:
        async def reconcile(self, key: ResourceKey, *, reading: Callable[[], None]) -> Outcome:
            seen.append(key)
            if len(seen) == 1 and woken == "before it reads":
                queue.wake(key)
            reading()
            if len(seen) == 1 and woken == "after it has read":
                queue.wake(key)
            await asyncio.sleep(0)
            return Outcome()

    queue = _queue(world, Reading())
    await queue.start()
    queue.wake(key)
    await queue.idle()
    await queue.stop()
    assert seen == [key] * visits


@pytest.mark.parametrize(
    ("ready", "spec", "visits"),
    [
        # By its name, and it has to wait until the other is ready: an id tells it nothing.
        ("False", {"source": {"type": "bucket", "bucket_ids": ["b"]}}, 1),
        ("True", {"source": {"type": "bucket", "bucket_ids": ["b"]}}, 2),
        ("False", {"source": {"type": "bucket", "bucket_ids": ["bkt_0123456789"]}}, 2),
    ],
)
async def test_an_id_wakes_only_whom_it_tells_something(
    world: World, ready: str, spec: dict[str, Any], visits: int
) -> None:
    engine = Recorder()
    queue = _queue(world, engine)
    await queue.start()
    status = {"conditions": [{"type": "Ready", "status": ready, "observed_generation": 1}]}
    bucket = Resource(
        "Bucket", Metadata("n.b", "acme", uid="b", resource_version=1), {"namespace": "n", "name": "b"}, status
    )
    collection = Resource(
        "Collection",
        Metadata("n.c", "acme", uid="c", resource_version=1),
        {"namespace": "n", "name": "c", **spec},
    )
    world.index.apply(Change("ADDED", bucket))
    world.index.apply(Change("ADDED", collection))
    await queue.idle()
    named = replace(bucket.metadata, resource_version=2, annotations={ID_ANNOTATION: "bkt_0123456789"})
    world.index.apply(Change("MODIFIED", replace(bucket, metadata=named)))
    await queue.idle()
    await queue.stop()
    assert engine.visits.count(collection.key) == visits


async def test_a_busy_organization_does_not_hold_up_another(world: World) -> None:
    engine = Recorder()
    queue = _queue(world, engine, concurrency=1)
    await queue.start()
    for number in range(50):
        queue.wake(ResourceKey("Namespace", "int_big", f"n{number}"))
    small = ResourceKey("Namespace", "int_small", "only")
    queue.wake(small)
    await queue.idle()
    await queue.stop()
    assert engine.visits.index(small) <= 3


async def test_failures_are_tried_ever_later(world: World) -> None:
    engine = Recorder(Outcome(Again.BACKOFF))
    queue = _queue(world, engine, first_delay_s=0.02, max_delay_s=10, jitter=lambda: 1.0)
    await queue.start()
    queue.wake(ResourceKey("Namespace", "int_one", "broken"))
    await asyncio.sleep(0.4)
    await queue.stop()
    # At 0, 0.02, 0.06, 0.14 and 0.30 s.
    assert 3 <= len(engine.visits) <= 5


async def test_stopping_waits_for_the_visit_under_way(world: World) -> None:
    engine = Recorder()
    queue = _queue(world, engine)
    await queue.start()
    queue.wake(ResourceKey("Namespace", "int_one", "one"))
    await asyncio.sleep(0)
    await queue.stop()
    assert engine.active == set()
    queue.wake(ResourceKey("Namespace", "int_one", "two"))
    assert len(engine.visits) == 1


async def test_a_thousand_resources_in_a_few_seconds(world: World) -> None:
    queue = world.queue()
    await queue.start()
    try:
        started = time.perf_counter()
        made = await world.namespace()
        scope = Scope(SCOPE.organization, made.id, made.name)
        bucket = world.resources.prepare(scope, *BASE[0])
        await world.resources.commit([bucket], [], [])
        many = [world.resources.prepare(scope, "Collection", {**BASE[1][1], "name": f"c{n}"}) for n in range(998)]
        await world.resources.commit(many, [], [])
        await queue.idle()
        taken = time.perf_counter() - started
        for key in world.index.everything():
            assert condition(world.index.get(key), "Ready")["status"] == "True"
        # A generous bound: what matters is that nothing grows with the square.
        assert taken < 30, f"{taken:.1f} s"
        print(f"1000 resources in {taken:.2f} s")
    finally:
        await queue.stop()
