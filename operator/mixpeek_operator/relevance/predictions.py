"""Measuring predictions that the caller has made; nothing is stored. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mixpeek_operator.relevance.metrics import METRICS, mean

_Terms = Annotated[list[str], Field(max_length=10_000)]
_DEFAULT: Final = ("precision", "recall", "f1")


class Prediction(BaseModel):
    """What was predicted, and what is true; both are sets."""

    model_config = ConfigDict(extra="forbid")

    predicted: _Terms = Field(default=[], description="Predicted terms or ids.")
    ground_truth: _Terms = Field(default=[], description="True terms or ids.")


class Predictions(BaseModel):
    """One prediction, or several as `items`."""

    model_config = ConfigDict(extra="forbid")

    predicted: _Terms | None = Field(default=None, description="Predicted terms or ids of a single prediction.")
    ground_truth: _Terms | None = Field(default=None, description="True terms or ids of a single prediction.")
    items: Annotated[list[Prediction], Field(min_length=1, max_length=10_000)] | None = Field(
        default=None, description="Several predictions."
    )
    metrics: list[Literal["precision", "recall", "f1", "f2"]] | None = Field(
        default=None, description="What to measure; precision, recall and f1 when left out."
    )
    k: int | None = Field(default=None, ge=1, description="Only the first k predicted count.")

    @model_validator(mode="after")
    def _one_form(self) -> Predictions:
        single = self.predicted is not None and self.ground_truth is not None
        if single == (self.items is not None) or (self.predicted is None) != (self.ground_truth is None):
            raise ValueError("send predicted and ground_truth, or items")
        return self


def score(given: Predictions) -> dict[str, Any]:
    """Return the metrics of each prediction and their means, in wire shape.

    What predicts nothing has precision 0; where nothing is true, recall is 0, and all is 1 when nothing was predicted.
    """
    names: list[str] = list(dict.fromkeys(given.metrics or _DEFAULT))
    items = given.items or [Prediction(predicted=given.predicted or [], ground_truth=given.ground_truth or [])]
    rows = [_score(item, names, given.k) for item in items]
    return {
        "metrics": names,
        "k": given.k,
        "count": len(rows),
        "per_item": rows,
        "aggregate": {name: mean([row[name] for row in rows]) for name in names},
    }


def _score(item: Prediction, names: list[str], k: int | None) -> dict[str, float]:
    predicted = list(dict.fromkeys(item.predicted))[:k]
    true = dict.fromkeys(item.ground_truth, 1.0)
    if not predicted or not true:
        return dict.fromkeys(names, 1.0 if not predicted and not true else 0.0)
    # A set has no empty places: precision is over what was predicted.
    return {name: METRICS[name](predicted, true, len(predicted)) for name in names}
