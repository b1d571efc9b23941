"""Lists: one query and one page for everything that can be listed (wire contract, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mixpeek_operator.core.filters import Filter


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What to list. `cursor` is opaque, wins over `offset`, and is refused for another query."""

    limit: int = 20
    offset: int = 0
    cursor: str | None = None
    search: str | None = None
    filters: Filter | None = None
    sort: Sequence[tuple[str, str]] = field(default_factory=tuple)
    """(field, `asc` | `desc`) pairs."""
    include_total: bool = False


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page in wire shape; `next_cursor` is None on the last page."""

    items: list[dict[str, Any]]
    total: int | None
    next_cursor: str | None
