"""What a retriever says of itself. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from mixpeek_operator.core import conditions
from mixpeek_operator.core.catalog import Need
from mixpeek_operator.core.conditions import Finding
from mixpeek_operator.core.lifecycle import Report, Subject
from mixpeek_operator.core.normal import path_text
from mixpeek_operator.kinds.retriever.plan import Have, Want

_LOOK_AGAIN_S = 5.0
_TOLD = 10


class Reason(StrEnum):
    """Why a retriever's own conditions are what they are."""

    STAGES_COMPILED = "StagesCompiled"
    """StagesReady surfaces it when every stage can run; what cannot is SpecInvalid and named there."""


def status(subject: Subject, want: Want | None, have: Have) -> Report:
    """Return the retriever's conditions and facts."""
    if want is None:
        return Report()
    facts = {"stage_count": len(subject.spec.get("stages") or ()), "features": list(want.uris)}
    if have.lacking:
        # Where the operator watches secrets, looking again finds nothing new.
        told_of = subject.facilities.secret_object is not None and all(need.kind == "secret" for need in have.lacking)
        return Report((_lacks(subject, have.lacking),), facts, None if told_of else _LOOK_AGAIN_S)
    return Report((Finding("StagesReady", True, Reason.STAGES_COMPILED),), facts)


def _lacks(subject: Subject, needs: Sequence[Need]) -> Finding:
    stages = subject.spec["stages"]
    told = [
        f"there is no {need.kind} {need.name!r}, which stage {stages[need.location[1]]['stage_name']!r} names "
        f"({path_text(need.location)})"
        for need in needs[:_TOLD]
    ]
    if len(needs) > _TOLD:
        told.append(f"{len(needs) - _TOLD} more are missing")
    asked = {need.kind for need in needs}
    if "secret" in asked:
        place, organization = subject.facilities.secret_object, subject.resource.metadata.organization
        key = f"add it as a key of Secret {organization}/{place}, or " if place else ""
        told.append(f"{key}create a secret with POST /v1/organizations/secrets")
    if "connection" in asked:
        told.append("create a connection with POST /v1/organizations/connections")
    reason = conditions.Reason.SECRET_MISSING if "secret" in asked else conditions.Reason.CONNECTION_MISSING
    return Finding("StagesReady", False, reason, "; ".join(told))
