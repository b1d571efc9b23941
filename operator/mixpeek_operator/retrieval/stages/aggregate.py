"""Figures over the documents, or over groups of them."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator, model_validator

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.retrieval import paths
from mixpeek_operator.retrieval.late import Late, known
from mixpeek_operator.retrieval.stage import Context, Documents, Stage, StageParams, State
from mixpeek_operator.retrieval.stages import _sorting, _values

_Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=1, le=10_000)]
Type = Literal[
    "count", "sum", "avg", "min", "max", "cardinality", "percentile", "histogram", "count_distinct", "first", "last",
    "collect", "collect_distinct", "stddev", "variance", "frequency", "co_occurrence", "correlation",
]  # fmt: skip
_PAIRS: Final = ("co_occurrence", "correlation")


class Aggregation(BaseModel):
    """One figure; `function`, `alias` and `percentile_value` are accepted as well."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    type: Type = Field(
        validation_alias=AliasChoices("type", "function"),
        description=(
            "count, sum, avg, min, max; cardinality (or count_distinct): different values; percentile; histogram; "
            "first, last, collect, collect_distinct: values in the documents' order; stddev, variance: of a sample "
            "(n - 1); frequency: the values that occur most; co_occurrence, correlation (Pearson's): of two fields."
        ),
        examples=["avg"],
    )
    name: str = Field(
        min_length=1,
        max_length=200,
        validation_alias=AliasChoices("name", "alias"),
        description="What the figure is called in the answer.",
        examples=["avg_price"],
    )
    field: Late[str] | None = Field(
        default=None,
        description="Dotted path of the values; all types but count need it. A list stands for its elements.",
        examples=["price"],
    )
    field_b: Late[str] | None = Field(default=None, description="Second path, for co_occurrence and correlation.")
    percentiles: list[_Percent] | None = Field(
        default=None, min_length=1, description="Percentiles from 0 to 100, interpolated; the answer has one of each."
    )
    percentile_value: _Percent | None = Field(default=None, description="One percentile, 50 when absent.")
    interval: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="Width of a histogram's buckets; one bucket for each value when absent."
    )
    top_k: _Count = Field(default=10, description="Most values of frequency and co_occurrence.")

    @model_validator(mode="after")
    def _complete(self) -> Aggregation:
        if self.type != "count" and self.field is None:
            raise ValueError(f"{self.type} needs a field")
        if self.type in _PAIRS and self.field_b is None:
            raise ValueError(f"{self.type} needs field_b")
        return self


class GroupField(BaseModel):
    """A field to group by, with the name it has in the answer."""

    model_config = ConfigDict(extra="forbid")

    field: str = Field(min_length=1, description="Dotted path.", examples=["category"])
    alias: str | None = Field(default=None, description="Its name in the answer; the path's last part when absent.")


class Params(StageParams):
    """Parameters of `aggregate`."""

    aggregations: list[Aggregation] = Field(
        min_length=1,
        max_length=100,
        description="The figures.",
        examples=[[{"type": "count", "name": "total"}, {"type": "avg", "field": "price", "name": "avg_price"}]],
    )
    group_by: Late[str] | list[GroupField] | None = Field(
        default=None,
        description=(
            "Field to group by: the answer maps its values to figures. Or a list of {field, alias}: the answer is a "
            "list of rows."
        ),
        examples=["category"],
    )
    sort_by: str | None = Field(default=None, description="Name of the figure that groups are sorted by.")
    sort_order: Late[Literal["asc", "desc"]] = Field(default="desc", description="Which groups come first.")
    limit: Late[_Count] | None = Field(default=None, description="Most groups, after sorting.")
    include_documents: Late[bool] = Field(
        default=False, description="Whether the documents go on to the next stage; none do otherwise.", examples=[False]
    )

    @field_validator("group_by", mode="before")
    @classmethod
    def _paths(cls, value: Any) -> Any:
        return (
            [{"field": item} if isinstance(item, str) else item for item in value] if isinstance(value, list) else value
        )

    @model_validator(mode="after")
    def _names(self) -> Params:
        names = [item.name for item in self.aggregations]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ValueError(f"two aggregations are called {twice[0]!r}")
        if self.sort_by is not None and self.sort_by not in names:
            raise ValueError(f"sort_by names no aggregation: {self.sort_by!r}; there are {', '.join(names)}")
        if isinstance(self.group_by, list):
            columns = [_column(item) for item in self.group_by]
            clash = [name for name, count in Counter(columns + names).items() if count > 1]
            if clash:
                raise ValueError(f"two columns are called {clash[0]!r}; give an alias")
        return self


async def run(state: State, params: Params, context: Context) -> Documents:
    """Put the figures into the answer's `aggregations` and the stage's statistics; return the documents or none.

    Raises SpecError for a figure over numbers of a field that holds something else.
    """
    figures: dict[str, Any] | list[dict[str, Any]]
    if params.group_by is None:
        figures = _figures(state.documents, params, context)
    elif isinstance(params.group_by, list):
        figures = _rows(state.documents, params.group_by, params, context)
    else:
        figures = _mapping(state.documents, known(params.group_by, context.names, "group_by"), params, context)
    state.metadata["aggregations"] = figures
    context.aggregations.update(figures if isinstance(figures, dict) else {"groups": figures})
    return state.documents if known(params.include_documents, context.names, "include_documents") else []


def _mapping(documents: Documents, field: str, params: Params, context: Context) -> dict[str, Any]:
    groups: dict[str, Documents] = {}
    for document in documents:
        groups.setdefault(_text(_values.present(document, field)), []).append(document)
    rows = [{"key": key, "figures": _figures(found, params, context)} for key, found in groups.items()]
    return {row["key"]: row["figures"] for row in _first(rows, "figures", params, context)}


def _rows(documents: Documents, fields: Sequence[GroupField], params: Params, context: Context) -> list[dict[str, Any]]:
    groups: dict[bytes, tuple[list[Any], Documents]] = {}
    for document in documents:
        values = [_values.present(document, item.field) for item in fields]
        groups.setdefault(_values.mark(values), (values, []))[1].append(document)
    columns = [_column(item) for item in fields]
    rows = [
        {"columns": dict(zip(columns, values, strict=True)), "figures": _figures(found, params, context)}
        for values, found in groups.values()
    ]
    return [{**row["columns"], **row["figures"]} for row in _first(rows, "figures", params, context)]


def _first(rows: list[dict[str, Any]], inside: str, params: Params, context: Context) -> list[dict[str, Any]]:
    if params.sort_by is not None:
        descending = known(params.sort_order, context.names, "sort_order") == "desc"
        by = [{"value": row[inside][params.sort_by], "row": row} for row in rows]
        rows = [item["row"] for item in _sorting.sort(by, "value", descending=descending, missing_last=True)]
    return rows if params.limit is None else rows[: known(params.limit, context.names, "limit")]


def _column(item: GroupField) -> str:
    return item.alias or item.field.rpartition(".")[2]


def _text(value: Any) -> str:
    """A value as the key of a JSON object."""
    return value if isinstance(value, str) else _values.mark(value).decode()


def _figures(documents: Documents, params: Params, context: Context) -> dict[str, Any]:
    figures = {}
    for item in params.aggregations:
        try:
            figures[item.name] = _figure(documents, item, context)
        except OverflowError:
            raise SpecError(
                f"{item.name}: the numbers are too large for {item.type}", code="number_too_large"
            ) from None
    return figures


def _figure(documents: Documents, item: Aggregation, context: Context) -> Any:
    if item.type == "count" and item.field is None:
        return len(documents)
    field = known(item.field or "", context.names, "field")
    if item.type in _PAIRS:
        pairs = [
            (_all(document, field), _all(document, known(item.field_b or "", context.names))) for document in documents
        ]
        return _co_occurrence(pairs, item.top_k) if item.type == "co_occurrence" else _correlation(pairs, item, field)
    values = [value for document in documents for value in _all(document, field)]
    if item.type in _OF_VALUES:
        return _OF_VALUES[item.type](values)
    if item.type == "frequency":
        return [{"value": value, "count": count} for value, count in _counted(values)[: item.top_k]]
    if item.type == "histogram" and item.interval is None:
        return {"buckets": [{"key": value, "count": count} for value, count in _counted(values)]}
    if item.type in ("min", "max") and values and all(isinstance(value, str) for value in values):
        return min(values) if item.type == "min" else max(values)
    numbers = [_number(value, item, field) for value in values]
    if item.type == "percentile":
        return _percentiles(numbers, item)
    if item.type == "histogram":
        return {"buckets": _buckets(numbers, float(item.interval or 1.0))}
    return _OF_NUMBERS[item.type](numbers)


def _all(document: Mapping[str, Any], field: str) -> list[Any]:
    value = paths.read(document, field)
    if value is paths.ABSENT or value is None:
        return []
    return [item for item in value if item is not None] if isinstance(value, list) else [value]


def _number(value: Any, item: Aggregation, field: str) -> float | int:
    found = _values.number(value)
    if found is None:
        raise SpecError(f"{item.name}: {item.type} needs numbers; {field!r} holds {value!r:.60}", code="not_a_number")
    return found


def _sum(numbers: Sequence[float]) -> float:
    return sum(numbers) if all(isinstance(number, int) for number in numbers) else math.fsum(numbers)


def _mean(numbers: Sequence[float]) -> float | None:
    return _sum(numbers) / len(numbers) if numbers else None


def _spread(of: Callable[[Sequence[float]], float]) -> Callable[[Sequence[float]], float | None]:
    return lambda numbers: float(of(numbers)) if len(numbers) > 1 else None


def _distinct(values: Sequence[Any]) -> list[Any]:
    found: dict[bytes, Any] = {}
    for value in values:
        found.setdefault(_values.mark(value), value)
    return list(found.values())


_OF_NUMBERS: Final[dict[str, Callable[[Sequence[float]], Any]]] = {
    "sum": _sum,
    "avg": _mean,
    "min": lambda numbers: min(numbers, default=None),
    "max": lambda numbers: max(numbers, default=None),
    "stddev": _spread(statistics.stdev),
    "variance": _spread(statistics.variance),
}
_OF_VALUES: Final[dict[str, Callable[[Sequence[Any]], Any]]] = {
    "count": len,
    "cardinality": lambda values: len({_values.mark(value) for value in values}),
    "count_distinct": lambda values: len({_values.mark(value) for value in values}),
    "first": lambda values: values[0] if values else None,
    "last": lambda values: values[-1] if values else None,
    "collect": list,
    "collect_distinct": _distinct,
}


def _counted(values: Sequence[Any]) -> list[tuple[Any, int]]:
    """Values with their counts, most frequent first, equal counts by value."""
    counts = Counter(_values.mark(value) for value in values)
    return [(orjson.loads(mark), count) for mark, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))]


def _co_occurrence(pairs: Sequence[tuple[list[Any], list[Any]]], top: int) -> list[dict[str, Any]]:
    found = [[one, other] for ones, others in pairs for one, other in product(ones, others)]
    return [{"value_a": both[0], "value_b": both[1], "count": count} for both, count in _counted(found)[:top]]


def _correlation(pairs: Sequence[tuple[list[Any], list[Any]]], item: Aggregation, field: str) -> float | None:
    whole = [(ones[0], others[0]) for ones, others in pairs if len(ones) == 1 and len(others) == 1]
    ones = [float(_number(one, item, field)) for one, _ in whole]
    others = [float(_number(other, item, str(item.field_b))) for _, other in whole]
    if len(set(ones)) < 2 or len(set(others)) < 2:
        return None
    return statistics.correlation(ones, others)


def _percentiles(numbers: Sequence[float], item: Aggregation) -> Any:
    ordered = sorted(numbers)
    if item.percentiles is None:
        return _percentile(ordered, 50.0 if item.percentile_value is None else item.percentile_value)
    return {f"{percent:g}": _percentile(ordered, percent) for percent in item.percentiles}


def _percentile(ordered: Sequence[float], percent: float) -> float | None:
    """Between the two nearest values, in proportion."""
    if not ordered:
        return None
    place = percent / 100 * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] * (1 - (place - below)) + ordered[above] * (place - below))


def _buckets(numbers: Sequence[float], interval: float) -> list[dict[str, Any]]:
    """Buckets that hold something, from the lowest; a number on a border is in the upper one."""
    counts = Counter(math.floor(number / interval) for number in numbers)
    return [
        {
            "key": f"{index * interval:g}-{(index + 1) * interval:g}",
            "from": index * interval,
            "to": (index + 1) * interval,
            "count": count,
        }
        for index, count in sorted(counts.items())
    ]


def _estimate(params: Params, documents: int) -> tuple[int, float, float]:
    cost = 0.02 + 0.001 * documents * len(params.aggregations)
    return documents if params.include_documents is True else 0, 0.0, cost


STAGE = Stage(
    StageInfo("aggregate", "reduce", "Compute figures over the documents, or over groups of them.", "sigma", Params),
    run,
    repeatable=True,
    estimate=_estimate,
)
