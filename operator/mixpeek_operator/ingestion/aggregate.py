"""Grouping and aggregating records, as the aggregate endpoints of objects and documents describe it."""

from __future__ import annotations

import bisect
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mixpeek_operator.core.errors import Place, Problem, SpecError
from mixpeek_operator.ingestion.paths import MISSING, resolve

_Unit = Literal["year", "month", "week", "day", "hour", "minute", "second"]
_Part = Literal["year", "month", "week", "day", "dayOfWeek", "dayOfYear", "hour", "minute", "second"]
_Function = Literal["count", "count_distinct", "sum", "avg", "min", "max", "first", "last", "push", "add_to_set"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore")


class GroupBy(_Model):
    """One key of a group."""

    field: str
    alias: str | None = None
    date_trunc: _Unit | None = None
    date_part: _Part | None = None

    @property
    def name(self) -> str:
        return self.alias or self.field


class Operation(_Model):
    """One figure of a group."""

    function: _Function
    field: str | None = None
    alias: str
    distinct_field: str | None = None

    @model_validator(mode="after")
    def _needs_field(self) -> Operation:
        if self.function != "count" and not (self.field or self.distinct_field):
            raise ValueError(f"{self.function} needs 'field'")
        return self


class Having(_Model):
    """A condition on a figure."""

    field: str
    operator: Literal["eq", "ne", "gt", "gte", "lt", "lte"]
    value: Any


class Ranges(_Model):
    """Numeric ranges as a key: `boundaries` part them, each group is called by its lower bound."""

    field: str
    boundaries: list[float] = Field(min_length=2)
    default_bucket: str | None = None


class Request(_Model):
    """Body of an aggregate call."""

    group_by: list[GroupBy] = Field(min_length=1)
    aggregations: list[Operation] = Field(min_length=1)
    having: list[Having] = []
    unwind: str | None = None
    range_buckets: list[Ranges] = []
    sort_by: str | None = None
    sort_direction: Literal["asc", "desc"] = "desc"
    limit: int | None = Field(default=None, ge=1)


def parse_request(body: Mapping[str, Any]) -> Request:
    """Return the request. Raises SpecError with every mistake."""
    present = {name: value for name, value in body.items() if value is not None}
    try:
        return Request.model_validate(present)
    except ValidationError as error:
        raise SpecError.of(
            [
                Problem(
                    "invalid_aggregation",
                    item["msg"],
                    Place(path=".".join(map(str, item["loc"]))),
                    location=tuple(item["loc"]),
                )
                for item in error.errors()
            ]
        ) from error


@dataclass(slots=True)
class _Group:
    keys: dict[str, Any]
    rows: int = 0
    values: dict[str, list[Any]] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, dict[bytes, Any]] = field(default_factory=dict)


async def run(request: Request, rows: AsyncIterator[Mapping[str, Any]]) -> dict[str, Any]:
    """Return `results`, `total_groups` and `query_info`; memory grows with the groups, not with the rows."""
    groups: dict[bytes, _Group] = {}
    read = 0
    async for row in rows:
        read += 1
        for item in _unwound(row, request.unwind):
            keys = _keys(item, request)
            mark = orjson.dumps(list(keys.values()), default=str, option=orjson.OPT_NON_STR_KEYS)
            group = groups.setdefault(mark, _Group(keys))
            group.rows += 1
            for operation in request.aggregations:
                _take(group, operation, item)
    results = [
        {"group": group.keys, "metrics": {item.alias: _figure(group, item) for item in request.aggregations}}
        for group in groups.values()
    ]
    results = [item for item in results if all(_holds(item, condition) for condition in request.having)]
    if request.sort_by:
        name = request.sort_by
        results.sort(
            key=lambda item: order(item["metrics"].get(name, item["group"].get(name))),
            reverse=request.sort_direction == "desc",
        )
    total = len(results)
    return {"results": results[: request.limit], "total_groups": total, "query_info": {"rows_read": read}}


def order(value: Any) -> tuple[int, Any]:
    """Return a sort key under which values of different types have a fixed order, absent ones first."""
    if value is None or value is MISSING:
        return (0, 0)
    if isinstance(value, bool):
        return (1, value)
    if isinstance(value, int | float):
        return (2, value)
    if isinstance(value, str):
        return (3, value)
    return (4, orjson.dumps(value, default=str, option=orjson.OPT_SORT_KEYS).decode())


def _unwound(row: Mapping[str, Any], path: str | None) -> Sequence[Mapping[str, Any]]:
    if path is None:
        return [row]
    value = resolve(row, path)
    if not isinstance(value, list):
        return [] if value in (None, MISSING) else [row]
    return [{**row, path: item, path.split(".")[-1]: item} for item in value]


def _keys(row: Mapping[str, Any], request: Request) -> dict[str, Any]:
    ranges = {item.field: item for item in request.range_buckets}
    found: dict[str, Any] = {}
    for key in request.group_by:
        value = _value(row, key.field)
        if key.field in ranges:
            value = _range(value, ranges[key.field])
        elif key.date_trunc or key.date_part:
            value = _date(value, key)
        found[key.name] = value
    for name, item in ranges.items():
        if name not in {key.field for key in request.group_by}:
            found[name] = _range(_value(row, name), item)
    return found


def _value(row: Mapping[str, Any], path: str) -> Any:
    value = resolve(row, path)
    return None if value is MISSING else value


def _range(value: Any, ranges: Ranges) -> Any:
    bounds = sorted(ranges.boundaries)
    if isinstance(value, bool) or not isinstance(value, int | float) or not bounds[0] <= value < bounds[-1]:
        return ranges.default_bucket
    return bounds[bisect.bisect_right(bounds, value) - 1]


def _date(value: Any, key: GroupBy) -> Any:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    if key.date_part:
        parts = {
            "week": moment.isocalendar().week,
            "dayOfWeek": moment.isoweekday() % 7 + 1,
            "dayOfYear": moment.timetuple().tm_yday,
        }
        return parts[key.date_part] if key.date_part in parts else getattr(moment, key.date_part)
    if key.date_trunc == "week":
        moment -= timedelta(days=moment.weekday())
    units = ("year", "month", "day", "hour", "minute", "second", "microsecond")
    kept = units.index("day" if key.date_trunc == "week" else str(key.date_trunc))
    resets = {unit: (1 if unit in ("month", "day") else 0) for unit in units[kept + 1 :]}
    return moment.replace(**resets).isoformat()  # type: ignore[arg-type]


def _take(group: _Group, operation: Operation, row: Mapping[str, Any]) -> None:
    name = operation.alias
    path = operation.distinct_field or operation.field
    value = None if path is None else _value(row, path)
    if operation.function == "count":
        if path is None or value is not None:
            group.counts[name] = group.counts.get(name, 0) + 1
        return
    if value is None:
        return
    match operation.function:
        case "sum" | "avg":
            if isinstance(value, int | float) and not isinstance(value, bool):
                group.sums[name] = group.sums.get(name, 0) + value
                group.counts[name] = group.counts.get(name, 0) + 1
        case "min" | "max":
            best = group.kept.get(name)
            lower = best is None or order(value) < order(best)
            if best is None or lower == (operation.function == "min"):
                group.kept[name] = value
        case "first":
            group.kept.setdefault(name, value)
        case "last":
            group.kept[name] = value
        case "push":
            group.values.setdefault(name, []).append(value)
        case _:
            mark = orjson.dumps(value, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
            group.seen.setdefault(name, {}).setdefault(mark, value)


def _figure(group: _Group, operation: Operation) -> Any:
    name = operation.alias
    match operation.function:
        case "count":
            return group.counts.get(name, 0)
        case "count_distinct":
            return len(group.seen.get(name, {}))
        case "sum":
            return group.sums.get(name, 0)
        case "avg":
            return group.sums[name] / group.counts[name] if group.counts.get(name) else None
        case "push":
            return group.values.get(name, [])
        case "add_to_set":
            return list(group.seen.get(name, {}).values())
        case _:
            return group.kept.get(name)


def _holds(result: Mapping[str, Any], condition: Having) -> bool:
    value = order(result["metrics"].get(condition.field, result["group"].get(condition.field)))
    wanted = order(condition.value)
    match condition.operator:
        case "eq":
            return value == wanted
        case "ne":
            return value != wanted
        case "gt":
            return value > wanted
        case "gte":
            return value >= wanted
        case "lt":
            return value < wanted
        case _:
            return value <= wanted
