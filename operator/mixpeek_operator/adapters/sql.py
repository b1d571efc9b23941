"""Databases of others, opened to be read: what their drivers have in common."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from mixpeek_operator.core.errors import NotEnabledError
from mixpeek_operator.ports.outbound import Outbound
from mixpeek_operator.ports.sql import SqlServer, SqlSession


class SqlDrivers:
    """The `SqlDriver` port over PostgreSQL, MySQL and SQLite."""

    def __init__(self, outbound: Outbound, sqlite_path: Path | None) -> None:
        """SQLite files are opened below `sqlite_path` only; none when it is None."""
        self._outbound = outbound
        self._sqlite_path = sqlite_path

    @contextlib.asynccontextmanager
    async def session(self, server: SqlServer, *, timeout_s: float) -> AsyncIterator[SqlSession]:
        if server.engine == "sqlite":
            from mixpeek_operator.adapters import _sql_sqlite

            async with _sql_sqlite.opened(server, self._sqlite_path, timeout_s) as session:
                yield session
            return
        # The connection goes to the address that was checked, whatever the name means a moment later.
        address = await self._outbound.address(server.host, server.port)
        try:
            if server.engine == "postgresql":
                from mixpeek_operator.adapters import _sql_postgres as driver
            else:
                from mixpeek_operator.adapters import _sql_mysql as driver  # type: ignore[no-redef]
        except ImportError as error:
            raise NotEnabledError(
                f"reading {server.engine} needs a driver: install mixpeek-operator[sql]", code="driver_missing"
            ) from error
        async with driver.opened(server, address, timeout_s) as session:
            yield session
