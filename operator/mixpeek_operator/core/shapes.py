"""The outer shape of what was sent, checked before anything is done with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from mixpeek_operator.core.errors import Place, Problem, SpecError


def _all(kind: type | tuple[type, ...]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(isinstance(item, kind) for item in value)


_CHECKS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "text": lambda value: isinstance(value, str),
    "an object": lambda value: isinstance(value, Mapping),
    "a list": lambda value: isinstance(value, list),
    "a list of texts": _all(str),
    "a list of objects": _all(Mapping),
    "a whole number of at least 1": lambda value: type(value) is int and value >= 1,
    "true or false": lambda value: isinstance(value, bool),
}
TEXT: Final = "text"
OBJECT: Final = "an object"
LIST: Final = "a list"
TEXTS: Final = "a list of texts"
OBJECTS: Final = "a list of objects"
COUNT: Final = "a whole number of at least 1"
FLAG: Final = "true or false"


def problems(body: Mapping[str, Any], fields: Mapping[str, str]) -> list[Problem]:
    """Return a problem for every field that is there and has another shape; null is the same as not there."""
    found = []
    for name, shape in fields.items():
        value = body.get(name)
        if value is not None and not _CHECKS[shape](value):
            message = f"{name} must be {shape}"
            found.append(Problem("wrong_type", message, Place(path=name), location=(name,)))
    return found


def expect(body: Mapping[str, Any], fields: Mapping[str, str]) -> None:
    """Raise one SpecError that lists every field of another shape."""
    found = problems(body, fields)
    if found:
        raise SpecError.of(found)
