"""What every ResourceStore does; an adapter joins with one line in `STORES`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mixpeek_operator.adapters.sqlite_resources import SqliteResources
from mixpeek_operator.core.clock import SystemClock
from mixpeek_operator.core.errors import AlreadyExistsError, ConflictError, NotFoundError
from mixpeek_operator.core.resource import FINALIZER, ID_ANNOTATION, Event, Metadata, Resource, ResourceKey
from mixpeek_operator.ports.resources import Change, ResourceStore

STORES: dict[str, Callable[[Path], ResourceStore]] = {
    "sqlite": lambda path: SqliteResources(path / "resources.db", SystemClock())
}


@pytest.fixture(params=sorted(STORES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ResourceStore]:
    made = STORES[request.param](tmp_path)
    yield made
    await made.close()


def bucket(name: str, namespace: str = "shop", organization: str = "int_a", **spec: object) -> Resource:
    return Resource(
        "Bucket",
        Metadata(
            name=f"{namespace}.{name}".replace("_", "-"),
            organization=organization,
            annotations={ID_ANNOTATION: f"bkt_{organization}_{namespace}_{name}"},
        ),
        {"name": name, "namespace": namespace, **spec},
    )


async def test_create_fills_what_the_store_owns(store: ResourceStore) -> None:
    made = await store.create(bucket("docs"))
    assert made.metadata.uid
    assert made.metadata.generation == 1
    assert made.metadata.resource_version > 0
    assert made.metadata.creation_timestamp is not None
    assert await store.get(made.key) == made
    assert await store.by_id("int_a", made.id) == made
    assert await store.by_id("int_b", made.id) is None


async def test_what_is_returned_is_a_copy(store: ResourceStore) -> None:
    made = await store.create(bucket("docs", schema={"a": 1}))
    made.spec["schema"]["a"] = 2
    made.metadata.labels["x"] = "y"
    found = await store.get(made.key)
    assert found is not None
    assert (found.spec["schema"], found.metadata.labels) == ({"a": 1}, {})


async def test_names_are_unique_and_a_clash_names_both(store: ResourceStore) -> None:
    await store.create(bucket("my_docs"))
    with pytest.raises(AlreadyExistsError, match=r"my_docs.*shop"):
        await store.create(bucket("my_docs"))
    with pytest.raises(AlreadyExistsError, match=r"my-docs(.|\n)*my_docs|my_docs(.|\n)*my-docs"):
        await store.create(bucket("my-docs"))
    other = bucket("my_docs")
    other.metadata.name = "shop.another"
    with pytest.raises(AlreadyExistsError, match=r"shop\.another"):
        await store.create(other)
    await store.create(bucket("my_docs", namespace="other"))
    await store.create(bucket("my_docs", organization="int_b"))


async def test_generation_moves_with_the_spec_and_version_with_every_write(store: ResourceStore) -> None:
    made = await store.create(bucket("docs"))
    same = await store.update(made)
    assert same.metadata.resource_version == made.metadata.resource_version
    labelled = await store.update(replace(made, metadata=replace(made.metadata, labels={"a": "b"})))
    assert labelled.metadata.generation == 1
    assert labelled.metadata.resource_version > made.metadata.resource_version
    changed = await store.update(labelled.with_spec({**labelled.spec, "description": "new"}))
    assert changed.metadata.generation == 2
    assert changed.metadata.labels == {"a": "b"}
    reported = await store.update_status(changed.key, {"phase": "Ready"})
    assert reported is not None
    assert reported.metadata.generation == 2
    assert reported.metadata.resource_version > changed.metadata.resource_version
    assert (await store.update_status(changed.key, {"phase": "Ready"})) == reported
    assert await store.update_status(ResourceKey("Bucket", "int_a", "absent"), {}) is None


async def test_update_keeps_the_status_and_refuses_the_stale_and_the_absent(store: ResourceStore) -> None:
    made = await store.create(bucket("docs"))
    await store.update_status(made.key, {"phase": "Ready"})
    with pytest.raises(ConflictError):
        await store.update(made.with_spec({**made.spec, "description": "x"}))
    fresh = await store.get(made.key)
    assert fresh is not None
    changed = await store.update(replace(fresh.with_spec({**fresh.spec, "description": "x"}), status={"lost": True}))
    assert changed.status == {"phase": "Ready"}
    with pytest.raises(NotFoundError):
        await store.update(bucket("absent"))


async def test_only_one_of_many_concurrent_updates_wins(store: ResourceStore) -> None:
    made = await store.create(bucket("docs"))
    results = await asyncio.gather(
        *(store.update(made.with_spec({**made.spec, "description": str(n)})) for n in range(20)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Resource) for result in results) == 1
    assert sum(isinstance(result, ConflictError) for result in results) == 19


async def test_a_finalizer_holds_the_deletion(store: ResourceStore) -> None:
    resource = bucket("docs")
    resource.metadata.finalizers = [FINALIZER]
    made = await store.create(resource)
    marked = await store.delete(made.key)
    assert marked is not None
    assert marked.deleting
    again = await store.delete(made.key)
    assert again is not None
    assert again.metadata.deletion_timestamp == marked.metadata.deletion_timestamp
    await store.update(replace(again, metadata=replace(again.metadata, finalizers=[])))
    assert await store.get(made.key) is None
    assert await store.delete(made.key) is None
    assert (await store.create(bucket("docs"))).metadata.uid != made.metadata.uid


async def test_without_finalizers_it_goes_at_once(store: ResourceStore) -> None:
    made = await store.create(bucket("docs"))
    assert await store.delete(made.key) is None
    assert await store.get(made.key) is None


async def test_find_by_kind_and_namespace_in_name_order(store: ResourceStore) -> None:
    for name in ("b", "a", "c"):
        await store.create(bucket(name))
    await store.create(bucket("z", namespace="other"))
    await store.create(bucket("a", organization="int_b"))
    assert [found.name for found in await store.find("int_a", "Bucket", namespace="shop")] == ["a", "b", "c"]
    assert len(await store.find("int_a")) == 4
    assert await store.find("int_a", "Retriever") == []
    assert await store.organizations() == ["int_a", "int_b"]


async def test_a_batch_is_all_or_nothing(store: ResourceStore) -> None:
    first = await store.create(bucket("first"))
    second = await store.create(bucket("second"))
    stale = replace(second.with_spec({**second.spec, "x": 1}), metadata=replace(second.metadata, resource_version=999))
    with pytest.raises(ConflictError):
        await store.apply_batch([bucket("new")], [stale], [first.key])
    assert {found.name for found in await store.find("int_a")} == {"first", "second"}
    done = await store.apply_batch([bucket("new")], [second.with_spec({**second.spec, "x": 1})], [first.key])
    assert [item.name for item in done] == ["new", "second"]
    assert {found.name for found in await store.find("int_a")} == {"new", "second"}


async def test_a_thousand_creates_in_one_batch(store: ResourceStore) -> None:
    start = time.perf_counter()
    done = await store.apply_batch([bucket(f"b{n}") for n in range(1000)], [], [])
    assert len({item.metadata.resource_version for item in done}) == 1000
    assert time.perf_counter() - start < 5


class Seen:
    """Follows a watch in the background."""

    def __init__(self, store: ResourceStore, organization: str | None = None) -> None:
        self.changes: list[Change] = []
        self._task = asyncio.create_task(self._follow(store, organization))

    async def _follow(self, store: ResourceStore, organization: str | None) -> None:
        async for change in store.watch(organization):
            self.changes.append(change)

    async def until(self, done: Callable[[list[Change]], bool], within_s: float = 5) -> list[Change]:
        deadline = time.monotonic() + within_s
        while not done(self.changes):
            assert time.monotonic() < deadline, self.changes
            await asyncio.sleep(0.005)
        return self.changes

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_watch_replays_then_follows(store: ResourceStore) -> None:
    made = await store.create(bucket("old"))
    await store.create(bucket("foreign", organization="int_b"))
    seen = Seen(store, "int_a")
    await seen.until(lambda changes: len(changes) == 1)
    new = await store.create(bucket("new"))
    await seen.until(lambda changes: len(changes) == 2)
    await store.update_status(made.key, {"phase": "Ready"})
    await seen.until(lambda changes: len(changes) == 3)
    await store.delete(new.key)
    changes = await seen.until(lambda changes: len(changes) == 4)
    await seen.stop()
    assert [(change.type, change.resource.name) for change in changes] == [
        ("ADDED", "old"),
        ("ADDED", "new"),
        ("MODIFIED", "old"),
        ("DELETED", "new"),
    ]


async def test_a_slow_watcher_ends_with_the_newest_state_of_each(store: ResourceStore) -> None:
    made = await store.create(bucket("docs"))
    iterator = store.watch()
    assert (await anext(iterator)).type == "ADDED"
    for n in range(200):
        await store.update_status(made.key, {"n": n})
    await store.create(bucket("other"))
    got = [await anext(iterator), await anext(iterator)]
    assert got[0].resource.status == {"n": 199}
    assert got[1].resource.name == "other"
    await iterator.aclose()  # type: ignore[attr-defined]


async def test_no_change_is_lost_when_its_writer_is_cancelled(store: ResourceStore) -> None:
    seen = Seen(store)
    await asyncio.sleep(0.05)
    for n in range(50):
        task = asyncio.create_task(store.create(bucket(f"b{n}")))
        for _ in range(n % 5):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0.1)
    stored = {found.name for found in await store.find("int_a")}
    await seen.until(lambda changes: {change.resource.name for change in changes} == stored)
    await seen.stop()


async def test_concurrent_writes_are_all_seen_in_order(store: ResourceStore) -> None:
    seen = Seen(store)
    await asyncio.sleep(0.05)
    await asyncio.gather(*(store.create(bucket(f"b{n}")) for n in range(100)))
    changes = await seen.until(lambda changes: len(changes) == 100)
    versions = [change.resource.metadata.resource_version for change in changes]
    await seen.stop()
    assert versions == sorted(versions)


async def test_events_newest_first_and_bounded(store: ResourceStore) -> None:
    key = (await store.create(bucket("docs"))).key
    for n in range(120):
        await store.record_event(Event(key, "Normal", "Ready", f"{n}", datetime(2026, 1, 1, tzinfo=UTC)))
    events = await store.events(key, limit=3)
    assert [event.message for event in events] == ["119", "118", "117"]
    assert len(await store.events(key, limit=1000)) <= 100
    assert await store.events(ResourceKey("Bucket", "int_a", "absent")) == []


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    for make in STORES.values():
        store = make(tmp_path)
        made = await store.create(bucket("docs"))
        await store.close()
        store = make(tmp_path)
        assert await store.get(made.key) == made
        assert (await store.create(bucket("next"))).metadata.resource_version > made.metadata.resource_version
        await store.health()
        await store.close()
