"""Port: records of the data plane (objects, uploads, batches, tasks, keys, secrets, executions).

A table holds JSON records; `namespace_id` is part of every key and every call, so no call reads across tenants
(records of an organization use its internal id there). Every adapter passes `tests/contract/metadata`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mixpeek_operator.core.filters import Filter


@dataclass(frozen=True, slots=True)
class Record:
    """A stored record; `version` counts its writes, from 1."""

    id: str
    version: int
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Write:
    """One write of a transaction: `body` None deletes; `if_version` 0 means "must not exist", None any."""

    table: str
    namespace_id: str
    id: str
    body: Mapping[str, Any] | None
    if_version: int | None = None


class MetadataStore(Protocol):
    """Records with optimistic concurrency. Raises ConflictError on a stale `if_version`, AlreadyExistsError when
    `if_version=0` finds a record, UnavailableError when the store is away."""

    async def get(self, table: str, namespace_id: str, id: str) -> Record | None: ...

    async def get_many(self, table: str, namespace_id: str, ids: Sequence[str]) -> list[Record]:
        """The records that exist, in the order asked."""
        ...

    async def put(
        self, table: str, namespace_id: str, id: str, body: Mapping[str, Any], *, if_version: int | None = None
    ) -> Record:
        """Write the record whole; durable before it returns."""
        ...

    async def delete(self, table: str, namespace_id: str, id: str) -> bool:
        """Whether there was one."""
        ...

    async def delete_where(self, table: str, namespace_id: str, filter: Filter | None = None) -> int: ...

    async def find(
        self,
        table: str,
        namespace_id: str,
        *,
        filter: Filter | None = None,
        sort: Sequence[tuple[str, str]] = (),
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Record]:
        """Matching records; sorted by (field, asc|desc) pairs, ties and default by insertion order."""
        ...

    async def count(self, table: str, namespace_id: str, filter: Filter | None = None) -> int: ...

    async def total(self, table: str, namespace_id: str, field: str, filter: Filter | None = None) -> tuple[int, float]:
        """How many records match, and the sum of a top-level number field over them (0 where it is absent)."""
        ...

    async def transact(self, writes: Sequence[Write]) -> list[Record | None]:
        """All writes or none, in order."""
        ...

    async def claim(
        self, table: str, *, states: Sequence[str], owner: str, lease_s: float, now: float
    ) -> tuple[str, Record] | None:
        """Take the oldest record of any namespace whose `state` is in `states` and whose `lease_until` (unix
        seconds) is absent or past: sets `lease_owner` and `lease_until`, atomically. Returns (namespace_id, record).
        The one call that looks at all namespaces: it hands out work, it shows nobody's data to another."""
        ...

    async def health(self) -> None: ...

    async def close(self) -> None: ...
