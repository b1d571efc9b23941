"""Ports: databases of others that are read with SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from mixpeek_operator.core.errors import MixpeekError
from mixpeek_operator.core.sql import Statement

SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
Rows = list[dict[str, Any]]
"""Columns by name; values as JSON holds them."""


@dataclass(frozen=True, slots=True)
class SqlServer:
    """A database and how to get in."""

    engine: Literal["postgresql", "mysql", "sqlite"]
    database: str
    """For SQLite the path of the file, below the folder that the server's settings name."""
    host: str = ""
    port: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    schema: str | None = None
    ssl_mode: SslMode = "prefer"


class SqlSession(Protocol):
    """An open connection; one query at a time."""

    async def rows(self, statement: Statement, values: Mapping[str, Any], *, most: int) -> tuple[Rows, bool]:
        """Return the first `most` rows and whether there are more; reads only, whatever the statement says.

        Raises SpecError (`query_failed`) when the database refuses the query, UnavailableError (`query_timeout`,
        `database_away`) when it does not answer in time.
        """
        ...


class SqlDriver(Protocol):
    """Opens databases, within the same limits of addresses as every other call."""

    def session(self, server: SqlServer, *, timeout_s: float) -> AbstractAsyncContextManager[SqlSession]:
        """Connect, for queries of at most `timeout_s` each.

        Raises SpecError (`address_refused`, `unknown_host`, `path_refused`), RefusedError (`login_refused`),
        UnavailableError (`database_away`), NotEnabledError when the driver is not installed.
        """
        ...


class Databases(Protocol):
    """An organization's connections to databases, by id or name."""

    async def names(self, organization: str) -> list[str]:
        """The name and the id of every connection."""
        ...

    async def query(
        self,
        organization: str,
        connection: str,
        statement: Statement,
        values: Sequence[Mapping[str, Any]],
        *,
        timeout_s: float,
        most: int,
    ) -> list[tuple[Rows, bool] | MixpeekError]:
        """Run the statement once for each mapping; what fails for one of them is returned in its place.

        Raises NotFoundError for an unknown connection and what opening it raises.
        """
        ...
