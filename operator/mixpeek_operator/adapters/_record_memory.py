"""Records of small tables that every request reads, kept in memory by the one process that writes them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from mixpeek_operator.ports.metadata import Record

_Key = tuple[str, str, str]
_MAX_RECORDS = 10_000


class RecordMemory:
    """What was read of some tables since the last write to any of them; a record that is not there is known too.

    A write empties it between its commit and its end, so whoever was told of the write reads what it wrote. A reader
    that saw the store before the commit must not fill it afterwards, which `turn` tells.
    """

    def __init__(self, tables: Iterable[str]) -> None:
        self._tables = frozenset(tables)
        self._known: dict[_Key, Record | None] = {}
        self._turn = 0
        self._lock = threading.Lock()

    def holds(self, table: str) -> bool:
        """Whether the table is one of those kept."""
        return table in self._tables

    @property
    def turn(self) -> int:
        """Number of writes so far; to be taken before reading what is to be kept."""
        return self._turn

    def find(self, table: str, namespace_id: str, ids: Sequence[str]) -> list[Record] | None:
        """Return the records there are, None unless all ids are known."""
        try:
            found = [self._known[table, namespace_id, id] for id in ids]
        except KeyError:
            return None
        return [record for record in found if record is not None]

    def keep(self, turn: int, table: str, namespace_id: str, ids: Sequence[str], records: Iterable[Record]) -> None:
        """Keep what was read of `ids` at `turn`, unless something was written since."""
        by_id = {record.id: record for record in records}
        with self._lock:
            if self._turn != turn:
                return
            if len(self._known) + len(ids) > _MAX_RECORDS:
                self._known.clear()
            self._known.update({(table, namespace_id, id): by_id.get(id) for id in ids})

    def forget(self) -> None:
        """Something was written to one of the tables."""
        with self._lock:
            self._turn += 1
            self._known.clear()
