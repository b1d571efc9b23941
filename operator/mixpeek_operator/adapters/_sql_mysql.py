"""MySQL and MariaDB through PyMySQL, in a thread: each query in a read-only transaction of its own, limited in time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pymysql
from pymysql.connections import Connection
from pymysql.cursors import SSCursor

from mixpeek_operator.adapters._sql_values import Collected
from mixpeek_operator.core.errors import RefusedError, SpecError, UnavailableError
from mixpeek_operator.core.sql import Statement
from mixpeek_operator.ports.sql import Rows, SqlServer

_TOO_LONG = frozenset({1969, 3024, 1317})
_LOGIN = frozenset({1044, 1045, 1049, 1698, 2059})
_GRACE_S = 1.0


class _Session:
    def __init__(self, connection: Connection[Any], timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s

    async def rows(self, statement: Statement, values: Mapping[str, Any], *, most: int) -> tuple[Rows, bool]:
        if any(mark in part for part in statement.parts[::2] for mark in "#$"):
            # A comment for this server alone, and no quote as for PostgreSQL: what was checked would not be what runs.
            raise SpecError("a query for MySQL holds no # and no $; use parameters for values", code="query_invalid")
        text = statement.written(lambda index: "%s", lambda part: part.replace("%", "%%"))
        given = tuple(values.get(name) for name in statement.names)
        return await asyncio.to_thread(self._run, text, given, most)

    def _run(self, text: str, given: tuple[Any, ...], most: int) -> tuple[Rows, bool]:
        try:
            with self._connection.cursor() as cursor:
                cursor.execute("START TRANSACTION READ ONLY")
                # Without values the driver sends the text as it is, doubled percent signs and all.
                cursor.execute(text if given else text.replace("%%", "%"), given or None)
                collected = Collected([column[0] for column in cursor.description or ()])
                while (row := cursor.fetchone()) is not None:
                    if len(collected.rows) == most:
                        return collected.rows, True
                    collected.add(row)
                return collected.rows, False
        except pymysql.err.MySQLError as error:
            raise self._explained(error) from None
        finally:
            with contextlib.suppress(pymysql.err.MySQLError):
                self._connection.rollback()

    def _explained(self, error: pymysql.err.MySQLError) -> SpecError | UnavailableError:
        code = error.args[0] if error.args else 0
        if code in _TOO_LONG or "timed out" in str(error):
            return UnavailableError(f"the query took longer than {self._timeout_s:g} s", code="query_timeout")
        if isinstance(code, int) and 2000 <= code < 3000:
            return UnavailableError(f"the database does not answer: {_said(error)}", code="database_away")
        return SpecError(f"the database refuses the query: {_said(error)}", code="query_failed")


@contextlib.asynccontextmanager
async def opened(server: SqlServer, address: str, timeout_s: float) -> AsyncIterator[_Session]:
    """Connect to a checked address. Raises RefusedError and UnavailableError."""
    connection = await asyncio.to_thread(_connected, server, address, timeout_s)
    try:
        yield _Session(connection, timeout_s)
    finally:
        await asyncio.to_thread(connection.close)


def _connected(server: SqlServer, address: str, timeout_s: float) -> Connection[Any]:
    wait_s = max(1.0, timeout_s) + _GRACE_S
    connection: Connection[Any] = Connection(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        database=server.database,
        charset="utf8mb4",
        connect_timeout=wait_s,
        read_timeout=wait_s,
        write_timeout=wait_s,
        local_infile=False,
        cursorclass=SSCursor,
        defer_connect=True,
        **_tls(server),
    )
    try:
        connection.connect(socket.create_connection((address, server.port), wait_s))
        with connection.cursor() as cursor:
            cursor.execute("SELECT version()")
            is_mariadb = "MariaDB" in str(cursor.fetchall())
            limit = (
                f"max_statement_time = {timeout_s}" if is_mariadb else f"max_execution_time = {timeout_s * 1000:.0f}"
            )
            cursor.execute(f"SET SESSION {limit}")
    except (pymysql.err.MySQLError, OSError) as error:
        if isinstance(error, pymysql.err.MySQLError) and error.args and error.args[0] in _LOGIN:
            raise RefusedError(f"the database refuses the login: {_said(error)}", code="login_refused") from None
        raise UnavailableError(f"the database cannot be reached: {_said(error)}", code="database_away") from None
    return connection


def _tls(server: SqlServer) -> dict[str, Any]:
    if server.ssl_mode == "disable":
        return {"ssl_disabled": True}
    if server.ssl_mode in ("allow", "prefer"):
        return {}
    context = ssl.create_default_context()
    context.check_hostname = server.ssl_mode == "verify-full"
    if server.ssl_mode == "require":
        context.verify_mode = ssl.CERT_NONE
    return {"ssl": context}


def _said(error: Exception) -> str:
    """What the server says, in one line."""
    text = error.args[1] if isinstance(error, pymysql.err.MySQLError) and len(error.args) > 1 else error
    return " ".join(str(text).split())[:300]
