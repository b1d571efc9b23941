"""Objects against the schema of their bucket. Pure: every problem at once, nothing is stored here."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from mixpeek_operator.core.errors import Place, Problem, SpecError

FILE_TYPES = frozenset({"text", "image", "audio", "video", "pdf", "excel", "document", "binary", "file", "gif"})
"""Types whose value may be a file; the others are plain JSON values."""

SYSTEM_FIELDS = frozenset({"object_id", "bucket_id", "namespace_id", "status", "created_at", "updated_at", "error"})
"""Fields of an answer that a client may send back; they are ignored, never stored as user fields."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_integer(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and value.is_integer())


def _is_datetime(value: Any) -> bool:
    if _is_number(value):
        return True
    if not isinstance(value, str):
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _is_date(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        date.fromisoformat(value)
    except ValueError:
        return _is_datetime(value)
    return True


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


_CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "string": (_is_string, "a string"),
    "text": (_is_string, "text (a string)"),
    "number": (_is_number, "a finite number"),
    "float": (_is_number, "a finite number"),
    "integer": (_is_integer, "a whole number"),
    "boolean": (lambda value: isinstance(value, bool), "true or false"),
    "object": (lambda value: isinstance(value, Mapping), "an object"),
    "array": (lambda value: isinstance(value, list), "a list"),
    "date": (_is_date, "a date such as 2026-01-31"),
    "datetime": (_is_datetime, "a date and time such as 2026-01-31T10:00:00Z"),
    "json": (lambda value: True, "any JSON value"),
}


@dataclass(slots=True)
class Checked:
    """What a body says: its fields with defaults filled in, and every problem found."""

    fields: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def raise_for_problems(self) -> None:
        """Raise one SpecError that lists every problem."""
        if self.problems:
            raise SpecError.of(self.problems)


def validate(
    properties: Mapping[str, Mapping[str, Any]],
    fields: Mapping[str, Any],
    *,
    metadata: Mapping[str, Any] | None = None,
    blob_properties: Mapping[str, str | None] | None = None,
    partial: bool = False,
) -> Checked:
    """Return the fields of an object with defaults, and every problem.

    `metadata` may hold schema properties, which are checked, and anything else, which is kept: that is what it
    is for. `blob_properties` maps each property given as a blob to the type the client named. `partial` leaves
    out missing ones: neither required nor defaults apply. A bucket without properties accepts anything.
    """
    checked = Checked(dict(fields), dict(metadata or {}))
    blobs = dict(blob_properties or {})
    if not properties:
        return checked
    for name, value in fields.items():
        if name not in properties:
            checked.problems.append(_unknown(name, properties, (name,)))
        else:
            _check(properties[name], value, (name,), checked.problems)
    for name, value in checked.metadata.items():
        if name in properties:
            _check(properties[name], value, ("metadata", name), checked.problems)
    for name, kind in blobs.items():
        if name not in properties:
            checked.problems.append(_unknown(name, properties, ("blobs", name)))
        elif kind is not None and not _compatible(str(properties[name].get("type", "string")), kind):
            declared = properties[name].get("type")
            checked.problems.append(
                _problem(
                    "wrong_type",
                    f"blob {name!r} says type {kind!r}, but the bucket declares {declared!r}",
                    ("blobs", name),
                )
            )
    if not partial:
        _fill(properties, checked, set(blobs))
    return checked


def _fill(properties: Mapping[str, Mapping[str, Any]], checked: Checked, blobs: set[str]) -> None:
    for name, declared in properties.items():
        if checked.fields.get(name) is not None or checked.metadata.get(name) is not None or name in blobs:
            continue
        if name == "metadata" and checked.metadata:
            continue
        default = declared.get("default")
        if default is not None:
            checked.fields[name] = default
        elif declared.get("required"):
            message = f"{name!r} is required ({declared.get('type', 'string')}) and missing"
            checked.problems.append(_problem("missing", message, (name,)))


def _check(declared: Mapping[str, Any], value: Any, path: tuple[str | int, ...], problems: list[Problem]) -> None:
    if value is None:
        return
    kind = str(declared.get("type", "string"))
    known = _CHECKS.get(kind)
    if known is None and kind in FILE_TYPES:
        known = (_is_string, f"a URL, a data URI or base64 of the {kind} file")
    where = ".".join(map(str, path))
    if known is not None and not known[0](value):
        problems.append(_problem("wrong_type", f"{where!r} must be {known[1]}, got {_shown(value)}", path))
        return
    allowed = declared.get("enum")
    if allowed and value not in allowed:
        listed = ", ".join(map(str, allowed))
        problems.append(_problem("not_allowed", f"{where!r} must be one of {listed}; got {_shown(value)}", path))
    if isinstance(value, list) and isinstance(declared.get("items"), Mapping):
        for index, item in enumerate(value):
            _check(declared["items"], item, (*path, index), problems)
    nested = declared.get("properties")
    if isinstance(value, Mapping) and isinstance(nested, Mapping):
        for name, inner in nested.items():
            if isinstance(inner, Mapping):
                if value.get(name) is not None:
                    _check(inner, value[name], (*path, name), problems)
                elif inner.get("required"):
                    missing = (*path, name)
                    message = f"{'.'.join(map(str, missing))!r} is required and missing"
                    problems.append(_problem("missing", message, missing))


def _compatible(declared: str, given: str) -> bool:
    """A blob may name its type more loosely than the bucket does; a GIF is an image or a video."""
    declared, given = declared.lower(), given.lower()
    loose = {"string", "text", "json", "document", "binary", "file", "object", "array"}
    if declared == given or (declared in loose and given in loose):
        return True
    return {declared, given} <= {"image", "video", "gif"} and "gif" in (declared, given)


def _unknown(name: str, properties: Mapping[str, Any], path: tuple[str | int, ...]) -> Problem:
    near = difflib.get_close_matches(name, list(properties), n=1)
    if near:
        hint = f"did you mean {near[0]!r}?"
    else:
        hint = f"the bucket has {', '.join(sorted(properties))}"
    return _problem("unknown_property", f"unknown property {name!r}: {hint}", path)


def _problem(code: str, message: str, path: tuple[str | int, ...]) -> Problem:
    return Problem(code, message, Place(path=".".join(map(str, path))), location=path)


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
