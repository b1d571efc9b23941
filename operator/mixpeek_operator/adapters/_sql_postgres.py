"""PostgreSQL through psycopg: each query in a read-only transaction of its own, which the server ends in time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from mixpeek_operator.adapters._sql_values import Collected
from mixpeek_operator.core.errors import RefusedError, SpecError, UnavailableError
from mixpeek_operator.core.sql import Statement
from mixpeek_operator.ports.sql import Rows, SqlServer

_GRACE_S = 1.0


class _Session:
    def __init__(self, connection: psycopg.AsyncConnection[Any], timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s

    async def rows(self, statement: Statement, values: Mapping[str, Any], *, most: int) -> tuple[Rows, bool]:
        text = statement.written(lambda index: f"${index + 1}")
        given = [_given(values.get(name)) for name in statement.names]
        try:
            # The server ends the query by itself; ours is for a server that no longer answers.
            async with asyncio.timeout(self._timeout_s + _GRACE_S), self._connection.transaction(force_rollback=True):
                return await self._collected(text, given, most)
        except (TimeoutError, psycopg.errors.QueryCanceled):
            raise UnavailableError(f"the query took longer than {self._timeout_s:g} s", code="query_timeout") from None
        except psycopg.OperationalError as error:
            raise UnavailableError(f"the database does not answer: {_said(error)}", code="database_away") from None
        except psycopg.Error as error:
            raise SpecError(f"the database refuses the query: {_said(error)}", code="query_failed") from None

    async def _collected(self, text: str, given: list[Any], most: int) -> tuple[Rows, bool]:
        async with psycopg.AsyncRawCursor(self._connection) as cursor:
            collected: Collected | None = None
            async with contextlib.aclosing(cursor.stream(text, given)) as rows:  # type: ignore[type-var]
                async for row in rows:
                    if collected is None:
                        collected = Collected([column.name for column in cursor.description or ()])
                    if len(collected.rows) == most:
                        return collected.rows, True
                    collected.add(row)
            return (collected.rows if collected else []), False


@contextlib.asynccontextmanager
async def opened(server: SqlServer, address: str, timeout_s: float) -> AsyncIterator[_Session]:
    """Connect to a checked address. Raises RefusedError and UnavailableError."""
    verified: dict[str, Any] = {"sslrootcert": "system"} if server.ssl_mode == "verify-full" else {}
    try:
        connection = await psycopg.AsyncConnection.connect(
            host=server.host,
            hostaddr=address,
            port=server.port,
            dbname=server.database,
            user=server.user,
            password=server.password,
            sslmode=server.ssl_mode,
            gssencmode="disable",
            connect_timeout=max(2, round(timeout_s)),
            application_name="mixpeek-operator",
            autocommit=True,
            **verified,
        )
    except psycopg.OperationalError as error:
        said = _said(error)
        if "authentication" in said or "no pg_hba.conf entry" in said or "does not exist" in said:
            raise RefusedError(f"the database refuses the login: {said}", code="login_refused") from None
        raise UnavailableError(f"the database cannot be reached: {said}", code="database_away") from None
    try:
        await connection.set_read_only(True)
        await _prepare(connection, server, timeout_s)
        yield _Session(connection, timeout_s)
    except psycopg.Error as error:
        raise UnavailableError(f"the database does not answer: {_said(error)}", code="database_away") from None
    finally:
        await connection.close()


async def _prepare(connection: psycopg.AsyncConnection[Any], server: SqlServer, timeout_s: float) -> None:
    settings = {"statement_timeout": str(round(timeout_s * 1000))}
    if server.schema:
        settings["search_path"] = server.schema
    for name, value in settings.items():
        await connection.execute("SELECT set_config(%s, %s, false)", (name, value))


def _given(value: Any) -> Any:
    return Jsonb(value) if isinstance(value, dict) else value


def _said(error: Exception) -> str:
    """What the server says, in one line; it quotes the query, never the password."""
    return " ".join(str(error).split())[:300]
