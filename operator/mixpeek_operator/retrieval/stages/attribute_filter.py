"""Keep the documents that satisfy a condition, or a tree of conditions.

As first stage it finds documents in the collections. Right behind a search it becomes part of the search, so that the
search still returns as many documents as it should. Anywhere else it filters what it gets.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field, model_validator

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.core.filters import Filter, all_of, matches
from mixpeek_operator.retrieval import search
from mixpeek_operator.retrieval.late import Late, LateFilter
from mixpeek_operator.retrieval.stage import Context, Documents, Stage, StageParams, State

_Batch = Annotated[int, Field(ge=1, le=10_000)]


class Params(StageParams):
    """Parameters of `attribute_filter`: `field`, `operator` and `value`, or `conditions`."""

    field: str | None = Field(
        default=None, description="Dotted path of the field (simple mode).", examples=["metadata.status"]
    )
    operator: str | None = Field(default=None, description="Comparison; eq when absent.", examples=["eq"])
    value: Any = Field(default=None, description="What to compare with.", examples=["published"])
    case_insensitive: bool = Field(default=False, description="Whether texts compare without case.", examples=[False])
    conditions: dict[str, Any] | list[Any] | None = Field(
        default=None,
        description="Tree of AND, OR and NOT lists of {field, operator, value} (boolean mode).",
        examples=[{"AND": [{"field": "price", "operator": "lte", "value": 100}]}],
    )
    batch_size: Late[_Batch] = Field(default=100, description="Documents per step; has no effect on the result.")

    @cached_property
    def filter(self) -> LateFilter:
        """The compiled filter. Raises SpecError with every mistake."""
        body: Any = self.conditions
        if self.field is not None:
            body = {"field": self.field, "operator": self.operator, "value": self.value}
            body["case_insensitive"] = self.case_insensitive
        elif self.case_insensitive:
            body = _insensitive(self.conditions)
        return LateFilter(body)

    @model_validator(mode="before")
    @classmethod
    def _conditions_win(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        if "natural_language" in values:
            raise ValueError("natural_language needs a language model and is not available; write conditions")
        values = {key: value for key, value in values.items() if key != "field_hints"}
        if values.get("conditions") is not None and "value" not in values and "operator" not in values:
            # A client library fills in a field of its own beside conditions.
            values.pop("field", None)
        return values

    @model_validator(mode="after")
    def _compile(self) -> Params:
        if (self.conditions is None) == (self.field is None):
            raise ValueError("give either field, operator and value, or conditions")
        # SpecError is no ValueError to pydantic, so that its problems reach the caller as they are.
        _ = self.filter
        return self


def _insensitive(body: Any) -> Any:
    if isinstance(body, list):
        return [_insensitive(item) for item in body]
    if isinstance(body, Mapping):
        inner = {key: _insensitive(value) if key in ("AND", "OR", "NOT") else value for key, value in body.items()}
        return {**inner, "case_insensitive": True} if "field" in body else inner
    return body


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return the documents that satisfy the filter; it may refer to each document as DOC."""
    if state.first:
        scope = search.in_collections([collection.id for collection in context.collections])
        condition = params.filter.value(context.names) if _movable(params) else None
        documents, more = await search.scan(
            context.vectors,
            context.namespace.vector_collection,
            all_of(scope, *state.filters, condition) or scope,
            limit=search.MAX_SCAN,
        )
        if more:
            context.limits.append(
                {
                    "name": "scan",
                    "requested": search.MAX_SCAN + 1,
                    "applied": search.MAX_SCAN,
                    "ceiling": search.MAX_SCAN,
                }
            )
        if _movable(params):
            return documents
        state = State(documents, first=False)
    late = params.filter
    if "DOC" not in late.namespaces:
        return late.select(context.names, state.documents)
    return [
        document for document in state.documents if matches(late.value({**context.names, "DOC": document}), document)
    ]


def _movable(params: Params) -> bool:
    return params.filter.namespaces <= {"INPUT", "CONTEXT"}


def _filter(params: Params, names: Mapping[str, Any]) -> Filter | None:
    return params.filter.value(names)


def _estimate(params: Params, documents: int) -> tuple[int, float, float]:
    return (documents + 1) // 2, 0.0, 0.05 + documents * 0.002


STAGE = Stage(
    StageInfo(
        "attribute_filter",
        "filter",
        "Keep documents by conditions on their fields, with AND, OR and NOT.",
        "filter",
        Params,
    ),
    run,
    repeatable=True,
    source=True,
    movable=_movable,
    filter=_filter,
    estimate=_estimate,
)
