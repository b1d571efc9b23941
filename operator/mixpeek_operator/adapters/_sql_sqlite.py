"""SQLite files, opened read-only below one folder; nothing but reading is authorized."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from mixpeek_operator.adapters._sql_values import MAX_BYTES, Collected, plain
from mixpeek_operator.core.errors import SpecError, UnavailableError
from mixpeek_operator.core.sql import Statement
from mixpeek_operator.ports.sql import Rows, SqlServer

_READING: Final = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
_OUTSIDE: Final = frozenset({"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"})
_STEPS_BETWEEN_CHECKS: Final = 10_000


class _Session:
    def __init__(self, connection: sqlite3.Connection, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s

    async def rows(self, statement: Statement, values: Mapping[str, Any], *, most: int) -> tuple[Rows, bool]:
        given = [_given(values.get(name)) for name in statement.names]
        return await asyncio.to_thread(self._run, statement.written(lambda index: "?"), given, most)

    def _run(self, text: str, given: list[Any], most: int) -> tuple[Rows, bool]:
        deadline = time.monotonic() + self._timeout_s
        self._connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS_BETWEEN_CHECKS)
        try:
            with contextlib.closing(self._connection.execute(text, given)) as cursor:
                collected = Collected([column[0] for column in cursor.description or ()])
                for row in cursor:
                    if len(collected.rows) == most:
                        return collected.rows, True
                    collected.add(row)
                return collected.rows, False
        except sqlite3.OperationalError as error:
            if "interrupted" in str(error):
                message = f"the query took longer than {self._timeout_s:g} s"
                raise UnavailableError(message, code="query_timeout") from None
            raise _refused(error) from None
        except (sqlite3.Error, OverflowError) as error:
            raise _refused(error) from None


@contextlib.asynccontextmanager
async def opened(server: SqlServer, folder: Path | None, timeout_s: float) -> AsyncIterator[_Session]:
    """Open the file below `folder`. Raises SpecError."""
    connection = await asyncio.to_thread(_connected, server, folder, timeout_s)
    try:
        yield _Session(connection, timeout_s)
    finally:
        await asyncio.to_thread(connection.close)


def _connected(server: SqlServer, folder: Path | None, timeout_s: float) -> sqlite3.Connection:
    if folder is None:
        raise SpecError(
            "this server opens no SQLite files; an administrator can name their folder with MIXPEEK_SQLITE_PATH",
            code="path_refused",
        )
    root = folder.resolve()
    path = (root / server.database.replace("\0", "")).resolve()
    if not path.is_relative_to(root) or not path.is_file():
        raise SpecError(
            f"there is no SQLite file {server.database!r} in the folder of this server", code="path_refused"
        )
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=ro", uri=True, check_same_thread=False, timeout=timeout_s, isolation_level=None
    )
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_BYTES)
    connection.set_authorizer(_authorized)
    return connection


def _authorized(action: int, first: str | None, second: str | None, database: str | None, source: str | None) -> int:
    allowed = action in _READING and not (action == sqlite3.SQLITE_FUNCTION and second in _OUTSIDE)
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _given(value: Any) -> Any:
    return value if value is None or isinstance(value, int | float | str) else str(plain(value))


def _refused(error: Exception) -> SpecError:
    return SpecError(f"the database refuses the query: {' '.join(str(error).split())[:300]}", code="query_failed")
