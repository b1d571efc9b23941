"""Port: the record that replicas compete for, so that one of them works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Lease:
    """Who works; written by compare-and-swap on `version`."""

    holder: str = ""
    """Empty when it was given back."""
    duration_s: float = 15.0
    transitions: int = 0
    """How often the holder changed."""
    version: str = ""
    """Moves with every write; empty for a record that does not exist yet."""


class Leases(Protocol):
    """Where one lease is kept."""

    async def read(self) -> Lease:
        """The lease as it is; one without a version when there is none."""
        ...

    async def write(self, lease: Lease) -> Lease:
        """Write over the version that `lease` carries. Raises ConflictError when another was faster."""
        ...
