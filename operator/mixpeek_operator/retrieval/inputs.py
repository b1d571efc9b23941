"""Inputs of an execution against the retriever's `input_schema`: every problem at once, harmless spellings coerced."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import date, datetime
from difflib import get_close_matches
from typing import Any, Final

from mixpeek_operator.core.errors import Place, Problem, SpecError


class _Wrong(Exception):
    """The value is not of the type; the message completes "expected …"."""


def fields_of(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `name → field` of a flat schema or of the form `{properties: {…}}` (with `required: [names]`)."""
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or isinstance(properties.get("type"), str):
        return schema
    required = schema.get("required")
    if isinstance(required, list):
        return {
            name: {**field, "required": bool(field.get("required")) or name in required}
            for name, field in properties.items()
        }
    return properties


class InputSchema:
    """A compiled input schema."""

    __slots__ = ("_fields",)

    def __init__(self, schema: Mapping[str, Any] | None) -> None:
        self._fields = {
            name: field if isinstance(field, Mapping) else {"type": str(field)}
            for name, field in fields_of(schema or {}).items()
        }

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._fields)

    def check(self, inputs: Any) -> dict[str, Any]:
        """Return the inputs with defaults and coerced values; inputs the schema does not name pass as they are.

        Raises SpecError with every missing input and every value of a wrong type.
        """
        if inputs is None:
            inputs = {}
        if not isinstance(inputs, Mapping):
            raise SpecError.of([_problem("inputs", f"expected an object, got {_kind(inputs)}")])
        checked = dict(inputs)
        problems: list[Problem] = []
        for name, field in self._fields.items():
            value = checked.get(name)
            if value is None:
                default = field.get("default")
                if default is not None:
                    checked[name] = default
                elif field.get("required"):
                    problems.append(_problem(name, f"the input {name!r} is required{self._meant(name, inputs)}"))
                else:
                    checked.pop(name, None)
                continue
            try:
                checked[name] = _coerce(value, field)
            except _Wrong as error:
                problems.append(_problem(name, f"the input {name!r} must be {error}; got {_kind(value)}"))
        if problems:
            raise SpecError.of(problems)
        return checked

    def _meant(self, name: str, inputs: Mapping[str, Any]) -> str:
        unknown = [str(key) for key in inputs if key not in self._fields]
        close = get_close_matches(name, unknown, n=1)
        return f"; was {close[0]!r} meant?" if close else ""


def _coerce(value: Any, field: Mapping[str, Any]) -> Any:
    check = _TYPES.get(str(field.get("type") or "").lower())
    if check is not None:
        value = check(value)
    allowed = field.get("enum")
    if isinstance(allowed, list) and allowed and value not in allowed:
        raise _Wrong(f"one of {', '.join(repr(item) for item in allowed[:20])}")
    items = field.get("items")
    if isinstance(value, list) and isinstance(items, Mapping) and items.get("type"):
        return [_coerce(item, items) for item in value]
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Wrong("text")
    return value


def _number(value: Any) -> int | float:
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            raise _Wrong("a number") from None
        value = int(number) if math.isfinite(number) and number.is_integer() and "." not in value else number
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _Wrong("a number")
    return value


def _integer(value: Any) -> int:
    try:
        number = _number(value)
    except _Wrong:
        raise _Wrong("a whole number") from None
    if number != int(number):
        raise _Wrong("a whole number")
    return int(number)


def _boolean(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise _Wrong("true or false")
    return value


def _date(value: Any) -> str:
    if isinstance(value, str):
        try:
            date.fromisoformat(value[:10])
            if len(value) > 10:
                datetime.fromisoformat(value)
        except ValueError:
            raise _Wrong("an ISO 8601 date such as 2026-01-31") from None
        return value
    raise _Wrong("an ISO 8601 date such as 2026-01-31")


def _array(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _Wrong("a list")
    return value


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Wrong("an object")
    return value


def _reference(value: Any) -> dict[str, Any]:
    if isinstance(value, str) and value:
        return {"document_id": value}
    if isinstance(value, dict) and isinstance(value.get("document_id"), str):
        return value
    raise _Wrong("a document reference {collection_id, document_id}")


def _file(value: Any) -> str:
    if not isinstance(value, str):
        raise _Wrong("a URL, a data URI or base64 text")
    return value


_TYPES: Final[Mapping[str, Callable[[Any], Any]]] = {
    "text": _text,
    "string": _text,
    "number": _number,
    "float": _number,
    "integer": _integer,
    "int": _integer,
    "boolean": _boolean,
    "bool": _boolean,
    "date": _date,
    "datetime": _date,
    "array": _array,
    "list": _array,
    "object": _object,
    "document_reference": _reference,
    **dict.fromkeys(("image", "audio", "video", "pdf", "excel", "file", "url"), _file),
}


def _kind(value: Any) -> str:
    names = {str: "text", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__) if value is not None else "null"


def _problem(name: str, message: str) -> Problem:
    location = ("inputs",) if name == "inputs" else ("inputs", name)
    return Problem("input_invalid", message, Place(path=".".join(location)), location=("body", *location))
