from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mixpeek_operator.core.conditions import (
    SYNCED,
    Finding,
    Reason,
    equal,
    is_settled,
    is_true,
    read,
    stamp,
    summarise,
)
from mixpeek_operator.core.resource import Condition, Metadata, Resource

NOW = datetime(2026, 1, 31, 10, tzinfo=UTC)
IN_SYNC = Finding(SYNCED, True, Reason.IN_SYNC)


@pytest.mark.parametrize(
    ("findings", "synced", "ready", "reason", "stalled"),
    [
        ((), IN_SYNC, "True", "Available", False),
        ((Finding("VectorsReady", True, "Present"),), IN_SYNC, "True", "Available", False),
        ((Finding("VectorsReady", False, "Missing"),), IN_SYNC, "False", "Missing", False),
        ((Finding("VectorsReady", False, "Wrong", "edit it", True),), IN_SYNC, "False", "Wrong", True),
        ((Finding("EndpointReady", None, "Starting"),), IN_SYNC, "Unknown", "Starting", False),
        ((), Finding(SYNCED, False, Reason.SPEC_INVALID, "no", True), "False", "SpecInvalid", True),
        ((), Finding(SYNCED, None, Reason.BACKEND_UNAVAILABLE, "away"), "Unknown", "BackendUnavailable", False),
        ((), Finding(SYNCED, False, Reason.DRIFTED, "differs"), "True", "Available", False),
    ],
)
def test_ready_is_the_first_trouble(
    findings: tuple[Finding, ...], synced: Finding, ready: str, reason: str, stalled: bool
) -> None:
    made = summarise(findings, synced)
    by_type = {item.type: item for item in made}
    assert (by_type["Ready"].status, by_type["Ready"].reason) == (ready, reason)
    assert by_type["Synced"].status == ("Unknown" if synced.ok is None else str(synced.ok))
    assert ("Stalled" in by_type) is stalled
    assert len(by_type) == len(made)


def test_a_transition_time_moves_only_with_the_status() -> None:
    later = NOW + timedelta(minutes=5)
    first = stamp((), [Condition("Ready", "False", "Waiting")], 1, NOW)
    second = stamp(first, [Condition("Ready", "False", "Other", "why")], 2, later)
    third = stamp(second, [Condition("Ready", "True", "Available")], 2, later)
    assert first[0]["last_transition_time"] == "2026-01-31T10:00:00Z"
    assert second[0]["last_transition_time"] == "2026-01-31T10:00:00Z"
    assert second[0]["observed_generation"] == 2
    assert third[0]["last_transition_time"] == "2026-01-31T10:05:00Z"


def test_equal_looks_past_times_only() -> None:
    one = {"tier": 0, "conditions": stamp((), [Condition("Ready", "True", "Available")], 1, NOW)}
    later = {"tier": 0, "conditions": stamp((), [Condition("Ready", "True", "Available")], 1, NOW + timedelta(1))}
    assert equal(one, later)
    assert not equal(one, {**later, "tier": 1})
    assert not equal(one, {"tier": 0, "conditions": stamp((), [Condition("Ready", "True", "Other")], 1, NOW)})


@pytest.mark.parametrize(
    ("conditions", "observed", "settled"),
    [
        ([Condition("Ready", "True", "Available")], 2, True),
        ([Condition("Ready", "True", "Available")], 1, False),
        ([Condition("Ready", "False", "WaitingForBucket")], 2, False),
        ([Condition("Ready", "False", "SpecInvalid"), Condition("Stalled", "True", "SpecInvalid")], 2, True),
        ([], None, False),
    ],
)
def test_settled(conditions: list[Condition], observed: int | None, settled: bool) -> None:
    status = {"observed_generation": observed, "conditions": stamp((), conditions, 2, NOW)}
    resource = Resource("Bucket", Metadata("a.b", "int_one", generation=2), {}, status)
    assert is_settled(resource) is settled


def test_reading_what_was_never_set() -> None:
    assert read({}, "Ready") is None
    assert not is_true({}, "Ready")
