"""The Qdrant server away, restarted, older, changed by others: on the stand-in, over the wire."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any
from unittest.mock import AsyncMock

import httpx
import pytest
from tests.contract.test_vectors import NAME, VECTORS, pid, point
from tests.servers.process import Program
from tests.servers.qdrant import standin

from mixpeek_operator.adapters import _qdrant_collections
from mixpeek_operator.adapters.qdrant_server import QdrantServerVectors
from mixpeek_operator.core.errors import ConflictError, NotFoundError, RefusedError, SpecError, UnavailableError
from mixpeek_operator.core.filters import equals
from mixpeek_operator.ports.vectors import Point, Search, VectorParams, scroll_all

KEY = "k-0123456789-never-shown"
PHYSICAL = f"{NAME}--1"


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with standin(tmp_path_factory.mktemp("qdrant"), "--api-key", KEY) as running:
        yield running


@pytest.fixture(scope="module")
def shared_old_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with standin(tmp_path_factory.mktemp("qdrant"), "--api-key", KEY, "--version", "1.17.1") as running:
        yield running


@pytest.fixture
async def server(shared_server: Program) -> AsyncIterator[Program]:
    yield shared_server
    await empty(shared_server)


@pytest.fixture
async def old_server(shared_old_server: Program) -> AsyncIterator[Program]:
    yield shared_old_server
    await empty(shared_old_server)


@pytest.fixture(autouse=True)
def short_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_qdrant_collections, "_FENCE_S", 0.1)


@contextlib.asynccontextmanager
async def connected(server: Program, key: str | None = KEY, **options: Any) -> AsyncIterator[QdrantServerVectors]:
    store = QdrantServerVectors.connect(f"http://127.0.0.1:{server.port}", key, **options)
    yield store
    await store.close()


def raw(server: Program) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", headers={"api-key": KEY})


async def empty(server: Program) -> None:
    async with raw(server) as client:
        for one in (await client.get("/collections")).json()["result"]["collections"]:
            await client.delete(f"/collections/{one['name']}")


async def fill(store: QdrantServerVectors) -> None:
    await store.create_collection(NAME, VECTORS, labels={"organization": "int_a"})
    await store.create_payload_index(NAME, "color", "keyword")
    await store.upsert(NAME, [point(n) for n in range(20)])


async def test_a_server_that_is_away_is_named_and_its_return_is_noticed(server: Program) -> None:
    async with connected(server) as store:
        await fill(store)
        before = await store.describe(NAME)
        server.kill()
        for call in (store.health(), store.describe(NAME), store.upsert(NAME, [point(30)]), store.count(NAME)):
            with pytest.raises(UnavailableError, match=f"127.0.0.1:{server.port}") as caught:
                await call
            assert KEY not in str(caught.value)
        server.start()
        await store.health()
        assert await store.describe(NAME) == before
        assert await store.count(NAME, equals("color", "red")) == 7


async def test_a_server_that_hangs_is_not_waited_for_without_end(server: Program) -> None:
    async with connected(server, timeout_s=1) as store:
        await fill(store)
        server.pause()
        with pytest.raises(UnavailableError, match="in time"):
            await store.count(NAME)
        server.resume()
        assert await store.count(NAME) == 20


async def test_what_was_acknowledged_is_there_after_a_kill_in_the_middle(server: Program) -> None:
    acknowledged: list[int] = []
    enough = asyncio.Event()
    async with connected(server) as store:
        await store.create_collection(NAME, VECTORS, labels={})

        async def write() -> None:
            for n in range(100_000):
                await store.upsert(NAME, [point(n)])
                acknowledged.append(n)
                if n == 30:
                    enough.set()

        writing = asyncio.create_task(write())
        await enough.wait()
        server.kill()
        with pytest.raises(UnavailableError):
            await writing
        server.start()
        found = {item.payload["n"] async for item in scroll_all(store, NAME)}
        assert found >= set(acknowledged)
        assert len(found) - len(acknowledged) <= 1


async def test_a_collection_deleted_behind_our_back_is_seen(server: Program) -> None:
    async with connected(server) as store, raw(server) as other:
        await fill(store)
        await other.delete(f"/collections/{PHYSICAL}")
        with pytest.raises(NotFoundError):
            await store.search(NAME, [Search("d", [1, 0, 0, 0], 1)])
        assert await store.describe(NAME) is None
        with pytest.raises(NotFoundError):
            await store.upsert(NAME, [point(1)])
        await store.create_collection(NAME, VECTORS, labels={})
        assert await store.count(NAME) == 0


async def test_an_alias_taken_away_costs_no_point(server: Program) -> None:
    async with connected(server) as store, raw(server) as other:
        await fill(store)
        actions = [{"delete_alias": {"alias_name": name}} for name in (NAME, f"{NAME}--w")]
        await other.post("/collections/aliases", json={"actions": actions})
        assert await store.describe(NAME) is None
        await store.create_collection(NAME, VECTORS, labels={})
        state = await store.describe(NAME)
        assert state is not None
        assert (state.points, state.labels) == (20, {"organization": "int_a"})


async def test_an_older_server_is_rebuilt_while_others_read_and_write(old_server: Program) -> None:
    acknowledged: list[int] = []
    done = asyncio.Event()
    async with connected(old_server) as store, connected(old_server) as other:
        await fill(store)

        async def write() -> None:
            n = 100
            while not done.is_set():
                await other.upsert(NAME, [point(n)])
                acknowledged.append(n)
                n += 1

        async def read() -> None:
            while not done.is_set():
                assert await other.count(NAME, equals("color", "red")) >= 7

        others = [asyncio.create_task(write()), asyncio.create_task(read())]
        await asyncio.sleep(0.2)
        await store.add_vector(NAME, "e", VectorParams("dense", 2))
        await other.upsert(NAME, [point(99)])
        done.set()
        await asyncio.gather(*others)
        state = await store.describe(NAME)
        assert state is not None
        assert (state.physical, set(state.vectors)) == (f"{NAME}--2", {"d", "s", "e"})
        assert (state.payload_indexes, state.labels) == ({"color": "keyword"}, {"organization": "int_a"})
        found = {item.payload["n"] async for item in scroll_all(store, NAME)}
        assert found >= {*range(20), 99, *acknowledged}
        hits = (await store.search(NAME, [Search("d", [1, 0, 0, 0], 3)]))[0]
        nearest = sorted([*range(20), 99, *acknowledged], key=lambda n: -math.cos(n / 20))[:3]
        assert [hit.id for hit in hits] == [pid(n) for n in nearest]
        await store.delete_vector(NAME, "e")
        after = await store.describe(NAME)
        assert after is not None
        assert (after.physical, set(after.vectors)) == (f"{NAME}--3", {"d", "s"})
        async with raw(old_server) as look:
            left = (await look.get("/collections")).json()["result"]["collections"]
            assert [one["name"] for one in left] == [f"{NAME}--3"]


async def test_a_rebuild_that_died_is_finished_by_the_next_and_writers_wait_for_it(old_server: Program) -> None:
    async with connected(old_server) as store, raw(old_server) as other:
        await fill(store)
        # The state that a process leaves which dies while it copies.
        actions = [{"delete_alias": {"alias_name": f"{NAME}--w"}}]
        await other.post("/collections/aliases", json={"actions": actions})
        half = {"vectors": {}, "metadata": {"physical": f"{NAME}--2"}}
        assert (await other.put(f"/collections/{NAME}--2", json=half)).status_code == 200
        writing = asyncio.create_task(store.upsert(NAME, [point(50)]))
        await asyncio.sleep(0.5)
        assert not writing.done()
        assert await store.count(NAME) == 20
        await store.add_vector(NAME, "e", VectorParams("dense", 2))
        await writing
        assert await store.count(NAME) == 21


async def test_a_collection_that_others_made_is_used_as_it_is(old_server: Program) -> None:
    async with connected(old_server) as store, raw(old_server) as other:
        await other.put(f"/collections/{NAME}", json={"vectors": {"d": {"size": 4, "distance": "Cosine"}}})
        assert await store.list_collections() == [NAME]
        await store.upsert(NAME, [Point(pid(0), {"d": [1, 0, 0, 0]}, {})])
        state = await store.describe(NAME)
        assert state is not None
        assert (state.name, state.points, state.labels) == (NAME, 1, {})
        with pytest.raises(ConflictError, match=r"1\.18"):
            await store.add_vector(NAME, "e", VectorParams("dense", 2))
        await store.delete_collection(NAME)
        assert await store.list_collections() == []


async def test_a_vector_that_another_process_added_is_known_at_once(server: Program) -> None:
    async with connected(server) as ours, connected(server) as theirs:
        await fill(ours)
        assert await theirs.count(NAME) == 20
        await theirs.upsert(NAME, [point(20)])
        await ours.add_vector(NAME, "e", VectorParams("dense", 2))
        await theirs.upsert(NAME, [point(21)])
        assert await theirs.search(NAME, [Search("e", [1, 1], 1)]) == [[]]


async def test_only_a_collection_with_points_is_counted(server: Program) -> None:
    async with connected(server) as store:
        await store.create_collection(NAME, VECTORS, labels={})
        counted = AsyncMock(wraps=store._client.count)
        store._client.count = counted  # type: ignore[method-assign]

        async def seen() -> tuple[int, int]:
            state = await store.describe(NAME)
            assert state is not None
            return state.points, counted.await_count

        assert await seen() == (0, 0)
        await store.upsert(NAME, [point(1), point(2)])
        assert await seen() == (2, 1)
        await store.delete_points(NAME, [pid(1), pid(2)])
        assert await seen() == (0, 1)


async def test_an_older_look_will_do_until_we_change_something_or_there_are_points(server: Program) -> None:
    async with connected(server) as store, connected(server) as other:
        await store.create_collection(NAME, VECTORS, labels={})
        seen = await store.describe(NAME)
        await other.create_payload_index(NAME, "title", "keyword")
        assert await store.describe(NAME, max_age_s=60) == seen
        assert await store.describe(NAME, max_age_s=0.000001) == await other.describe(NAME) != seen

        await store.create_payload_index(NAME, "price", "float")
        state = await store.describe(NAME, max_age_s=60)
        assert state is not None and "price" in state.payload_indexes

        await fill(other)
        assert await store.describe(NAME) == await store.describe(NAME, max_age_s=60) == await other.describe(NAME)


async def test_a_sparse_vector_has_no_distance_to_differ_in(server: Program) -> None:
    async with connected(server) as store:
        for _ in range(2):
            await store.create_collection(NAME, {"s": VectorParams("sparse", distance="dot")}, labels={})
            await store.add_vector(NAME, "t", VectorParams("sparse", distance="dot", modifier="idf"))
            await store.delete_vector(NAME, "t")


@pytest.mark.parametrize("key", [None, "k-wrong-0123456789"])
async def test_a_key_that_the_server_refuses(server: Program, key: str | None) -> None:
    async with connected(server, key) as store:
        with pytest.raises(RefusedError, match="key") as caught:
            await store.health()
    assert "k-wrong" not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:6333", "ftp://a", "http://", ""])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(SpecError):
        QdrantServerVectors.connect(url)


async def test_names_and_keys_of_ours_are_refused(server: Program) -> None:
    async with connected(server) as store:
        for name in ("a--1", "a--w"):
            with pytest.raises(SpecError):
                await store.create_collection(name, {}, labels={})
        await fill(store)
        with pytest.raises(SpecError, match="reserved"):
            await store.set_payload(NAME, [pid(1)], {"~arrays:a": []})


async def test_arrays_are_seen_whatever_wrote_them(server: Program) -> None:
    async with connected(server) as ours, connected(server) as theirs:
        await fill(ours)
        await ours.create_payload_index(NAME, "deep.size", "integer")
        assert await ours.facet(NAME, "deep.size") == []
        await theirs.set_payload(NAME, [pid(1), pid(2)], {"deep": [{"size": 5}, {"size": 6}]})
        await theirs.set_payload(NAME, [pid(2)], {"deep": {"size": 7}})
        assert await ours.count(NAME, equals("deep.size", 5)) == 1
        assert await ours.count(NAME, equals("deep.size", 7)) == 1
        assert await ours.facet(NAME, "deep.size") == [(5, 1), (6, 1), (7, 1)]
        (found,) = await ours.get(NAME, [pid(2)])
        assert found.payload["deep"] == {"size": 7}
        assert not [key for key in found.payload if key.startswith("~")]


async def test_the_standin_refuses_what_it_does_not_have(server: Program) -> None:
    async with raw(server) as client:
        answer = await client.post("/collections/a/points/search", json={})
        assert (answer.status_code, "does not implement" in answer.text) == (501, True)
        await client.put("/collections/a", json={})
        answer = await client.post("/collections/a/points/scroll", json={"order_by": "x"})
        assert (answer.status_code, "order_by" in answer.text) == (501, True)
        answer = await client.post("/collections/a/points/scroll", json={"limit": "x"})
        assert (answer.status_code, "Format error" in answer.text) == (400, True)
