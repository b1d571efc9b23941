"""Bring scores to a common scale; the documents keep their order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.retrieval import paths
from mixpeek_operator.retrieval.late import Late, known
from mixpeek_operator.retrieval.stage import Context, Documents, Stage, StageParams, State
from mixpeek_operator.retrieval.stages import _values

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Method = Literal["min_max", "z_score", "softmax", "l2"]


class Params(StageParams):
    """Parameters of `score_normalize`."""

    method: Late[_Method] = Field(
        default="min_max",
        description=(
            "min_max: (x - min) / (max - min), from 0 to 1. z_score: distance from the mean in standard deviations. "
            "softmax: a distribution that adds up to 1. l2: x divided by the length of all scores."
        ),
        examples=["min_max"],
    )
    score_field: Late[str] = Field(
        default="score",
        description="Dotted path of the score; a missing or non-numeric one counts as 0.",
        examples=["score"],
    )
    output_field: Late[str] | None = Field(
        default=None,
        description="Where the normalized score goes; it takes the score's place when absent.",
        examples=["normalized_score"],
    )
    min_value: Late[_Finite] | None = Field(
        default=None,
        description="Score that min_max makes 0, the lowest there is when absent; what is below becomes 0 too.",
        examples=[0.0],
    )
    max_value: Late[_Finite] | None = Field(
        default=None,
        description="Score that min_max makes 1, the highest there is when absent; what is above becomes 1 too.",
        examples=[1.0],
    )

    @model_validator(mode="after")
    def _range(self) -> Params:
        if isinstance(self.min_value, float) and isinstance(self.max_value, float):
            _check(self.min_value, self.max_value)
        return self


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return the documents with normalized scores."""
    names = context.names
    field = known(params.score_field, names, "score_field")
    output = field if params.output_field is None else known(params.output_field, names, "output_field")
    low = None if params.min_value is None else known(params.min_value, names, "min_value")
    high = None if params.max_value is None else known(params.max_value, names, "max_value")
    if low is not None and high is not None:
        _check(low, high)
    scores = _values.scores(state.documents, field)
    method = known(params.method, names, "method")
    if not scores:
        return []
    if method == "min_max":
        scores = _min_max(scores, low, high)
    else:
        scores = {"z_score": _z_score, "softmax": _softmax, "l2": _l2}[method](scores)
    if "." in output:
        return [paths.write(document, output, score) for document, score in zip(state.documents, scores, strict=True)]
    made = list(map(dict.copy, state.documents))
    for document, score in zip(made, scores, strict=True):
        document[output] = score
    return made


def _check(low: float, high: float) -> None:
    if low >= high:
        raise SpecError(f"min_value {low:g} must be below max_value {high:g}", code="parameter_invalid")


def _min_max(scores: Sequence[float], low: float | None, high: float | None) -> list[float]:
    least = min(scores) if low is None else low
    most = max(scores) if high is None else high
    span = most - least
    if span <= 0.0:
        # All are equal, or beyond the one border that is given.
        return [1.0 if score >= least else 0.0 for score in scores]
    if math.isinf(span):
        # The distance of two finite numbers; that of their halves is finite.
        scores = [score / 2 for score in scores]
        least, span = least / 2, most / 2 - least / 2
    scaled = [(score - least) / span for score in scores]
    if low is None and high is None:
        return scaled
    return [min(1.0, max(0.0, score)) for score in scaled]


def _z_score(scores: Sequence[float]) -> list[float]:
    scaled = _scaled(scores)
    mean = math.fsum(scaled) / len(scaled)
    deviation = math.sqrt(math.fsum((score - mean) ** 2 for score in scaled) / len(scaled))
    if deviation == 0.0 or min(scores) == max(scores):
        return [0.0] * len(scores)
    return [(score - mean) / deviation for score in scaled]


def _softmax(scores: Sequence[float]) -> list[float]:
    highest = max(scores)
    powers = [math.exp(score - highest) for score in scores]
    total = math.fsum(powers)
    return [power / total for power in powers]


def _l2(scores: Sequence[float]) -> list[float]:
    scaled = _scaled(scores)
    length = math.sqrt(math.fsum(score * score for score in scaled))
    return [score / length if length else 0.0 for score in scaled]


def _scaled(scores: Sequence[float]) -> list[float]:
    """The scores divided by the greatest, so that no square overflows; z_score and l2 do not depend on scale."""
    greatest = max(abs(score) for score in scores)
    return [score / greatest for score in scores] if greatest else list(scores)


STAGE = Stage(
    StageInfo("score_normalize", "sort", "Bring scores to a common scale; the order stays.", "scale", Params),
    run,
    repeatable=True,
)
