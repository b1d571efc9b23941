"""Sort by a relevance score that stages before have written."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any, Literal

from pydantic import AliasChoices, Field

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.retrieval import paths
from mixpeek_operator.retrieval.late import Late, known
from mixpeek_operator.retrieval.pagination import Order
from mixpeek_operator.retrieval.stage import Context, Documents, Stage, StageParams, State


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
    scored: list[tuple[float, dict[str, Any]]] = []
    unscored: list[tuple[int, dict[str, Any]]] = []
    for index, document in enumerate(state.documents):
        value = document[field] if field in document else paths.read(document, field)
        if (type(value) is float or type(value) is int) and value == value:
            scored.append((value, document))
        else:
            unscored.append((index, document))
    scored.sort(key=itemgetter(0), reverse=descending)
    normalize = known(params.normalize, context.names, "normalize")
    if scored and normalize:
        low, high = min(score for score, _ in scored), max(score for score, _ in scored)
        span = high - low
        scored = [
            (score, paths.write(document, field, (score - low) / span if span else 1.0)) for score, document in scored
        ]
    ordered = [document for _, document in scored]
    rest = [document for _, document in unscored]
    if params.missing_score == "top":
        return rest + ordered
    if params.missing_score == "preserve":
        for index, document in unscored:
            ordered.insert(index, document)
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
