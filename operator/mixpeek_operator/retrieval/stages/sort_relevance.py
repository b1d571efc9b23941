"""Sort by a relevance score that stages before have written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import AliasChoices, Field

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.retrieval import paths
from mixpeek_operator.retrieval.late import Late, known
from mixpeek_operator.retrieval.pagination import Order
from mixpeek_operator.retrieval.stage import Context, Documents, Stage, StageParams, State
from mixpeek_operator.retrieval.stages import _sorting


class Params(StageParams):
    """Parameters of `sort_relevance`; `order` is accepted for `direction`."""

    score_field: Late[str] = Field(default="score", description="Dotted path of the score.", examples=["score"])
    direction: Late[Literal["asc", "desc"]] = Field(
        default="desc",
        validation_alias=AliasChoices("direction", "order"),
        description="desc: most relevant first.",
        examples=["desc"],
    )
    normalize: Late[bool] = Field(default=False, description="Scale the scores to 0..1 (best is 1).", examples=[False])
    missing_score: Literal["bottom", "top", "preserve"] = Field(
        default="bottom",
        description="Where documents without a score go; preserve keeps them at their position.",
        examples=["bottom"],
    )
    feature_address: str | None = Field(default=None, description="Accepted and without effect.")


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return the documents by score; equal scores keep their order."""
    field = known(params.score_field, context.names, "score_field")
    descending = known(params.direction, context.names, "direction") == "desc"
    documents = state.documents
    scores = paths.column(documents, field)
    kinds = set(map(type, scores))
    unscored: list[tuple[int, dict[str, Any]]] = []
    if bool in kinds or not _sorting.comparable(scores, kinds):
        scored = [place for place, score in enumerate(scores) if type(score) in (int, float) and score == score]
        there = set(scored)
        unscored = [(place, document) for place, document in enumerate(documents) if place not in there]
        documents, scores = [documents[place] for place in scored], [scores[place] for place in scored]
    ordered = _sorting.in_order(documents, field, scores, descending=descending)
    normalize = known(params.normalize, context.names, "normalize")
    if ordered and normalize:
        low, high = min(scores), max(scores)
        span = high - low
        ordered = [
            paths.write(document, field, (score - low) / span if span else 1.0)
            for document, score in zip(ordered, paths.column(ordered, field), strict=True)
        ]
    rest = [document for _, document in unscored]
    if params.missing_score == "top":
        return rest + ordered
    if params.missing_score == "preserve":
        for place, document in unscored:
            ordered.insert(place, document)
        return ordered
    return ordered + rest


def _order(params: Params, names: Mapping[str, Any]) -> Order:
    return Order(known(params.score_field, names), known(params.direction, names) == "desc")


STAGE = Stage(
    StageInfo("sort_relevance", "sort", "Sort documents by their relevance score.", "arrow-down-wide-narrow", Params),
    run,
    repeatable=True,
    order=_order,
)
