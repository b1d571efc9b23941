"""What a retriever says of itself. Pure."""

from __future__ import annotations

from enum import StrEnum

from mixpeek_operator.core.conditions import Finding
from mixpeek_operator.core.lifecycle import Report, Subject
from mixpeek_operator.kinds.retriever.plan import Have, Want


class Reason(StrEnum):
    """Why a retriever's own conditions are what they are."""

    STAGES_COMPILED = "StagesCompiled"
    """StagesReady surfaces it when every stage can run; what cannot is SpecInvalid and named there."""


def status(subject: Subject, want: Want | None, have: Have) -> Report:
    """Return the retriever's conditions and facts."""
    if want is None:
        return Report()
    facts = {"stage_count": len(subject.spec.get("stages") or ()), "features": list(want.uris)}
    return Report((Finding("StagesReady", True, Reason.STAGES_COMPILED),), facts)
