"""`sql_lookup` through connections that are kept, to a SQLite file and to a real PostgreSQL."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.servers import postgres
from tests.unit.retrieval.stages.calling import call
from tests.unit.retrieval.stages.running import REGISTRY, Outcome, refused

from mixpeek_operator.access.connections import Connections
from mixpeek_operator.access.secrets import StoredSecrets
from mixpeek_operator.adapters.outbound import GuardedClient
from mixpeek_operator.adapters.sql import SqlDrivers
from mixpeek_operator.adapters.sqlite_metadata import SqliteMetadata
from mixpeek_operator.api.catalog import stage_discovery
from mixpeek_operator.core.errors import AlreadyExistsError, ConflictError, MixpeekError, NotFoundError, SpecError

QUERY = "SELECT name, tier FROM customers WHERE id = :customer"
DOCUMENTS = [{"document_id": f"d{index}", "customer_id": f"c{index % 3}"} for index in range(6)]
SLOW = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) AS x FROM n"


@pytest.fixture
async def connections(tmp_path: Path) -> AsyncIterator[Connections]:
    """With one named crm: customers c0 (gold) and c1 (silver), and four orders of c0."""
    with contextlib.closing(sqlite3.connect(tmp_path / "crm.db")) as file:
        file.executescript(
            "CREATE TABLE customers (id, name, tier); CREATE TABLE orders (id, customer);"
            "INSERT INTO customers VALUES ('c0', 'Ann', 'gold'), ('c1', 'Bob', 'silver');"
            "INSERT INTO orders VALUES (1, 'c0'), (2, 'c0'), (3, 'c0'), (4, 'c0');"
        )
    store = SqliteMetadata(tmp_path / "metadata.db")
    drivers = SqlDrivers(GuardedClient(allow_cidrs="127.0.0.0/8"), tmp_path)
    made = Connections(store, StoredSecrets(store, b"k" * 32), drivers)
    request = {"name": "crm", "provider_type": "sqlite", "provider_config": {"database": "crm.db"}}
    await made.create("int_test", request, created_by=None)
    yield made
    await store.close()


async def lookup(
    connections: Connections, params: Mapping[str, Any], documents: Sequence[Mapping[str, Any]] = DOCUMENTS
) -> Outcome:
    body = {"connection_id": "crm", "query": QUERY, "parameters": {"customer": "{{DOC.customer_id}}"}, **params}
    return await call("sql_lookup", documents, body, {"limit": 2}, databases=connections)


async def test_each_document_gets_its_row(connections: Connections) -> None:
    made = await lookup(connections, {})
    ann, bob = {"name": "Ann", "tier": "gold"}, {"name": "Bob", "tier": "silver"}
    assert [item["sql_result"] for item in made] == [ann, bob, None, ann, bob, None]
    assert made.metadata == {"queries": 3, "called": 6, "failed": 0}


async def test_all_rows(connections: Connections) -> None:
    params = {
        "query": "SELECT id FROM orders WHERE customer = :customer ORDER BY id LIMIT :most",
        "parameters": {"customer": "{{DOC.customer_id}}", "most": "{{INPUT.limit}}"},
        "multiple_rows": True,
        "result_field": "crm.orders",
    }
    made = await lookup(connections, params)
    assert [len(item["crm"]["orders"]) for item in made] == [2, 0, 0, 2, 0, 0]
    many = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 2000) SELECT x FROM n"
    made = await lookup(connections, {"query": many, "parameters": {}, "result_handling": "all"}, DOCUMENTS[:1])
    assert len(made[0]["sql_result"]) == 1000
    assert "more than 1000 rows" in made.warnings[0]


@pytest.mark.parametrize(
    ("params", "left"),
    [
        ({"on_no_results": "skip"}, [True, True, False]),
        ({"on_no_results": "error", "on_error": "skip"}, [True, True, False]),
        ({"on_no_results": "error", "on_error": "remove"}, [True, True]),
        ({"result_handling": "error_if_empty", "on_error": "remove"}, [True, True]),
    ],
)
async def test_documents_without_a_row(connections: Connections, params: Any, left: list[bool]) -> None:
    made = await lookup(connections, params, DOCUMENTS[:3])
    assert ["sql_result" in item for item in made] == left


async def test_more_rows_than_wanted(connections: Connections) -> None:
    params = {"query": "SELECT id FROM orders WHERE customer = $1", "result_handling": "error_if_multiple"}
    with pytest.raises(MixpeekError, match="more than one row"):
        await lookup(connections, params)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"query": "SELECT none FROM customers", "parameters": {}}, "no such column"),
        ({"connection_id": "other"}, "no connection 'other'"),
    ],
)
async def test_failures(connections: Connections, params: Any, message: str) -> None:
    for on_error in (None, "raise"):
        with pytest.raises(MixpeekError, match=message):
            await lookup(connections, {**params, "on_error": on_error})
    made = await lookup(connections, {**params, "on_error": "skip"})
    assert made == DOCUMENTS
    assert message in made.warnings[0]
    assert await lookup(connections, {**params, "on_error": "remove"}) == []


async def test_a_query_that_takes_too_long_is_null(connections: Connections) -> None:
    slow = {"query": SLOW, "parameters": {}, "timeout_ms": 50}
    made = await lookup(connections, slow, DOCUMENTS[:1])
    assert made[0]["sql_result"] is None
    assert made.metadata["timed_out"] == 1
    with pytest.raises(MixpeekError, match="longer than"):
        await lookup(connections, {**slow, "on_error": "raise"}, DOCUMENTS[:1])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"query": "DELETE FROM customers"}, "begins with DELETE"),
        ({"query": "SELECT 1; SELECT 2"}, "behind the semicolon"),
        ({"query": "SELECT {{DOC.x}}"}, "holds no templates"),
        ({"query": "SELECT {DOC.x}"}, "holds no templates"),
        ({"query": "SELECT :y"}, "uses :y"),
        ({"query": "SELECT 1", "parameters": {"x": 1}}, "does not use"),
        ({"querry": "SELECT 1"}, "did you mean 'query'"),
    ],
)
def test_what_cannot_work_is_refused_at_creation(params: Any, message: str) -> None:
    refused("sql_lookup", {"connection_id": "crm", "query": "SELECT 1", **params}, message)


async def test_the_example_of_the_catalogue(connections: Connections) -> None:
    example = stage_discovery(REGISTRY.stages()["sql_lookup"])["example_config"]
    made = await lookup(connections, example["config"]["parameters"], DOCUMENTS[:1])
    assert made[0]["customer"] == {"name": "Ann", "tier": "gold"}


async def test_a_connection_to_postgresql_and_its_password(connections: Connections) -> None:
    with postgres.postgres() as port:
        with contextlib.closing(postgres.connect(port)) as database:
            database.execute("CREATE SCHEMA crm")
            database.execute("CREATE TABLE crm.customers (id text, name text, tier text)")
            database.execute("INSERT INTO crm.customers VALUES ('c0', 'Ann', 'gold')")
        config = {
            "host": "localhost",
            "port": port,
            "database": "postgres",
            "schema": "crm",
            "credentials": {"username": postgres.USER, "password": postgres.PASSWORD},
        }
        request = {"name": "pg", "provider_type": "postgresql", "provider_config": config}
        made = await connections.create("int_test", request, created_by="usr_1")
        assert postgres.PASSWORD not in str(made)
        assert made["provider_config"]["credentials"] == {
            "type": "username_password",
            "username": postgres.USER,
            "password": "********",
        }
        for connection in ("pg", made["connection_id"]):
            rows = await lookup(connections, {"connection_id": connection}, DOCUMENTS[:2])
            assert [item["sql_result"] for item in rows] == [{"name": "Ann", "tier": "gold"}, None]
        wrong = {**config, "credentials": {"username": postgres.USER, "password": "wrong"}}
        with pytest.raises(MixpeekError, match="refuses the login"):
            await connections.create("int_test", {**request, "name": "x", "provider_config": wrong}, created_by=None)
        await connections.update("int_test", "pg", {"provider_config": wrong})
        tested = await connections.test("int_test", "pg")
        assert (tested["success"], tested["details"]) == (False, {"code": "login_refused"})
    with pytest.raises(NotFoundError):
        await connections.get("int_other", "pg")
    await connections.delete("int_test", "pg")
    assert (await connections.find("int_test", provider_type=None, status=None, is_active=None))[0]["name"] == "crm"


async def test_connections_are_kept_with_care(connections: Connections) -> None:
    crm = {"name": "crm", "provider_type": "sqlite", "provider_config": {"database": "crm.db"}}
    with pytest.raises(AlreadyExistsError):
        await connections.create("int_test", crm, created_by=None)
    for change, message in [
        ({"provider_type": "s3"}, "there are mysql, postgresql, sqlite"),
        ({"provider_config": {}}, "Field required"),
        ({"provider_config": {"database": "none.db"}}, "no SQLite file"),
        ({"provider_type": "mysql", "provider_config": {"host": "a b", "database": "x"}}, "pattern"),
    ]:
        with pytest.raises(SpecError, match=message):
            await connections.create("int_test", {**crm, "name": "other", **change}, created_by=None)
    await connections.update("int_test", "crm", {"is_active": False, "name": "old"})
    with pytest.raises(ConflictError, match="suspended"):
        await lookup(connections, {"connection_id": "old"})
    await connections.update("int_test", "old", {"status": "ACTIVE"})
    assert len(await lookup(connections, {"connection_id": "old"})) == 6
