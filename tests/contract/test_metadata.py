"""What every MetadataStore does; an adapter joins in the fixture `opened`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo import AsyncMongoClient, errors
from pymongo.asynchronous.pool import AsyncConnection
from tests.servers import stores
from tests.servers.mongo_sockets import UNCLOSED, sockets_of_closed_clients  # noqa: F401 - used by its name
from tests.servers.process import Program

from mixpeek_operator.adapters import _mongo_commits, _mongo_errors, _sqlite
from mixpeek_operator.adapters.mongo_metadata import MongoMetadata
from mixpeek_operator.adapters.sqlite_metadata import SqliteMetadata
from mixpeek_operator.core.errors import AlreadyExistsError, ConflictError, MixpeekError, SpecError, UnavailableError
from mixpeek_operator.core.filters import Compare, Filter, Not, Operator, equals, matches, one_of, parse
from mixpeek_operator.ports.metadata import MetadataStore, Write

Open = Callable[[], MetadataStore]

pytestmark = UNCLOSED


@pytest.fixture(scope="session")
def mongo_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if given := os.environ.get("MONGO_URI"):
        yield given
        return
    with stores.ferretdb(tmp_path_factory.mktemp("ferretdb")) as server:
        yield f"mongodb://127.0.0.1:{server.port}/"


@pytest.fixture(params=["sqlite", "mongodb"])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens stores on the same data."""
    if request.param == "sqlite":
        yield lambda: SqliteMetadata(tmp_path / "metadata.db")
        return
    uri = request.getfixturevalue("mongo_uri")
    async with database(uri) as own:
        yield lambda: MongoMetadata(own)


@pytest.fixture
async def store(opened: Open) -> AsyncIterator[MetadataStore]:
    made = opened()
    yield made
    await made.close()


@contextlib.asynccontextmanager
async def database(uri: str) -> AsyncIterator[str]:
    """The URI of a database of one test, which is gone afterwards."""
    name = f"test_{uuid.uuid4().hex}"
    yield in_database(uri, name)
    client: AsyncMongoClient[Any] = AsyncMongoClient(uri)
    await client.drop_database(name)
    await client.close()


def in_database(uri: str, name: str) -> str:
    return urlsplit(uri)._replace(path=f"/{name}").geturl()


async def test_put_counts_versions_and_get_reads_them(store: MetadataStore) -> None:
    assert await store.get("objects", "ns_a", "1") is None
    assert (await store.put("objects", "ns_a", "1", {"a": [1, {"b": None}], "ü": "ß"})).version == 1
    assert (await store.put("objects", "ns_a", "1", {"a": 2})).version == 2
    found = await store.get("objects", "ns_a", "1")
    assert found is not None
    assert (found.id, found.version, found.body) == ("1", 2, {"a": 2})


async def test_tables_and_namespaces_do_not_meet(store: MetadataStore) -> None:
    await store.put("objects", "ns_a", "1", {"bucket_id": "b"})
    await store.put("objects", "ns_b", "1", {"bucket_id": "b"})
    await store.put("tasks", "ns_a", "1", {"bucket_id": "b"})
    assert len(await store.find("objects", "ns_a", filter=equals("bucket_id", "b"))) == 1
    assert await store.delete_where("objects", "ns_a") == 1
    assert await store.count("objects", "ns_b") == 1
    assert await store.count("tasks", "ns_a") == 1
    assert await store.get_many("objects", "ns_a", ["1"]) == []


async def test_total_counts_and_sums_what_matches(store: MetadataStore) -> None:
    for id, bucket, size in (("1", "a", 10), ("2", "a", 2.5), ("3", "b", 100), ("4", "a", None)):
        await store.put("objects", "n", id, {"bucket_id": bucket, "_size": size, "tag": [bucket]})
    assert await store.total("objects", "n", "_size", equals("bucket_id", "a")) == (3, 12.5)
    assert await store.total("objects", "n", "_size", equals("tag", "b")) == (1, 100)
    assert await store.total("objects", "n", "_size") == (4, 112.5)
    assert await store.total("objects", "other", "_size") == (0, 0)


async def test_optimistic_concurrency(store: MetadataStore) -> None:
    await store.put("t", "n", "1", {}, if_version=0)
    with pytest.raises(AlreadyExistsError):
        await store.put("t", "n", "1", {}, if_version=0)
    await store.put("t", "n", "1", {"x": 1}, if_version=1)
    with pytest.raises(ConflictError):
        await store.put("t", "n", "1", {"x": 2}, if_version=1)
    with pytest.raises(ConflictError):
        await store.put("t", "n", "absent", {}, if_version=3)
    with pytest.raises(ConflictError):
        await store.transact([Write("t", "n", "1", None, if_version=1)])
    await store.transact([Write("t", "n", "1", None, if_version=2)])
    assert await store.get("t", "n", "1") is None


async def test_one_of_many_concurrent_writers_wins(store: MetadataStore) -> None:
    await store.put("t", "n", "1", {"by": -1})
    results = await asyncio.gather(
        *(store.put("t", "n", "1", {"by": n}, if_version=1) for n in range(30)), return_exceptions=True
    )
    assert sum(isinstance(result, ConflictError) for result in results) == 29
    created = await asyncio.gather(
        *(store.put("t", "n", "2", {"by": n}, if_version=0) for n in range(30)), return_exceptions=True
    )
    assert sum(isinstance(result, AlreadyExistsError) for result in created) == 29


async def test_a_transaction_is_all_or_nothing(store: MetadataStore) -> None:
    await store.put("t", "n", "1", {"x": 1})
    with pytest.raises(ConflictError):
        await store.transact([Write("t", "n", "1", {"x": 2}), Write("u", "n", "2", {}), Write("t", "n", "3", {}, 9)])
    assert await store.count("u", "n") == 0
    done = await store.transact([Write("t", "n", "1", None), Write("u", "m", "2", {"y": 1}, 0)])
    assert done[0] is None
    assert done[1] is not None
    assert done[1].version == 1
    assert await store.count("t", "n") == 0


async def test_delete_says_whether_there_was_one(store: MetadataStore) -> None:
    await store.put("t", "n", "1", {})
    assert await store.delete("t", "n", "1")
    assert not await store.delete("t", "n", "1")


async def test_get_many_keeps_the_order_asked(store: MetadataStore) -> None:
    await store.transact([Write("t", "n", str(n), {"n": n}) for n in range(520)])
    wanted = [str(n) for n in reversed(range(510))]
    assert [found.id for found in await store.get_many("t", "n", [*wanted[:5], "absent", *wanted[5:]])] == wanted


BODIES = [
    {"n": 1, "state": "A", "at": "2026-01-02", "tags": ["x", "y"], "deep": {"k": "v"}, "items": [{"k": 1}, {"k": 2}]},
    {"n": 2.0, "state": "B", "at": "2026-01-01T12:00:00+02:00", "tags": [], "deep": {}},
    {"n": "2", "state": None, "flag": True, "text": "Hello brave World"},
    {"n": [3, 4], "state": "A", "flag": False, "deep": [{"k": "v"}]},
    {"n": None, "batch_id": "bat_1", "state": "ab"},
    {"n": True, "bucket_id": "b1"},
]
FILTERS = [
    {"field": "n", "value": 1},
    {"field": "n", "value": 2},
    {"field": "n", "value": True},
    {"field": "n", "operator": "ne", "value": 1},
    {"field": "n", "operator": "gt", "value": 1},
    {"field": "n", "operator": "lte", "value": 3},
    {"field": "n", "operator": "in", "value": [1, "2", None]},
    {"field": "n", "operator": "nin", "value": [1, 4]},
    {"field": "n", "operator": "is_null"},
    {"field": "n", "operator": "exists", "value": True},
    {"field": "state", "value": "A"},
    {"field": "state", "operator": "in", "value": ["A", "B"]},
    {"field": "state", "operator": "in", "value": []},
    {"field": "state", "operator": "ne", "value": "A"},
    {"field": "state", "value": "AB", "case_insensitive": True},
    {"NOT": [{"field": "state", "value": "A"}, {"field": "flag", "value": True}]},
    {"OR": [{"field": "state", "value": "B"}, {"field": "text", "operator": "contains", "value": "brave"}]},
    {"field": "tags", "value": "x"},
    {"field": "tags", "operator": "exists", "value": False},
    {"field": "deep.k", "value": "v"},
    {"field": "items.k", "operator": "gte", "value": 2},
    {"field": "at", "operator": "gt", "value": "2026-01-01T10:30:00Z"},
    {"field": "text", "operator": "text", "value": "world hello"},
    {"field": "text", "operator": "regex", "value": "^Hello"},
    {"field": "batch_id", "value": "bat_1"},
    {"field": "o'; DROP TABLE records; --", "value": 1},
    {"AND": [{"field": "state", "value": "A"}, {"field": "n", "operator": "gte", "value": 3}]},
    {"NOT": [{"field": "state", "operator": "in", "value": ["A"]}]},
]


@pytest.mark.parametrize("body", FILTERS, ids=str)
async def test_filters_mean_what_core_says(store: MetadataStore, body: dict) -> None:
    await store.transact([Write("t", "n", str(n), record) for n, record in enumerate(BODIES)])
    filter = parse(body)
    expected = [str(n) for n, record in enumerate(BODIES) if matches(filter, record)]
    assert [found.id for found in await store.find("t", "n", filter=filter)] == expected
    assert await store.count("t", "n", filter) == len(expected)
    assert await store.delete_where("t", "n", filter) == len(expected)
    assert await store.count("t", "n") == len(BODIES) - len(expected)


async def test_an_indexed_field_that_holds_an_array_is_found_by_element(store: MetadataStore) -> None:
    await store.put("t", "n", "1", {"bucket_id": ["b1", "b2"]})
    assert await store.count("t", "n", equals("bucket_id", "b2")) == 1
    assert await store.count("t", "n", Not((one_of("bucket_id", ["b2"]),))) == 0


async def test_find_sorts_pages_and_keeps_insertion_order(store: MetadataStore) -> None:
    for n, color in enumerate(["red", "blue", "red", "green", None]):
        await store.put("t", "n", str(n), {"color": color, "n": n} if color else {"n": n})
    await store.put("t", "n", "0", {"color": "red", "n": 9})

    async def ids(sort: list[tuple[str, str]], filter: Filter | None = None, **page: int) -> str:
        return "".join(found.id for found in await store.find("t", "n", sort=sort, filter=filter, **page))

    assert await ids([]) == "01234"
    assert await ids([("color", "asc")]) == "13024"
    assert await ids([("color", "desc"), ("n", "desc")]) == "02314"
    assert await ids([("n", "desc")], limit=2, offset=1) == "43"
    assert await ids([("n", "asc")], Compare("color", Operator.EXISTS, True), limit=3) == "123"
    assert await ids([], limit=0) == ""


async def test_claim_hands_out_the_oldest_once_until_the_lease_ends(store: MetadataStore) -> None:
    await store.put("batches", "ns_a", "1", {"state": "DONE"})
    await store.put("batches", "ns_b", "2", {"state": "PENDING"})
    await store.put("batches", "ns_a", "3", {"state": "RUNNING"})
    await store.put("tasks", "ns_a", "4", {"state": "PENDING"})

    async def claim(owner: str, now: float) -> tuple[str, str] | None:
        got = await store.claim("batches", states=["PENDING", "RUNNING"], owner=owner, lease_s=10, now=now)
        if got is None:
            return None
        namespace, record = got
        assert record.body["lease_owner"] == owner
        assert record.body["lease_until"] == now + 10
        assert await store.get("batches", namespace, record.id) == record
        return namespace, record.id

    assert await claim("one", 100) == ("ns_b", "2")
    assert await claim("two", 100) == ("ns_a", "3")
    assert await claim("three", 109.9) is None
    assert await claim("three", 110) == ("ns_b", "2")
    assert await store.claim("batches", states=[], owner="x", lease_s=1, now=999) is None


async def test_two_owners_never_claim_the_same(store: MetadataStore) -> None:
    await store.transact([Write("batches", f"ns_{n % 3}", str(n), {"state": "PENDING"}) for n in range(60)])

    async def work(owner: str) -> list[str]:
        taken: list[str] = []
        while got := await store.claim("batches", states=["PENDING"], owner=owner, lease_s=60, now=1.0):
            taken.append(got[1].id)
        return taken

    taken = await asyncio.gather(*(work(f"w{n}") for n in range(8)))
    assert sorted((id for part in taken for id in part), key=int) == [str(n) for n in range(60)]


async def test_health_and_restart(opened: Open) -> None:
    store = opened()
    await store.put("t", "n", "1", {"x": 1})
    await store.health()
    await store.close()
    store = opened()
    found = await store.get("t", "n", "1")
    assert found is not None
    assert found.body == {"x": 1}
    await store.close()


async def test_ids_with_slashes_do_not_meet(store: MetadataStore) -> None:
    for namespace, id in (("a", "b/c"), ("a/b", "c"), ("a%2Fb", "c")):
        await store.put("t", namespace, id, {"is": [namespace, id]}, if_version=0)
    found = await store.get("t", "a/b", "c")
    assert found is not None
    assert found.body == {"is": ["a/b", "c"]}


NAMES = st.text(st.sampled_from("ab.$_[]\0é "), max_size=4)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.dictionaries(NAMES, JSON, max_size=4))
async def test_any_json_is_given_back(store: MetadataStore, body: dict) -> None:
    # FerretDB 1.24 takes bodies that differ in the names of fields alone for equal and keeps the old one (its
    # types.Identical compares values only), so each example starts without a record.
    for table in ("t", "u"):
        await store.delete_where(table, "n")
    await store.put("t", "n", "1", body)
    found = await store.get("t", "n", "1")
    assert found is not None
    assert found.body == body
    (other,) = await store.transact([Write("u", "n", "1", body)])
    assert other is not None
    assert [record.body for record in await store.find("u", "n", sort=[("a", "asc")])] == [body]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=JSON,
    wanted=JSON,
    operator=st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "contains", "exists", "is_null"]),
)
async def test_filters_mean_the_same_on_any_json(
    store: MetadataStore, value: object, wanted: object, operator: str
) -> None:
    body = {"f": value}
    await store.put("t", "n", "1", body)
    filter = Compare("f", Operator(operator), [wanted, 1, "a"] if operator in ("in", "nin") else wanted)
    for each in (filter, Not((filter,))):
        assert await store.count("t", "n", each) == matches(each, body), (each, body)


async def test_a_list_that_keeps_an_element_is_written(store: MetadataStore) -> None:
    for body in (
        {"a": ["x", "y"], "d": [{"k": 1}, {"k": 2}]},
        {"a": ["x", "z"], "d": [{"k": 1}, {"l": 2}]},
        {"a": ["x"]},
    ):
        await store.put("t", "n", "1", body)
        found = await store.get("t", "n", "1")
        assert found is not None
        assert found.body == body


async def test_transactions_of_many_writers_leave_whole_sets(store: MetadataStore) -> None:
    """Each writer sets all of three records to its own mark: a mixture would be half a transaction."""

    async def write(mark: int) -> None:
        for _ in range(3):
            await store.transact([Write(f"t{n}", "n", "1", {"by": mark}) for n in range(3)])

    await asyncio.gather(*(write(mark) for mark in range(5)))
    found = [await store.get(f"t{n}", "n", "1") for n in range(3)]
    assert len({record.body["by"] for record in found if record}) == 1
    assert [record.version for record in found if record] == [15, 15, 15]


async def test_a_transaction_may_write_a_record_twice(store: MetadataStore) -> None:
    await store.put("t", "n", "old", {})
    done = await store.transact(
        [
            Write("t", "n", "1", {"x": 1}, 0),
            Write("t", "n", "1", {"x": 2}, 1),
            Write("t", "n", "old", None),
            Write("t", "n", "old", {"new": True}, 0),
            Write("t", "n", "gone", {}, 0),
            Write("t", "n", "gone", None, 1),
        ]
    )
    assert [record and record.version for record in done] == [1, 2, None, 1, 1, None]
    assert {record.id: record.body for record in await store.find("t", "n")} == {"old": {"new": True}, "1": {"x": 2}}


WRITER = """
    import asyncio, sys
    sys.path[:0] = {paths!r}
    from pathlib import Path
    from mixpeek_operator.adapters.mongo_metadata import MongoMetadata
    from mixpeek_operator.adapters.sqlite_metadata import SqliteMetadata
    from mixpeek_operator.ports.metadata import Write
    async def main():
        store = {store}
        n = 0
        while True:
            await store.transact([Write(table, "n", str(n), {{"n": n}}) for table in "tu"])
            n += 1
            print(n, flush=True)
    asyncio.run(main())
"""


def write_until_killed(store: str, acknowledged: int) -> int:
    """Return how many pairs of records were written to a store, given as the code that opens it, before `kill -9`."""
    code = textwrap.dedent(WRITER.format(paths=[p for p in sys.path if p], store=store))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(acknowledged)]
    os.kill(process.pid, signal.SIGKILL)
    lines += process.stdout.readlines()
    process.stdout.close()
    process.wait()
    return int(next(line for line in reversed(lines) if line.endswith("\n")))


# SQLite's own.


async def test_sqlite_loses_nothing_acknowledged_to_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    written = write_until_killed(f"SqliteMetadata(Path({str(path)!r}))", 200)
    store = SqliteMetadata(path)
    assert await store.count("t", "n") in (written, written + 1)
    assert await store.count("u", "n") == await store.count("t", "n")
    await store.close()


async def test_sqlite_says_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    (tmp_path / "bad.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(MixpeekError, match=r"bad\.db"):
        SqliteMetadata(tmp_path / "bad.db")


async def test_sqlite_refuses_the_file_of_a_newer_version(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "new.db") as connection:
        connection.execute("PRAGMA user_version=999")
    connection.close()
    with pytest.raises(ConflictError, match="newer"):
        SqliteMetadata(tmp_path / "new.db")


def test_every_sqlite_error_is_ours_at_the_edge() -> None:
    kinds = [found for found in vars(sqlite3).values() if isinstance(found, type) and issubclass(found, sqlite3.Error)]
    assert len(kinds) >= 9
    for kind in kinds:
        translated = _sqlite.translate(kind("it failed"), Path("/secret/place/x.db"))
        assert isinstance(translated, MixpeekError)
        assert "/secret" not in str(translated)
    assert isinstance(_sqlite.translate(sqlite3.OperationalError("database is locked"), Path("x")), UnavailableError)


# MongoDB's own.


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Program]:
    with stores.ferretdb(tmp_path / "ferretdb") as started:
        yield started


async def test_mongo_loses_nothing_acknowledged_to_kill_9_and_comes_back(server: Program) -> None:
    store = MongoMetadata(f"mongodb://127.0.0.1:{server.port}/")
    written: list[int] = []
    some = asyncio.Event()

    async def write() -> None:
        for n in range(10_000):
            await store.transact([Write("t", "n", str(n), {"n": n}), Write("u", "n", str(n), {"n": n})])
            written.append(n)
            if n == 5:
                some.set()

    task = asyncio.create_task(write())
    await some.wait()
    server.kill()
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1"):
        await task
    with pytest.raises(UnavailableError):
        await store.health()
    server.start()
    for n in written:
        for table in ("t", "u"):
            found = await store.get(table, "n", str(n))
            assert found is not None
            assert found.body == {"n": n}
    last = str(len(written))
    halves = [await store.get(table, "n", last) for table in ("t", "u")]
    assert halves[0] == halves[1]
    await store.close()


async def test_a_process_killed_within_a_transaction_leaves_whole_ones(mongo_uri: str) -> None:
    for acknowledged in (1, 7, 20):
        async with database(mongo_uri) as uri:
            written = write_until_killed(f"MongoMetadata({uri!r})", acknowledged)
            store = MongoMetadata(uri)
            pairs = [[await store.get(table, "n", str(n)) for table in "tu"] for n in range(written + 2)]
            await store.close()
        assert all(one == other for one, other in pairs)
        assert all(one is not None for one, _ in pairs[:written])
        assert pairs[-1] == [None, None]


async def test_what_a_dead_process_left_half_done_is_finished_or_undone(server: Program) -> None:
    uri = f"mongodb://127.0.0.1:{server.port}/"
    outcomes = set()
    for steps in range(1, 14):
        dying, other = (MongoMetadata(in_database(uri, f"steps{steps}")) for _ in range(2))
        await other.put("t", "n", "old", {"x": 1})
        await other.put("u", "n", "gone", {"x": 1})
        await dying.count("t", "n")
        await dying.count("u", "n")
        left = steps
        command = AsyncConnection.command

        async def until_dead(self: Any, *given: Any, command: Any = command, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise errors.AutoReconnect("the process died")
            return await command(self, *given, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(AsyncConnection, "command", until_dead)
            writes = [Write("t", "n", "old", {"x": 2}), Write("t", "n", "new", {}, 0), Write("u", "n", "gone", None)]
            with contextlib.suppress(UnavailableError):
                await dying.transact(writes)
        await dying.close()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_mongo_commits, "STALE_S", 0.0)
            await other.put("t", "n", "old2", {})
            await other.claim("t", states=["none"], owner="o", lease_s=1, now=1)
            places = (("t", "n", "old"), ("t", "n", "new"), ("u", "n", "gone"))
            old, new, gone = [await other.get(*place) for place in places]
        assert old is not None
        done = old.body == {"x": 2}
        assert (new is not None, gone is None) == (done, done), steps
        outcomes.add(done)
        assert await other.count("t", "n") == 2 + done
        assert await other.delete_where("t", "n") == 2 + done
        await other.close()
    assert outcomes == {True, False}


async def test_no_message_of_mongo_holds_the_password() -> None:
    store = MongoMetadata("mongodb://user:hunter2@127.0.0.1:1/")
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1") as caught:
        await store.health()
    assert "hunter2" not in str(caught.value)
    await store.close()
    with pytest.raises(SpecError) as wrong:
        MongoMetadata("mongo://user:hunter2@nowhere")
    assert "hunter2" not in str(wrong.value)


def test_every_mongo_error_is_ours_at_the_edge() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.PyMongoError)]
    assert len(kinds) > 20
    for kind in kinds:
        made = kind.__new__(kind)
        Exception.__init__(made, "it failed")
        made.__dict__.update({"_OperationFailure__code": 1, "_OperationFailure__details": {}, "_message": "it failed"})
        made.__dict__["_error_labels"] = set()
        assert isinstance(_mongo_errors.translate(made, "host"), MixpeekError)
