"""What a namespace says of itself. Pure."""

from __future__ import annotations

from enum import StrEnum

from mixpeek_operator.core import vectors
from mixpeek_operator.core.conditions import Finding
from mixpeek_operator.core.lifecycle import Report, Subject
from mixpeek_operator.kinds.namespace import compute
from mixpeek_operator.kinds.namespace.plan import Have, Want, foreign


class Reason(StrEnum):
    """Why a namespace's own conditions are what they are."""

    COLLECTION_READY = "CollectionReady"
    """VectorsReady surfaces it when the vector collection has every vector and index."""
    COLLECTION_MISSING = "CollectionMissing"
    """Surfaces when there is no vector collection and nothing makes one."""
    VECTORS_MISSING = "VectorsMissing"
    """Surfaces when the vector collection lacks a vector or an index."""
    VECTOR_MISMATCH = "VectorMismatch"
    """Surfaces when a vector exists with another size or distance."""
    OWNED_BY_ANOTHER = "OwnedByAnother"
    """Surfaces when the vector collection carries another owner's mark."""
    SERVER_UNAVAILABLE = "ServerUnavailable"
    """Surfaces when the namespace asks for a vector server or collection of its own that we cannot use."""


def status(subject: Subject, want: Want | None, have: Have) -> Report:
    """Return the namespace's conditions and facts."""
    state = have.state
    facts = {
        "vector_collection": subject.id,
        "physical_collection": (state.physical or state.name) if state else None,
        "vectors": sorted(state.vectors) if state else None,
        "payload_indexes": sorted(state.payload_indexes) if state else None,
        "document_count": state.points if state else 0,
        **compute.facts(have.cluster),
    }
    if want is None:
        return Report((), facts)
    machines = compute.finding(subject, want.cluster, have.cluster)
    unsettled = want.cluster is not None and (not machines.ok or machines.reason == compute.Reason.UPDATING)
    look_again_s = compute.LOOK_AGAIN_S if unsettled else None
    return Report((_vectors(subject, want, have), machines), facts, look_again_s)


def _vectors(subject: Subject, want: Want, have: Have) -> Finding:
    def no(reason: Reason, message: str, *, stalled: bool = False) -> Finding:
        return Finding("VectorsReady", False, reason, message, stalled)

    infrastructure = subject.spec.get("infrastructure") or {}
    if infrastructure.get("qdrant_url") and not subject.facilities.own_vector_server:
        message = (
            "a vector server of its own cannot be used beside an embedded store; remove infrastructure.qdrant_url, or "
            "set MIXPEEK_QDRANT_URL to keep the other namespaces on a server as well"
        )
        return no(Reason.SERVER_UNAVAILABLE, message, stalled=True)
    if (infrastructure.get("qdrant_collection") or subject.id) != subject.id:
        message = (
            f"a collection of another name cannot be used; remove infrastructure.qdrant_collection, the vectors are in "
            f"{subject.id}"
        )
        return no(Reason.SERVER_UNAVAILABLE, message, stalled=True)
    state = have.state
    if state is None:
        return no(Reason.COLLECTION_MISSING, f"vector collection {want.collection} does not exist", stalled=True)
    if foreign(want, state):
        message = f"vector collection {state.name} belongs to another namespace; choose another id"
        return no(Reason.OWNED_BY_ANOTHER, message, stalled=True)
    wrong = vectors.mismatches(want.vectors, state)
    if wrong:
        message = "; ".join(wrong) + "; a vector cannot change, make a new namespace"
        return no(Reason.VECTOR_MISMATCH, message, stalled=True)
    lacking = vectors.missing(want.vectors, want.payload_indexes, state)
    if lacking:
        return no(Reason.VECTORS_MISSING, "to do: " + "; ".join(step.todo() for step in lacking))
    return Finding("VectorsReady", True, Reason.COLLECTION_READY)
