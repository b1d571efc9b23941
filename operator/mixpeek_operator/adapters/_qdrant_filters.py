"""Filters as conditions of a Qdrant server, for what means exactly the same there.

Differences that are bridged here: a server compares integers and floats as different types (so numbers become
ranges), and steps into an array of objects only where a path says `[]`. Which points hold such arrays is written into
the points themselves (`marks`), so that no writer has to tell the readers and an ordinary path stays one indexed
condition: the alternatives through arrays are looked at only for points that are marked.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qdrant_client import models

from mixpeek_operator.adapters._vector_rules import object_arrays, path_keys
from mixpeek_operator.core import filter_values
from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.core.filters import And, Compare, Filter, Not, Operator, Or

MARK = "~arrays:"
"""Payload keys of ours: `~arrays:<key>` lists the dotted paths below <key> where arrays hold objects."""

_BOUNDS = {Operator.GT: "gt", Operator.GTE: "gte", Operator.LT: "lt", Operator.LTE: "lte"}
_LONGEST = 4
"""Keys of a path that is read through arrays on the server; each doubles the ways to read it."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A condition; not `exact` when it lets more points through than the filter does."""

    condition: models.Filter
    exact: bool


@dataclass(frozen=True, slots=True)
class _Path:
    """One way to read a dotted path; `within` are the arrays that it steps into."""

    key: str
    within: tuple[str, ...]


def marked(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload as it is stored. SpecError for a key that is ours."""
    stored = dict(payload)
    for key in payload:
        if key.startswith(MARK):
            raise SpecError(f"a payload cannot have the key {key!r}: keys that begin with {MARK!r} are reserved")
    for path in object_arrays(stored):
        for key in payload:
            if path == key or path.startswith(f"{key}."):
                stored.setdefault(f"{MARK}{key}", []).append(path)
    return stored


def unmarked(payload: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a stored payload as it was given."""
    return {key: value for key, value in (payload or {}).items() if not key.startswith(MARK)}


def mark_path(field_name: str) -> str | None:
    """Return the path of the marks that decide how `field_name` is read, None when it cannot lead through arrays."""
    keys = filter_values.segments(field_name)
    return f'"{MARK}{keys[0]}"' if len(keys) > 1 else None


def compile_filter(filter: Filter | None) -> Compiled:
    """Return the condition for the points that a filter holds for."""
    match filter:
        case None:
            return Compiled(models.Filter(), True)
        case And(parts):
            made = [compile_filter(part) for part in parts]
            return Compiled(all_of(*(part.condition for part in made)), all(part.exact for part in made))
        case Or(parts):
            made = [compile_filter(part) for part in parts]
            return Compiled(_any(*(part.condition for part in made)), all(part.exact for part in made))
        case Not(parts):
            made = [compile_filter(part) for part in parts]
            # The complement of too much would be too little.
            safe = [part.condition for part in made if part.exact]
            return Compiled(_none(*safe), len(safe) == len(made))
        case Compare():
            condition = _compare(filter)
            return Compiled(models.Filter(), False) if condition is None else Compiled(condition, True)


def all_of(*parts: models.Filter) -> models.Filter:
    """The conjunction."""
    return parts[0] if len(parts) == 1 else models.Filter(must=list(parts))


def ids_only(ids: Sequence[str]) -> models.Filter:
    """The condition for these points and no others."""
    return models.Filter(must=[models.HasIdCondition(has_id=list(ids))])


def _compare(condition: Compare) -> models.Filter | None:
    operator, value = condition.operator, condition.value
    paths = _paths(condition.field)
    if paths is None:
        return None
    if operator in (Operator.NE, Operator.NIN):
        positive = Operator.EQ if operator is Operator.NE else Operator.IN
        inner = _compare(Compare(condition.field, positive, value, condition.case_insensitive))
        return None if inner is None else _none(inner)
    if operator is Operator.EQ:
        return _over(paths, _equal(value, condition.case_insensitive))
    if operator is Operator.IN and isinstance(value, list | tuple):
        return _one_of(paths, list(value), condition.case_insensitive)
    if operator in _BOUNDS:
        return _over(paths, _ordered(_BOUNDS[operator], value))
    if operator is Operator.EXISTS and isinstance(value, bool | None):
        there = _any(*(_gated(path, _exists(path)) for path in paths))
        return _none(there) if value is False else there
    if operator is Operator.IS_NULL and isinstance(value, bool | None):
        null = _any(*(_gated(path, _null(path)) for path in paths))
        return _none(null) if value is False else null
    return None


def _equal(value: Any, fold: bool) -> dict[str, Any] | None:
    if isinstance(value, bool):
        return {"match": models.MatchValue(value=value)}
    if filter_values.is_number(value):
        number = _number(value)
        return None if number is None else {"range": models.Range(gte=number, lte=number)}
    if isinstance(value, str) and not fold:
        return {"match": models.MatchValue(value=value)}
    return {} if value is None else None


def _one_of(paths: list[_Path], values: list[Any], fold: bool) -> models.Filter | None:
    texts = [value for value in values if isinstance(value, str)]
    if texts and fold:
        return None
    made = [_over(paths, {"match": models.MatchAny(any=texts)})] if texts else []
    for value in values:
        if not isinstance(value, str):
            made.append(_over(paths, _equal(value, fold)))
    found = [part for part in made if part is not None]
    return _any(*found) if len(found) == len(made) else None


def _ordered(bound: str, value: Any) -> dict[str, Any] | None:
    if filter_values.is_number(value):
        number = _number(value)
        return None if number is None else {"range": models.Range.model_validate({bound: number})}
    moment = filter_values.instant(value) if isinstance(value, str) else None
    if moment is None:
        return None
    return {"range": models.DatetimeRange.model_validate({bound: moment})}


def _number(value: float) -> float | None:
    """Return a finite double; Python compares with the others as well, the server does not."""
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _paths(field: str) -> list[_Path] | None:
    """Return the ways that together reach what a dotted path does, None when they cannot be written."""
    keys, written = filter_values.segments(field), path_keys(field)
    if written is None or len(written) > _LONGEST:
        return None
    found: list[_Path] = []
    for steps in itertools.product((False, True), repeat=len(keys) - 1):
        through = [*steps, False]
        key = ".".join(f"{name}[]" if many else name for name, many in zip(written, through, strict=True))
        arrays = (".".join(keys[: index + 1]) for index, many in enumerate(through) if many)
        found.append(_Path(key, tuple(arrays)))
    return found


def _over(paths: list[_Path], condition: dict[str, Any] | None) -> models.Filter | None:
    """`condition` on any of the paths; an empty one asks for null."""
    if condition is None:
        return None
    if not condition:
        return _any(*(_gated(path, _null(path)) for path in paths))
    return _any(
        *(_gated(path, models.Filter(must=[models.FieldCondition(key=path.key, **condition)])) for path in paths)
    )


def _null(path: _Path) -> models.Filter:
    """Null stands there, or in an array there: a server looks into arrays for it only where the field is indexed."""
    return _any(_at(path.key, "is_null"), _at(f"{path.key}[]", "is_null"))


def _exists(path: _Path) -> models.Filter:
    """Something but null and [] stands there: for a server an array of nulls alone is not empty."""
    inside = f"{path.key}[]"
    only_nulls = all_of(_at(inside, "is_null"), _at(inside, "is_empty"))
    return _none(_at(path.key, "is_empty"), only_nulls)


def _at(key: str, kind: str) -> models.Filter:
    field = models.PayloadField(key=key)
    condition = models.IsNullCondition(is_null=field) if kind == "is_null" else models.IsEmptyCondition(is_empty=field)
    return models.Filter(must=[condition])


def _gated(path: _Path, condition: models.Filter) -> models.Filter:
    """`condition` for points that have the arrays which `path` steps into."""
    if not path.within:
        return condition
    marks = f'"{MARK}{path.within[0].partition(".")[0]}"'
    gates = [models.FieldCondition(key=marks, match=models.MatchValue(value=array)) for array in path.within]
    return models.Filter(must=[*gates, condition])


def _any(*parts: models.Filter) -> models.Filter:
    if len(parts) == 1:
        return parts[0]
    # An empty list of alternatives would mean "anything".
    return models.Filter(should=list(parts)) if parts else ids_only([])


def _none(*parts: models.Filter) -> models.Filter:
    return models.Filter(must_not=list(parts))
