from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from mixpeek_operator.core.clock import SystemClock
from mixpeek_operator.core.index import ResourceIndex
from mixpeek_operator.core.resource import FINALIZER, Event, Metadata, Resource
from mixpeek_operator.kube.watchdog import Watchdog, why
from mixpeek_operator.ports.resources import Change

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Clock(SystemClock):
    def now(self) -> datetime:
        return NOW


def going(name: str, for_s: float | None, finalizers: list[str], status: dict[str, Any] | None = None) -> Resource:
    since = None if for_s is None else NOW - timedelta(seconds=for_s)
    metadata = Metadata(name, "org", uid=name, resource_version=1, finalizers=finalizers, deletion_timestamp=since)
    return Resource("Bucket", metadata, {}, status or {})


def test_it_tells_once_of_each_deletion_that_takes_too_long() -> None:
    index = ResourceIndex({})
    told: list[Event] = []

    dog = Watchdog(index=index, record=told.append, clock=Clock(), after_s=600)
    for resource in (going("stays", None, [FINALIZER]), going("new", 599, [FINALIZER]), going("old", 601, [FINALIZER])):
        index.apply(Change("ADDED", resource))
    dog.look()
    dog.look()
    assert [(event.key.name, event.type, event.reason) for event in told] == [("old", "Warning", "DeletionStuck")]
    assert [item.metadata.name for item in dog.stuck()] == ["old"]


def test_it_says_what_is_waited_for() -> None:
    condition = {"type": "Ready", "status": "False", "reason": "StillReferredTo", "message": "still referred to by X"}
    ours = going("a", 700, [FINALIZER], {"conditions": [condition]})
    assert why(ours) == "The deletion does not end: still referred to by X"
    assert "example.com/other" in why(going("b", 700, ["example.com/other"]))
    assert why(going("c", 700, [FINALIZER])) == "The deletion does not end: the operator has not seen it"
