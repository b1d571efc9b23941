"""What every database driver does: PostgreSQL, SQLite, and MariaDB where one is installed."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.servers import mariadb, postgres

from mixpeek_operator.adapters.outbound import GuardedClient
from mixpeek_operator.adapters.sql import SqlDrivers
from mixpeek_operator.core.errors import MixpeekError
from mixpeek_operator.core.sql import parse
from mixpeek_operator.ports.sql import Rows, SqlServer

SETUP = [
    "CREATE TABLE customers (id varchar(20) PRIMARY KEY, name varchar(100), credit numeric(10,2), joined date)",
    "INSERT INTO customers VALUES ('c1', 'Ann O''Hara', 10.50, '2026-01-02'), ('c2', 'B;%s ''--', 20.00, NULL)",
]


@dataclass
class Place:
    """A database with the customers in it."""

    server: SqlServer
    slow: str
    writes: tuple[str, ...]
    folder: Path | None = None
    allow_cidrs: str = "127.0.0.0/8"

    async def rows(self, query: str, values: dict[str, Any] | None = None, *, most: int = 100) -> tuple[Rows, bool]:
        drivers = SqlDrivers(GuardedClient(allow_cidrs=self.allow_cidrs), self.folder)
        async with drivers.session(self.server, timeout_s=2.0) as session:
            return await session.rows(parse(query, tuple(values or ())), values or {}, most=most)


@pytest.fixture(scope="module")
def postgres_port() -> Iterator[int]:
    with postgres.postgres() as port:
        with contextlib.closing(postgres.connect(port)) as connection:
            for line in SETUP:
                connection.execute(line.encode())
        yield port


@pytest.fixture(scope="module")
def mariadb_port() -> Iterator[int]:
    with mariadb.mariadb() as port:
        with contextlib.closing(mariadb.connect(port)) as connection, connection.cursor() as cursor:
            for line in SETUP:
                cursor.execute(line)
        yield port


@pytest.fixture(params=["postgresql", "sqlite", "mysql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Each engine, with statements that would write if they could."""
    if request.param == "postgresql":
        port = request.getfixturevalue("postgres_port")
        server = SqlServer("postgresql", "postgres", "localhost", port, postgres.USER, postgres.PASSWORD, "public")
        writes = (
            "WITH gone AS (DELETE FROM customers RETURNING id) SELECT * FROM gone",
            "SELECT nextval('pg_catalog.none')",
            "SELECT set_config('transaction_read_only', 'off', false)",
            "SELECT lo_create(1)",
            "SELECT * FROM customers FOR UPDATE",
        )
        return Place(server, "SELECT pg_sleep(30)", writes)
    if request.param == "mysql":
        port = request.getfixturevalue("mariadb_port")
        digits = " UNION ALL ".join(f"SELECT {digit} AS x" for digit in range(10))
        slow = f"WITH d AS ({digits}) SELECT count(*) AS n FROM {', '.join(f'd AS {name}' for name in 'abcefghijk')}"
        server = SqlServer("mysql", "shop", "localhost", port, mariadb.USER, mariadb.PASSWORD)
        return Place(server, slow, ("SELECT 1 # '\n",))
    with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
        for line in SETUP:
            connection.execute(line)
        connection.commit()
    slow = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
    writes = (
        "WITH x AS (SELECT 1) DELETE FROM customers",
        "SELECT load_extension('x')",
        "SELECT * FROM pragma_function_list",
    )
    return Place(SqlServer("sqlite", "shop.db"), slow, writes, folder=tmp_path)


async def refused(place: Place, query: str, *codes: str) -> None:
    with pytest.raises(MixpeekError) as caught:
        await place.rows(query)
    assert caught.value.code in codes, caught.value
    assert place.server.password == "" or place.server.password not in str(caught.value)


async def test_rows_as_json_holds_them(place: Place) -> None:
    rows, more = await place.rows("SELECT id, name, credit, joined FROM customers ORDER BY id")
    assert not more
    assert rows[0] == {"id": "c1", "name": "Ann O'Hara", "credit": 10.5, "joined": "2026-01-02"}
    assert rows[1] == {"id": "c2", "name": "B;%s '--", "credit": 20, "joined": None}


@pytest.mark.parametrize("value", ["c1", "B;%s '--", "' OR '1'='1", "\\' OR 1=1 -- ", "%s", None, 'a"b`c', "é\u2028"])
async def test_a_value_is_never_text_of_the_query(place: Place, value: str | None) -> None:
    rows, _ = await place.rows("SELECT id FROM customers WHERE id = :v OR name = :v", {"v": value})
    assert [row["id"] for row in rows] == {"c1": ["c1"], "B;%s '--": ["c2"]}.get(str(value), [])


async def test_places_by_number_and_percent_signs(place: Place) -> None:
    values = {"b": "c2", "a": "c1"}
    rows, _ = await place.rows("SELECT id FROM customers WHERE id IN (:a, :b) AND name LIKE 'B%' -- %s :c", values)
    assert rows == [{"id": "c2"}]
    rows, _ = await place.rows("SELECT id FROM customers WHERE name LIKE 'B%' LIMIT 5 /* ; */;")
    assert rows == [{"id": "c2"}]


async def test_no_more_rows_than_asked_for(place: Place) -> None:
    assert await place.rows("SELECT id FROM customers ORDER BY id", most=1) == ([{"id": "c1"}], True)
    assert await place.rows("SELECT id FROM customers WHERE id = 'c2'", most=1) == ([{"id": "c2"}], False)
    assert await place.rows("SELECT id FROM customers WHERE id = 'none'") == ([], False)


async def test_one_session_goes_on_after_an_error(place: Place) -> None:
    drivers = SqlDrivers(GuardedClient(allow_cidrs="127.0.0.0/8"), place.folder)
    async with drivers.session(place.server, timeout_s=2.0) as session:
        for _ in range(2):
            with pytest.raises(MixpeekError, match="refuses the query"):
                await session.rows(parse("SELECT nothing FROM nowhere", ()), {}, most=1)
            assert await session.rows(parse("SELECT 1 AS one", ()), {}, most=1) == ([{"one": 1}], False)
            rows = await session.rows(parse("SELECT id FROM customers ORDER BY id", ()), {}, most=1)
            assert rows == ([{"id": "c1"}], True)


async def test_nothing_is_written(place: Place) -> None:
    for query in place.writes:
        await refused(place, query, "query_failed", "query_invalid")
    rows, _ = await place.rows("SELECT count(*) AS n FROM customers")
    assert rows == [{"n": 2}]


async def test_a_query_that_takes_too_long_is_ended(place: Place) -> None:
    await refused(place, place.slow, "query_timeout")


async def test_a_large_answer_is_refused(place: Place) -> None:
    sizes = {
        "postgresql": "repeat('x', 11000000)",
        "mysql": "repeat('x', 11000000)",
        "sqlite": "hex(zeroblob(6000000))",
    }
    await refused(place, f"SELECT {sizes[place.server.engine]} AS x", "too_large", "query_failed")


async def test_who_may_not_come_in(place: Place) -> None:
    if place.server.engine == "sqlite":
        place.folder = None
        await refused(place, "SELECT 1", "path_refused")
        return
    at_home = replace(place, allow_cidrs="")
    await refused(at_home, "SELECT 1", "address_refused")
    wrong = replace(place, server=replace(place.server, password="wrong"))
    await refused(wrong, "SELECT 1", "login_refused")
    away = replace(place, server=replace(place.server, port=1))
    await refused(away, "SELECT 1", "database_away")


@pytest.mark.parametrize("path", ["../shop.db", "/etc/passwd", "none.db", "link.db", "", "a\0b"])
async def test_sqlite_files_elsewhere_are_not_opened(tmp_path: Path, path: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    sqlite3.connect(tmp_path / "shop.db").close()
    (inside / "link.db").symlink_to(tmp_path / "shop.db")
    place = Place(SqlServer("sqlite", path), "", (), folder=inside)
    await refused(place, "SELECT 1", "path_refused")
