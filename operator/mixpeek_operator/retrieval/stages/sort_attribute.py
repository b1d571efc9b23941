"""Sort by the value of a field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import AliasChoices, Field, model_validator

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.retrieval.late import Late, known
from mixpeek_operator.retrieval.pagination import Order
from mixpeek_operator.retrieval.stage import Context, Documents, Stage, StageParams, State
from mixpeek_operator.retrieval.stages import _sorting


class Params(StageParams):
    """Parameters of `sort_attribute`; `sort_field`, `order` and `null_handling` are accepted as well."""

    field: Late[str] = Field(
        validation_alias=AliasChoices("field", "sort_field"),
        description="Dotted path of the field to sort by.",
        examples=["metadata.price"],
    )
    direction: Late[Literal["asc", "desc"]] = Field(
        default="desc",
        validation_alias=AliasChoices("direction", "order"),
        description="desc: highest or latest first. asc: lowest or earliest first.",
        examples=["asc"],
    )
    null_handling: Literal["first", "last"] = Field(
        default="last", description="Where documents without the field go.", examples=["last"]
    )

    @model_validator(mode="before")
    @classmethod
    def _nulls_last(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and isinstance(values.get("nulls_last"), bool):
            rest = {key: value for key, value in values.items() if key != "nulls_last"}
            return {"null_handling": "last" if values["nulls_last"] else "first", **rest}
        return values


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return the documents sorted; equal ones keep their order, so chained sorts sort by several fields."""
    field = known(params.field, context.names, "field")
    descending = known(params.direction, context.names, "direction") == "desc"
    return _sorting.sort(state.documents, field, descending=descending, missing_last=params.null_handling == "last")


def _order(params: Params, names: Mapping[str, Any]) -> Order:
    return Order(known(params.field, names), known(params.direction, names) == "desc")


STAGE = Stage(
    StageInfo("sort_attribute", "sort", "Sort documents by the value of a field.", "arrow-down-a-z", Params),
    run,
    repeatable=True,
    order=_order,
)
