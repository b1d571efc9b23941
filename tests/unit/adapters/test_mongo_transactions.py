"""What a replica set is told: its own transactions, over the wire, in every way they can end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.servers.mongo_sockets import UNCLOSED, sockets_of_closed_clients  # noqa: F401 - used by its name
from tests.servers.replica_set import Document, Drops, Hangs, ReplicaSet, failure, replica_set

from mixpeek_operator.adapters import _mongo_commits
from mixpeek_operator.adapters.mongo_metadata import MongoMetadata
from mixpeek_operator.core.errors import AlreadyExistsError, ConflictError, InternalError, UnavailableError
from mixpeek_operator.ports.metadata import Write

TRANSIENT, UNKNOWN = "TransientTransactionError", "UnknownTransactionCommitResult"
WRITE_CONCERN_TIMEOUT, SHUTDOWN, WRITE_CONFLICT = 64, 91, 112
TAKEN = {"index": 0, "code": _mongo_commits.DUPLICATE, "errmsg": "it exists"}
WRITES = [Write("t", "n", "1", {"x": 2}), Write("u", "n", "2", {"y": 1}, 0)]


pytestmark = UNCLOSED


@pytest.fixture
async def server() -> AsyncIterator[ReplicaSet]:
    async with replica_set() as serving:
        yield serving


@pytest.fixture
async def store(server: ReplicaSet) -> AsyncIterator[MongoMetadata]:
    """A store that holds version 1 of `t/1`."""
    made = MongoMetadata(f"mongodb://{server.address}/")
    await made.put("t", "n", "1", {"x": 1}, if_version=0)
    for table in "tu":
        await made.get(table, "n", "1")
    server.asked.clear()
    yield made
    await made.close()


def bodies(server: ReplicaSet) -> dict[str, Document]:
    return {id: found["body"] for table in "tu" for id, found in server.data[table].items()}


BEFORE = {"n/1": {"x": 1}}
AFTER = {"n/1": {"x": 2}, "n/2": {"y": 1}}


async def test_a_transaction_is_told_to_the_server(server: ReplicaSet, store: MongoMetadata) -> None:
    done = await store.transact(WRITES)
    assert [record and record.version for record in done] == [2, 1]
    assert bodies(server) == AFTER
    assert server.within() == ["find", "find", "update", "insert", "commitTransaction"]
    first, *later = told = [command for command in server.asked if "txnNumber" in command]
    assert first["startTransaction"] is True
    assert not any("startTransaction" in command for command in later)
    assert {command["autocommit"] for command in told} == {False}
    assert len({command["lsid"]["id"] for command in told}) == 1
    assert len({command["txnNumber"] for command in told}) == 1


async def test_it_is_durable_as_other_writes_are(server: ReplicaSet, store: MongoMetadata) -> None:
    await store.transact(WRITES)
    first, *_, commit = [command for command in server.asked if "txnNumber" in command]
    assert first["readConcern"]["level"] == "majority"
    assert commit["writeConcern"] == {"w": "majority", "j": True}


@pytest.mark.parametrize(
    ("write", "error"),
    [
        (Write("t", "n", "1", {"x": 9}, 0), AlreadyExistsError),
        (Write("t", "n", "1", {"x": 9}, 7), ConflictError),
        (Write("t", "n", "absent", None, 1), ConflictError),
    ],
)
async def test_a_precondition_that_fails_aborts_it(
    server: ReplicaSet, store: MongoMetadata, write: Write, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await store.transact([Write("u", "n", "2", {}), write])
    assert server.within()[-1] == "abortTransaction"
    assert (server.open, bodies(server)) == ({}, BEFORE)


async def test_an_error_in_between_aborts_it(server: ReplicaSet, store: MongoMetadata) -> None:
    server.script["insert"] = [failure(2)]
    with pytest.raises(InternalError, match="code 2"):
        await store.transact(WRITES)
    assert server.within() == ["find", "find", "update", "insert", "abortTransaction"]
    assert (server.open, bodies(server)) == ({}, BEFORE)


async def test_a_document_that_is_refused_aborts_it_at_once(server: ReplicaSet, store: MongoMetadata) -> None:
    server.script["insert"] = [{"ok": 1, "n": 0, "writeErrors": [{"index": 0, "code": 121, "errmsg": "is invalid"}]}]
    with pytest.raises(InternalError):
        await store.transact(WRITES)
    assert server.within() == ["find", "find", "update", "insert", "abortTransaction"]
    assert (server.open, bodies(server)) == ({}, BEFORE)


@pytest.mark.parametrize("command", ["find", "update", "insert"])
async def test_a_cancellation_aborts_it(server: ReplicaSet, store: MongoMetadata, command: str) -> None:
    hangs = Hangs()
    server.script[command] = [hangs]
    task = asyncio.create_task(store.transact(WRITES))
    await hangs.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.within()[-1] == "abortTransaction"
    assert (server.open, bodies(server)) == ({}, BEFORE)


@pytest.mark.parametrize("command", ["find", "update", "insert", "commitTransaction"])
async def test_a_conflict_repeats_the_whole(server: ReplicaSet, store: MongoMetadata, command: str) -> None:
    server.script[command] = [failure(WRITE_CONFLICT, TRANSIENT)] * 2
    await store.transact(WRITES)
    assert bodies(server) == AFTER
    begun = [asked["txnNumber"] for asked in server.asked if asked.get("startTransaction")]
    assert len(begun) == len(set(begun)) == 3
    assert server.within()[-5:] == ["find", "find", "update", "insert", "commitTransaction"]


async def test_a_connection_lost_in_between_repeats_the_whole(server: ReplicaSet, store: MongoMetadata) -> None:
    server.script["insert"] = [Drops()]
    await store.transact(WRITES)
    assert bodies(server) == AFTER
    assert len([asked for asked in server.asked if asked.get("startTransaction")]) == 2


async def test_what_changed_since_it_was_looked_at_is_looked_at_again(server: ReplicaSet, store: MongoMetadata) -> None:
    """Not every server has snapshots: an update may find no document of the version read, an insert one that is new."""
    server.script["update"] = [{"ok": 1, "n": 0, "nModified": 0}]
    server.script["insert"] = [{"ok": 1, "n": 0, "writeErrors": [TAKEN]}]
    await store.transact(WRITES)
    assert bodies(server) == AFTER
    assert server.within().count("abortTransaction") == 2
    assert server.within()[-5:] == ["find", "find", "update", "insert", "commitTransaction"]


@pytest.mark.parametrize("reply", [failure(WRITE_CONCERN_TIMEOUT, UNKNOWN), failure(SHUTDOWN, UNKNOWN), Drops()])
async def test_a_commit_without_a_result_is_repeated_alone(
    server: ReplicaSet, store: MongoMetadata, reply: Document | Drops
) -> None:
    server.script["commitTransaction"] = [reply] * 2
    await store.transact(WRITES)
    assert bodies(server) == AFTER
    assert server.within() == ["find", "find", "update", "insert", *["commitTransaction"] * 3]
    assert len({command["txnNumber"] for command in server.sent("commitTransaction")}) == 1


async def test_locks_of_a_process_that_took_the_server_for_a_standalone_are_settled(
    server: ReplicaSet, store: MongoMetadata
) -> None:
    server.data["_transactions"]["l"] = {"_id": "l", "state": "committed", "tables": ["t"], "at": 0.0}
    server.data["t"]["n/1"] |= {"lock": "l", "next": {"version": 2, "body": {"x": 5}}}
    done = await store.transact(WRITES)
    assert [record and record.version for record in done] == [3, 1]
    assert bodies(server) == AFTER
    assert server.data["t"]["n/1"].keys() == {"_id", "namespace_id", "id", "sequence", "version", "body"}
    assert server.data["_transactions"] == {}


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("update", failure(WRITE_CONFLICT, TRANSIENT)),
        ("commitTransaction", failure(WRITE_CONFLICT, TRANSIENT)),
        ("commitTransaction", failure(WRITE_CONCERN_TIMEOUT, UNKNOWN)),
        ("update", {"ok": 1, "n": 0, "nModified": 0}),
        ("insert", {"ok": 1, "n": 0, "writeErrors": [TAKEN]}),
    ],
)
async def test_it_gives_up_with_our_own_error(
    server: ReplicaSet, store: MongoMetadata, monkeypatch: pytest.MonkeyPatch, command: str, reply: Document
) -> None:
    monkeypatch.setattr(_mongo_commits, "PATIENCE_S", 0.3)
    server.script[command] = [reply] * 500
    with pytest.raises(UnavailableError):
        await store.transact(WRITES)
    assert bodies(server) == BEFORE


async def test_a_server_that_is_away_is_not_waited_for_as_a_conflict_is(
    server: ReplicaSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_mongo_commits, "PATIENCE_S", 600)
    store = MongoMetadata(f"mongodb://{server.address}/")
    hangs = Hangs()
    server.script["update"] = [hangs]
    await store.put("t", "n", "1", {"x": 1}, if_version=0)
    task = asyncio.create_task(store.transact(WRITES))
    await hangs.reached.wait()
    server.away = True
    server.script["update"] = []
    hangs.go.set()
    async with asyncio.timeout(60):
        with pytest.raises(UnavailableError, match=server.address):
            await task
    assert bodies(server) == BEFORE
    server.away = False
    await store.transact(WRITES)
    assert bodies(server) == AFTER
    await store.close()
