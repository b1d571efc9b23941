"""One visit of the engine to one resource: what it found out so far, and how an error ends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import structlog

from mixpeek_operator.core import ids
from mixpeek_operator.core.conditions import SYNCED, Finding, Reason
from mixpeek_operator.core.errors import (
    AlreadyExistsError,
    ConflictError,
    NotFoundError,
    RateLimitedError,
    RefusedError,
    SpecError,
    UnavailableError,
)
from mixpeek_operator.core.lifecycle import Kind, Step, Subject, Waiting
from mixpeek_operator.core.resource import Resource

_log = structlog.get_logger(__name__)


class Again(StrEnum):
    """When the same resource should be visited again without a change."""

    NO = "no"
    """Only when something changes, or at the next drift check."""
    BACKOFF = "backoff"
    """Soon, then ever later."""
    SLOW = "slow"
    """At the longest delay of the backoff."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the queue has to know after a visit."""

    again: Again = Again.NO
    after_s: float | None = None
    """Visit again after this many seconds: something exists and is not ready yet."""


@dataclass(slots=True)
class Visit:
    """What one visit has found out so far; becomes the status."""

    kind: Kind
    resource: Resource
    subject: Subject | None = None
    want: Any = None
    have: Any = None
    observed: bool = False
    synced: Finding = field(default_factory=lambda: Finding(SYNCED, True, Reason.IN_SYNC))
    applied: bool = False
    done: list[Step] = field(default_factory=list)
    lost: bool = False
    gone: bool = False
    again: Again = Again.NO
    silent: bool = False
    patient_s: float = 0.0
    """Seconds until a waiting that is not told of yet would be."""
    events: list[tuple[str, str, str]] = field(default_factory=list)
    id: str = ""
    """On every log line of the visit; made for the first one."""


def fail(visit: Visit, error: Exception, deadline_s: float) -> None:
    """Turn an error into Synced, by the table of errors."""
    log = bound(visit)
    match error:
        case ConflictError() | AlreadyExistsError() | NotFoundError():
            # Somebody was faster between our read and our act; the next visit sees the world as it is then.
            log.info("visiting again after a conflict", error=str(error))
            visit.again, visit.silent = Again.BACKOFF, True
        case SpecError():
            visit.synced = Finding(SYNCED, False, Reason.SPEC_INVALID, str(error), stalled=True)
        case UnavailableError() | RateLimitedError() | TimeoutError():
            text = str(error) or f"no answer within {deadline_s:.0f} s"
            log.warning("waiting for a backend", error=text)
            visit.again = Again.BACKOFF
            visit.synced = Finding(SYNCED, None, Reason.BACKEND_UNAVAILABLE, text)
        case RefusedError():
            log.warning("refused by a backend", error=str(error))
            visit.again = Again.SLOW
            visit.synced = Finding(SYNCED, False, Reason.BACKEND_REFUSED, str(error), stalled=True)
        case _:
            reference = ids.derived("err", str(visit.resource.key), type(error).__name__, str(error))
            log.error("failing on our own bug", error_id=reference, exc_info=error)
            visit.again = Again.SLOW
            visit.synced = Finding(
                SYNCED, False, Reason.INTERNAL_ERROR, f"internal error, log id {reference}", stalled=True
            )


def waiting_for(waiting: Sequence[Waiting]) -> Finding:
    """Return Synced for a visit that has to wait for what the resource refers to."""
    message = "waits: " + "; ".join(str(item) for item in waiting)
    return Finding(SYNCED, False, f"{Reason.WAITING_FOR}{waiting[0].kind}", message)


def would(steps: Sequence[Step]) -> str:
    """Return a message for steps that are not taken."""
    return "not done: " + "; ".join(step.todo() for step in steps)


def drifted(steps: Sequence[Step], *, lost: bool) -> str:
    """Return the text of the event for a drift that is corrected."""
    what = "Something outside was changed; corrected by: " + "; ".join(step.todo() for step in steps)
    return f"{what}. What it held is lost; process the data again" if lost else what


def bound(visit: Visit) -> structlog.stdlib.BoundLogger:
    """Return the log with the resource on every line."""
    resource = visit.resource
    visit.id = visit.id or ids.random("pass", 8)
    log: structlog.stdlib.BoundLogger = _log.bind(
        kind=resource.kind,
        namespace=resource.metadata.organization,
        name=resource.metadata.name,
        generation=resource.metadata.generation,
        pass_id=visit.id,
    )
    return log
