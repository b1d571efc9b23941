"""Filters as SQL over a JSON column, for the conditions that mean exactly the same there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from mixpeek_operator.core.filters import And, Compare, Filter, Not, Operator, Or

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True, slots=True)
class Sql:
    """A WHERE expression; not `exact` when it lets more rows through than the filter does."""

    sql: str
    values: tuple[Any, ...]
    exact: bool


_ALL = Sql("1", (), False)


def json_path(field: str) -> str | None:
    """Return the JSON path of a dotted field, None when its name cannot be written safely."""
    return f"$.{field}" if _PLAIN.fullmatch(field) else None


def compile_filter(filter: Filter | None, columns: frozenset[str]) -> Sql:
    """Return SQL for `filter`; `columns` are the fields that have a column of their own (strings only)."""
    match filter:
        case None:
            return Sql("1", (), True)
        case And(parts):
            made = [compile_filter(part, columns) for part in parts]
            sql = " AND ".join(f"({part.sql})" for part in made) or "1"
            return Sql(sql, tuple(v for part in made for v in part.values), all(part.exact for part in made))
        case Or(parts):
            made = [compile_filter(part, columns) for part in parts]
            sql = " OR ".join(f"({part.sql})" for part in made) or "0"
            return Sql(sql, tuple(v for part in made for v in part.values), all(part.exact for part in made))
        case Not(parts):
            made = [compile_filter(part, columns) for part in parts]
            if not all(part.exact for part in made):
                return _ALL
            sql = " AND ".join(f"NOT coalesce({part.sql}, 0)" for part in made) or "1"
            return Sql(sql, tuple(v for part in made for v in part.values), True)
        case Compare():
            return _compare(filter, columns)


def _compare(condition: Compare, columns: frozenset[str]) -> Sql:
    wanted = condition.value
    if condition.field in columns and not condition.case_insensitive:
        if condition.operator is Operator.EQ and isinstance(wanted, str):
            return Sql(f"{condition.field}=?", (wanted,), True)
        if condition.operator is Operator.IN and wanted and all(isinstance(item, str) for item in wanted):
            marks = ",".join("?" * len(wanted))
            return Sql(f"{condition.field} IN ({marks})", tuple(wanted), True)
    path = json_path(condition.field)
    if path is None or "." in condition.field or condition.case_insensitive:
        return _ALL
    kind = f"json_type(body, '{path}')"
    value = f"json_extract(body, '{path}')"
    if condition.operator is Operator.EQ and isinstance(wanted, str):
        # An array holds the value when any element does; those rows are looked at again.
        return Sql(f"({kind}='text' AND {value}=?) OR {kind}='array'", (wanted,), False)
    if condition.operator in (Operator.GT, Operator.GTE, Operator.LT, Operator.LTE) and (
        isinstance(wanted, int | float) and not isinstance(wanted, bool)
    ):
        sign = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}[condition.operator.value]
        sql = f"({kind} IN ('integer','real') AND {value}{sign}?) OR {kind}='array'"
        return Sql(sql, (wanted,), False)
    return _ALL
