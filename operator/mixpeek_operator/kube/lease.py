"""Who works, decided over a Lease. Pure: what was seen and the time in, what to write out.

A candidate never compares its clock with a time that another wrote: it waits until the lease has not changed for the
lease's duration on its own clock. The holder counts from before its write left, so that it stops first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from mixpeek_operator.ports.leases import Lease


@dataclass(frozen=True, slots=True)
class Seen:
    """A lease and since when it has not changed, on the clock of whoever looks."""

    lease: Lease
    since: float


class Move(StrEnum):
    """What a candidate does next."""

    TAKE = "take"
    RENEW = "renew"
    WAIT = "wait"


def look(before: Seen | None, lease: Lease, now: float) -> Seen:
    """Return what is known after reading `lease` at `now`."""
    if before is not None and before.lease.version == lease.version:
        return before
    return Seen(lease, now)


def decide(seen: Seen, me: str, now: float) -> Move:
    """Return what `me` may do: renew its own lease, take a free or an abandoned one, else wait."""
    lease = seen.lease
    if lease.holder == me:
        return Move.RENEW
    if not lease.holder or now >= seen.since + lease.duration_s:
        return Move.TAKE
    return Move.WAIT


def written(lease: Lease, me: str, duration_s: float) -> Lease:
    """Return the record to write over `lease` when taking or renewing it."""
    changes = 0 if lease.holder == me else 1
    return replace(lease, holder=me, duration_s=duration_s, transitions=lease.transitions + changes)


def released(lease: Lease) -> Lease:
    """Return the record that gives `lease` back, so that nobody has to wait for its end."""
    return replace(lease, holder="")
