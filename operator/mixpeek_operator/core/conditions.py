"""Conditions: the one way to set them, compare them and read them.

Every kind has `Synced` (what is declared is what is there) and `Ready` (it can be used). `Stalled` is present only
while nothing will change without somebody acting; with it and the stamped generation a status reads correctly in
kstatus, so `kubectl wait`, Helm `--wait`, Argo CD and Flux need no plug-in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from mixpeek_operator.core.resource import Condition, Resource

READY = "Ready"
SYNCED = "Synced"
STALLED = "Stalled"


class Reason(StrEnum):
    """Reasons every kind shares; each kind adds its own in its `status` module."""

    AVAILABLE = "Available"
    """Ready surfaces it when everything the resource needs is there."""
    IN_SYNC = "InSync"
    """Synced surfaces it when nothing differs from what is declared."""
    WAITING_FOR = "WaitingFor"
    """Prefix; surfaces as `WaitingForBucket` when a referred resource is missing or not ready."""
    STILL_REFERRED_TO = "StillReferredTo"
    """Surfaces when a deletion waits for resources that still refer to this one."""
    DELETING = "Deleting"
    """Surfaces when a deletion is under way."""
    DRIFTED = "Drifted"
    """Surfaces when something outside was changed and driftPolicy is Report."""
    DRIFT_IGNORED = "DriftIgnored"
    """Surfaces when something outside was changed and driftPolicy is Ignore."""
    NOT_MANAGED = "NotManaged"
    """Surfaces when managementPolicy keeps us from making a difference go away."""
    SECRET_MISSING = "SecretMissing"  # noqa: S105 - a state
    """Surfaces when the organization has no secret of a name that is used; not Stalled, as many come a moment later."""
    CONNECTION_MISSING = "ConnectionMissing"
    """The same of a connection to a database."""
    SPEC_INVALID = "SpecInvalid"
    """Surfaces when the declaration has to be edited."""
    BACKEND_UNAVAILABLE = "BackendUnavailable"
    """Surfaces when a store is away; it is tried again."""
    BACKEND_REFUSED = "BackendRefused"
    """Surfaces when a store refuses: quota or credentials."""
    INTERNAL_ERROR = "InternalError"
    """Surfaces on our own bug, with the id to look for in the log."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a kind finds about itself, before it becomes a condition.

    `ok` None means unknown. `stalled` says that waiting will not help. `message` holds no time and says what to do.
    """

    type: str
    ok: bool | None
    reason: str
    message: str = ""
    stalled: bool = False


def summarise(findings: Sequence[Finding], synced: Finding) -> list[Condition]:
    """Return every condition of a resource: its findings, Synced, Ready, and Stalled where it applies.

    Ready is the first trouble found, Synced first; with none it is True.
    """
    trouble = next((finding for finding in (synced, *findings) if finding.ok is not True), None)
    # A difference that somebody chose to keep does not make the resource unusable.
    if trouble is synced and synced.reason in (Reason.DRIFTED, Reason.NOT_MANAGED):
        trouble = next((finding for finding in findings if finding.ok is not True), None)
    if trouble is None:
        ready = Finding(READY, True, Reason.AVAILABLE)
    else:
        ready = Finding(READY, trouble.ok, trouble.reason, trouble.message)
    conditions = [_condition(item) for item in (ready, synced, *findings)]
    if trouble is not None and trouble.stalled:
        conditions.append(Condition(STALLED, "True", trouble.reason, trouble.message))
    return conditions


def stamp(
    previous: Sequence[Mapping[str, Any]], conditions: Sequence[Condition], generation: int, now: datetime
) -> list[dict[str, Any]]:
    """Return the conditions as they are stored; a transition time moves only with the condition's status."""
    times = {item.get("type"): (item.get("status"), item.get("last_transition_time")) for item in previous}
    stored: list[dict[str, Any]] = []
    for condition in conditions:
        status, since = times.get(condition.type, (None, None))
        stored.append(
            {
                "type": condition.type,
                "status": condition.status,
                "reason": str(condition.reason),
                "message": condition.message,
                "observed_generation": generation,
                "last_transition_time": since if since and status == condition.status else timestamp(now),
            }
        )
    return stored


def equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two statuses say the same, times of transition aside."""
    return _without_times(one) == _without_times(other)


def read(status: Mapping[str, Any], type: str) -> Mapping[str, Any] | None:
    """Return the stored condition of that type, None when it was never set."""
    for item in status.get("conditions") or ():
        if item.get("type") == type:
            return dict(item)
    return None


def is_true(status: Mapping[str, Any], type: str) -> bool:
    """Whether the condition is there and True."""
    found = read(status, type)
    return found is not None and found.get("status") == "True"


def is_ready(resource: Resource) -> bool:
    """Whether the resource can be used by others now."""
    return not resource.deleting and is_true(resource.status, READY)


def is_settled(resource: Resource) -> bool:
    """Whether the engine has seen this generation and will not change its mind by waiting."""
    if resource.status.get("observed_generation") != resource.metadata.generation:
        return False
    return is_true(resource.status, READY) or is_true(resource.status, STALLED)


def is_judged(resource: Resource) -> bool:
    """Whether it is settled, or waits for what only somebody outside can bring."""
    if is_settled(resource):
        return True
    ready = read(resource.status, READY) or {}
    current = resource.status.get("observed_generation") == resource.metadata.generation
    return current and ready.get("reason") in (Reason.SECRET_MISSING, Reason.CONNECTION_MISSING)


def timestamp(moment: datetime) -> str:
    """Return `moment` (UTC) as ISO 8601 with Z, whole seconds, as Kubernetes writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _condition(finding: Finding) -> Condition:
    status = "Unknown" if finding.ok is None else str(finding.ok)
    return Condition(finding.type, status, str(finding.reason), finding.message)


def _without_times(status: Mapping[str, Any]) -> dict[str, Any]:
    conditions = [
        {key: value for key, value in item.items() if key != "last_transition_time"}
        for item in status.get("conditions") or ()
    ]
    return {**status, "conditions": conditions}
