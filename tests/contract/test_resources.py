"""What every ResourceStore does; an adapter joins with a `Place`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.servers.kubernetes.control_plane import ControlPlane

from mixpeek_operator.adapters.kubernetes_api import KubernetesApi
from mixpeek_operator.adapters.kubernetes_config import connection
from mixpeek_operator.adapters.kubernetes_resources import KubernetesResources
from mixpeek_operator.adapters.sqlite_resources import SqliteResources
from mixpeek_operator.core.clock import SystemClock
from mixpeek_operator.core.errors import AlreadyExistsError, ConflictError, NotFoundError
from mixpeek_operator.core.index import ResourceIndex
from mixpeek_operator.core.resource import FINALIZER, ID_ANNOTATION, Event, Metadata, Resource, ResourceKey
from mixpeek_operator.kinds import kinds
from mixpeek_operator.ports.resources import Change, ResourceStore

A, B = "org-a", "org-b"
"""Organizations of the suite, as it writes them: a store on a cluster has Kubernetes namespaces of its own for each."""


@dataclass
class Place:
    """Where a store keeps what survives it, and how it is opened there again."""

    open: Callable[[], ResourceStore]
    organizations: dict[str, str] = field(default_factory=lambda: {A: A, B: B})
    totally_ordered: bool = True
    """Whether a watch tells changes of different resources in the order in which they were made."""


@pytest.fixture(params=["kubernetes", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        return Place(lambda: SqliteResources(tmp_path / "resources.db", SystemClock()))
    plane: ControlPlane = request.getfixturevalue("control_plane")
    make: Callable[[], str] = request.getfixturevalue("kubernetes_namespace")
    # Organizations are listed in name order.
    names = dict(zip((A, B), sorted((make(), make())), strict=True))
    schemas = {name: kind.schema for name, kind in kinds().items()}

    def open_store() -> ResourceStore:
        api = KubernetesApi(connection(plane.kubeconfig))
        return KubernetesResources(api, schemas, ResourceIndex(schemas), namespaces=tuple(names.values()))

    return Place(open_store, names, totally_ordered=False)


@pytest.fixture
async def store(place: Place) -> AsyncIterator[ResourceStore]:
    made = place.open()
    yield made
    await made.close()


Make = Callable[..., Resource]


@pytest.fixture
def bucket(place: Place) -> Make:
    def make(name: str, namespace: str = "shop", organization: str = A, **spec: object) -> Resource:
        return Resource(
            "Bucket",
            Metadata(
                name=f"{namespace}.{name}".replace("_", "-"),
                organization=place.organizations[organization],
                annotations={ID_ANNOTATION: f"bkt_{place.organizations[organization]}_{namespace}_{name}"},
            ),
            {"name": name, "namespace": namespace, "bucket_schema": {"properties": {}}, **spec},
        )

    return make


@pytest.fixture
def a(place: Place) -> str:
    return place.organizations[A]


@pytest.fixture
def b(place: Place) -> str:
    return place.organizations[B]


async def test_create_fills_what_the_store_owns(store: ResourceStore, bucket: Make, a: str, b: str) -> None:
    made = await store.create(bucket("docs"))
    assert made.metadata.uid
    assert made.metadata.generation == 1
    assert made.metadata.resource_version > 0
    assert made.metadata.creation_timestamp is not None
    assert await store.get(made.key) == made
    assert await store.by_id(a, made.id) == made
    assert await store.by_id(b, made.id) is None


async def test_what_is_returned_is_a_copy(store: ResourceStore, bucket: Make) -> None:
    made = await store.create(bucket("docs", metadata={"a": 1}))
    made.spec["metadata"]["a"] = 2
    made.metadata.labels["x"] = "y"
    found = await store.get(made.key)
    assert found is not None
    assert (found.spec["metadata"], found.metadata.labels) == ({"a": 1}, {})


async def test_names_are_unique_and_a_clash_names_both(store: ResourceStore, bucket: Make) -> None:
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
    await store.create(bucket("my_docs", organization=B))


async def test_generation_moves_with_the_spec_and_version_with_every_write(
    store: ResourceStore, bucket: Make, a: str
) -> None:
    made = await store.create(bucket("docs"))
    same = await store.update(made)
    assert same.metadata.resource_version == made.metadata.resource_version
    labelled = await store.update(replace(made, metadata=replace(made.metadata, labels={"a": "b"})))
    assert labelled.metadata.generation == 1
    assert labelled.metadata.resource_version > made.metadata.resource_version
    changed = await store.update(labelled.with_spec({**labelled.spec, "description": "new"}))
    assert changed.metadata.generation == 2
    assert changed.metadata.labels == {"a": "b"}
    reported = await store.update_status(changed.key, {"object_count": 1})
    assert reported is not None
    assert reported.metadata.generation == 2
    assert reported.metadata.resource_version > changed.metadata.resource_version
    assert (await store.update_status(changed.key, {"object_count": 1})) == reported
    assert await store.update_status(ResourceKey("Bucket", a, "absent"), {}) is None


async def test_update_keeps_the_status_and_refuses_the_stale_and_the_absent(store: ResourceStore, bucket: Make) -> None:
    made = await store.create(bucket("docs"))
    await store.update_status(made.key, {"object_count": 1})
    with pytest.raises(ConflictError):
        await store.update(made.with_spec({**made.spec, "description": "x"}))
    fresh = await store.get(made.key)
    assert fresh is not None
    changed = await store.update(replace(fresh.with_spec({**fresh.spec, "description": "x"}), status={"lost": True}))
    assert changed.status == {"object_count": 1}
    with pytest.raises(NotFoundError):
        await store.update(bucket("absent"))


async def test_only_one_of_many_concurrent_updates_wins(store: ResourceStore, bucket: Make) -> None:
    made = await store.create(bucket("docs"))
    results = await asyncio.gather(
        *(store.update(made.with_spec({**made.spec, "description": str(n)})) for n in range(20)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Resource) for result in results) == 1, results
    assert sum(isinstance(result, ConflictError) for result in results) == 19, results


async def test_a_finalizer_holds_the_deletion(store: ResourceStore, bucket: Make) -> None:
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


async def test_without_finalizers_it_goes_at_once(store: ResourceStore, bucket: Make) -> None:
    made = await store.create(bucket("docs"))
    assert await store.delete(made.key) is None
    assert await store.get(made.key) is None


async def test_find_by_kind_and_namespace_in_name_order(store: ResourceStore, bucket: Make, a: str, b: str) -> None:
    for name in ("b", "a", "c"):
        await store.create(bucket(name))
    await store.create(bucket("z", namespace="other"))
    await store.create(bucket("a", organization=B))
    assert [found.name for found in await store.find(a, "Bucket", namespace="shop")] == ["a", "b", "c"]
    assert len(await store.find(a)) == 4
    assert await store.find(a, "Retriever") == []
    assert await store.organizations() == [a, b]


async def test_a_batch_is_all_or_nothing(store: ResourceStore, bucket: Make, a: str) -> None:
    first = await store.create(bucket("first"))
    second = await store.create(bucket("second"))
    stale = replace(
        second.with_spec({**second.spec, "description": "x"}), metadata=replace(second.metadata, resource_version=999)
    )
    with pytest.raises(ConflictError):
        await store.apply_batch([bucket("new")], [stale], [first.key])
    assert {found.name for found in await store.find(a)} == {"first", "second"}
    done = await store.apply_batch(
        [bucket("new")], [second.with_spec({**second.spec, "description": "x"})], [first.key]
    )
    assert [item.name for item in done] == ["new", "second"]
    assert {found.name for found in await store.find(a)} == {"new", "second"}


async def test_a_thousand_creates_in_one_batch(store: ResourceStore, bucket: Make) -> None:
    done = await store.apply_batch([bucket(f"b{n}") for n in range(1000)], [], [])
    assert len({item.metadata.resource_version for item in done}) == 1000


class Seen:
    """Follows a watch in the background."""

    def __init__(self, store: ResourceStore, organization: str | None = None) -> None:
        self.changes: list[Change] = []
        self._task = asyncio.create_task(self._follow(store, organization))

    async def _follow(self, store: ResourceStore, organization: str | None) -> None:
        async for change in store.watch(organization):
            self.changes.append(change)

    async def until(self, done: Callable[[list[Change]], bool], within_s: float = 60) -> list[Change]:
        deadline = time.monotonic() + within_s
        while not done(self.changes):
            assert time.monotonic() < deadline, self.changes
            await asyncio.sleep(0.005)
        return self.changes

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_watch_replays_then_follows(store: ResourceStore, bucket: Make, a: str) -> None:
    made = await store.create(bucket("old"))
    await store.create(bucket("foreign", organization=B))
    seen = Seen(store, a)
    await seen.until(lambda changes: len(changes) == 1)
    new = await store.create(bucket("new"))
    await seen.until(lambda changes: len(changes) == 2)
    await store.update_status(made.key, {"object_count": 1})
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


async def test_a_slow_watcher_ends_with_the_newest_state_of_each(store: ResourceStore, bucket: Make) -> None:
    made = await store.create(bucket("docs"))
    iterator = store.watch()
    assert (await anext(iterator)).type == "ADDED"
    for n in range(200):
        await store.update_status(made.key, {"object_count": n})
    await store.create(bucket("other"))
    got = [await anext(iterator), await anext(iterator)]
    assert got[0].resource.status == {"object_count": 199}
    assert got[1].resource.name == "other"
    await iterator.aclose()  # type: ignore[attr-defined]


async def test_no_change_is_lost_when_its_writer_is_cancelled(store: ResourceStore, bucket: Make, a: str) -> None:
    seen = Seen(store)
    await asyncio.sleep(0.05)
    for n in range(50):
        task = asyncio.create_task(store.create(bucket(f"b{n}")))
        for _ in range(n % 5):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    deadline = time.monotonic() + 60
    # A write whose writer is gone may still be under way, so what is stored is asked again.
    while {change.resource.name for change in seen.changes} != {found.name for found in await store.find(a)}:
        assert time.monotonic() < deadline, seen.changes
        await asyncio.sleep(0.05)
    await seen.stop()


async def test_concurrent_writes_are_all_seen_in_order(store: ResourceStore, place: Place, bucket: Make) -> None:
    seen = Seen(store)
    await asyncio.sleep(0.05)
    await asyncio.gather(*(store.create(bucket(f"b{n}")) for n in range(100)))
    changes = await seen.until(lambda changes: len(changes) == 100)
    versions = [change.resource.metadata.resource_version for change in changes]
    await seen.stop()
    assert len(set(versions)) == 100
    assert not place.totally_ordered or versions == sorted(versions)


async def test_events_newest_first_and_bounded(store: ResourceStore, bucket: Make, a: str) -> None:
    key = (await store.create(bucket("docs"))).key
    for n in range(120):
        await store.record_event(Event(key, "Normal", "Ready", f"{n}", datetime(2026, 1, 1, tzinfo=UTC)))
    events = await store.events(key, limit=3)
    assert [event.message for event in events] == ["119", "118", "117"]
    assert len(await store.events(key, limit=1000)) <= 100
    assert await store.events(ResourceKey("Bucket", a, "absent")) == []


async def test_everything_is_there_after_a_restart(place: Place, bucket: Make) -> None:
    store = place.open()
    made = await store.create(bucket("docs"))
    await store.close()
    store = place.open()
    assert await store.get(made.key) == made
    assert (await store.create(bucket("next"))).metadata.resource_version > made.metadata.resource_version
    await store.health()
    await store.close()
