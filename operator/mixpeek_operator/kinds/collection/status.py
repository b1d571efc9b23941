"""What a collection says of itself. Pure."""

from __future__ import annotations

from enum import StrEnum

from mixpeek_operator.core import vectors
from mixpeek_operator.core.conditions import Finding
from mixpeek_operator.core.lifecycle import Report, Subject
from mixpeek_operator.extraction.features import features_of
from mixpeek_operator.kinds.collection.plan import PASSTHROUGH, Have, Want


class Reason(StrEnum):
    """Why a collection's own conditions are what they are."""

    VECTORS_PRESENT = "VectorsPresent"
    """VectorsReady surfaces it when every vector and index is there."""
    COLLECTION_MISSING = "CollectionMissing"
    """Surfaces when the namespace's vector collection is gone."""
    VECTORS_MISSING = "VectorsMissing"
    """Surfaces when a vector or an index is lacking and nothing adds it."""
    VECTOR_MISMATCH = "VectorMismatch"
    """Surfaces when the namespace has the vector with another size or distance."""


def status(subject: Subject, want: Want | None, have: Have) -> Report:
    """Return the collection's conditions and facts."""
    if want is None:
        return Report()
    use = subject.spec.get("feature_extractor") or {}
    name = str(use.get("feature_extractor_name") or PASSTHROUGH[0])
    version = str(use.get("version") or PASSTHROUGH[1])
    indexes = subject.catalog.vector_indexes(name, version, use.get("parameters") or {})
    facts = {
        "tier": want.tier,
        "feature_extractor_id": f"{name}_{version.replace('.', '_')}",
        "features": [feature.uri for feature in features_of(name, version, indexes)],
        "vectors": sorted(want.vectors),
        "document_count": have.documents,
    }
    return Report((_vectors(want, have),), facts)


def _vectors(want: Want, have: Have) -> Finding:
    def no(reason: Reason, message: str, *, stalled: bool = False) -> Finding:
        return Finding("VectorsReady", False, reason, message, stalled)

    state = have.state
    if state is None:
        message = f"vector collection {want.vector_collection} of the namespace does not exist"
        return no(Reason.COLLECTION_MISSING, message)
    wrong = vectors.mismatches(want.vectors, state)
    if wrong:
        message = "; ".join(wrong) + "; use the same parameters as the other collections, or another namespace"
        return no(Reason.VECTOR_MISMATCH, message, stalled=True)
    lacking = vectors.missing(want.vectors, want.payload_indexes, state)
    if lacking:
        return no(Reason.VECTORS_MISSING, "to do: " + "; ".join(step.todo() for step in lacking))
    return Finding("VectorsReady", True, Reason.VECTORS_PRESENT)
