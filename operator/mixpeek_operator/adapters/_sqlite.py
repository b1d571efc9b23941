"""One SQLite database file behind asyncio: a writer thread and a pool of readers, errors mapped at the edge.

WAL mode with `synchronous=NORMAL`: what was acknowledged survives the death of the process at any moment; a power
cut may lose the last moments, but never corrupts the file.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from mixpeek_operator.core.errors import (
    AlreadyExistsError,
    ConflictError,
    InternalError,
    MixpeekError,
    SpecError,
    UnavailableError,
)

T = TypeVar("T")
_READERS = 4

_ERRORS: tuple[tuple[type[sqlite3.Error], type[MixpeekError]], ...] = (
    (sqlite3.IntegrityError, AlreadyExistsError),
    (sqlite3.OperationalError, UnavailableError),
    (sqlite3.InterfaceError, InternalError),
    (sqlite3.ProgrammingError, InternalError),
    (sqlite3.NotSupportedError, InternalError),
    (sqlite3.DataError, SpecError),
    (sqlite3.InternalError, UnavailableError),
    (sqlite3.DatabaseError, UnavailableError),
    (sqlite3.Error, UnavailableError),
)


def translate(error: sqlite3.Error, path: Path) -> MixpeekError:
    """Return our error for one of SQLite's, the most specific that fits."""
    for vendor, ours in _ERRORS:
        if isinstance(error, vendor):
            return ours(f"database {path.name}: {error}")
    return InternalError(f"database {path.name}: {error}")


class Database:
    """Runs functions over a connection: `write` in one transaction, one at a time; `read` concurrently."""

    def __init__(self, path: Path, migrations: Sequence[str]) -> None:
        """`migrations[n]` turns schema version n into n + 1; the first makes the tables."""
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._write_pool = ThreadPoolExecutor(1, thread_name_prefix=f"sqlite-write-{path.stem}")
        self._read_pool = ThreadPoolExecutor(_READERS, thread_name_prefix=f"sqlite-read-{path.stem}")
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._opening = threading.Lock()
        self._write_pool.submit(self._migrate, migrations).result()

    async def write(self, work: Callable[[sqlite3.Connection], T], *, committed: Callable[[], None] | None = None) -> T:
        """Run `work` in a transaction that is committed when it returns and undone when it raises.

        `committed` is called in the writer's thread, also when the caller was cancelled and waits no more.
        """
        return await asyncio.get_running_loop().run_in_executor(self._write_pool, self._transact, work, committed)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on a consistent view."""
        return await asyncio.get_running_loop().run_in_executor(self._read_pool, self._look, work)

    async def close(self) -> None:
        """Finish what is running and close every connection."""
        await asyncio.to_thread(self._write_pool.shutdown)
        await asyncio.to_thread(self._read_pool.shutdown)
        for connection in self._opened:
            connection.close()
        self._opened.clear()

    def _connection(self) -> sqlite3.Connection:
        held: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if held is not None:
            return held
        try:
            made = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            made.execute("PRAGMA journal_mode=WAL")
            made.execute("PRAGMA synchronous=NORMAL")
            made.execute("PRAGMA busy_timeout=10000")
            made.execute("PRAGMA foreign_keys=ON")
            made.execute("PRAGMA temp_store=MEMORY")
        except sqlite3.Error as error:
            raise translate(error, self._path) from error
        self._local.connection = made
        with self._opening:
            self._opened.append(made)
        return made

    def _transact(self, work: Callable[[sqlite3.Connection], T], committed: Callable[[], None] | None = None) -> T:
        connection = self._connection()
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                # A full disk, among others, has ended the transaction already.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise translate(error, self._path) from error
        finally:
            # Also after a failure, for a COMMIT that reports one may have been carried out.
            if committed is not None:
                committed()
        return result

    def _look(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._connection()
        try:
            connection.execute("BEGIN")
            try:
                return work(connection)
            finally:
                if connection.in_transaction:
                    connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise translate(error, self._path) from error

    def _migrate(self, migrations: Sequence[str]) -> None:
        connection = self._connection()
        version = len(migrations)
        try:
            (found,) = connection.execute("PRAGMA user_version").fetchone()
            if found > version:
                raise ConflictError(
                    f"{self._path} was written by a newer version (schema {found}, this one knows {version}); "
                    "run the newer version or another data directory"
                )
            for done in range(found, version):
                script = f"BEGIN IMMEDIATE; {migrations[done]}; PRAGMA user_version={done + 1}; COMMIT;"
                connection.executescript(script)
        except sqlite3.Error as error:
            raise translate(error, self._path) from error
