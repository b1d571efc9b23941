"""Values in templates: plain data, the missing value, the budget, and how a value becomes text.

Missing paths are `MISSING`: empty in text, null as a whole expression, false in a condition, equal to null,
and arithmetic with it is missing again. Booleans are written `true` and `false`, lists and objects as JSON.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from mixpeek_operator.retrieval.templating.errors import TemplateError

MAX_STEPS: Final = 200_000
"""Work of one rendering: loop turns, and elements or characters touched by filters."""
MAX_OUTPUT: Final = 1_000_000
"""Characters one rendering may write."""
MAX_SECONDS: Final = 1.0
MAX_NODES: Final = 50_000
"""Elements of one list or object that a template builds."""
MAX_DEPTH: Final = 64
MAX_NUMBER: Final = 10**30


_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
"""Types that need no conversion; a list of them is handed on as it is."""


class _Missing:
    """The value of a path that leads nowhere."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "missing"


MISSING: Final = _Missing()


class Literal(str):
    """Text that the template's author wrote, or that is JSON already: trusted as syntax in a JSON template."""

    __slots__ = ()


class Budget:
    """What one rendering may still spend."""

    __slots__ = ("_deadline", "_output", "_steps")

    def __init__(self) -> None:
        self._steps = MAX_STEPS
        self._output = MAX_OUTPUT
        self._deadline = 0.0

    def spend(self, steps: int) -> None:
        """Pay for work. Raises TemplateError when steps or time run out."""
        self._steps -= steps
        if self._steps < 0:
            raise TemplateError(f"a template may take {MAX_STEPS} steps; loop over less")
        now = time.monotonic()
        if not self._deadline:
            self._deadline = now + MAX_SECONDS
        elif now > self._deadline:
            raise TemplateError(f"a template may take {MAX_SECONDS:g} s")

    def write(self, characters: int) -> None:
        """Pay for output. Raises TemplateError when it is too long."""
        self._output -= characters
        if self._output < 0:
            raise TemplateError(f"a template may write {MAX_OUTPUT} characters")

    def build(self, value: Any) -> Any:
        """Return a container just built, paid for with everything in it (shared parts count each time)."""
        nodes = 0
        pending = [(value, 0)]
        while pending:
            item, depth = pending.pop()
            if depth > MAX_DEPTH:
                raise TemplateError(f"data may be nested {MAX_DEPTH} deep")
            nodes += 1
            if isinstance(item, str):
                nodes += len(item) >> 6
            elif isinstance(item, Mapping):
                pending.extend((child, depth + 1) for child in item.values())
            elif isinstance(item, list | tuple):
                pending.extend((child, depth + 1) for child in item)
            if nodes + len(pending) > MAX_NODES:
                raise TemplateError(f"a template may build lists and objects of {MAX_NODES} elements")
        self.spend(nodes)
        return value

    def text(self, value: str) -> str:
        """Return a text just made, paid for by its length."""
        if len(value) > 256:
            self.write(0 if len(value) <= MAX_OUTPUT else len(value))
            self.spend(len(value) >> 4)
        return value


def lookup(value: Any, key: Any) -> Any:
    """Return `value[key]` of an object, list or text, MISSING when there is none. Never a Python attribute."""
    if type(value) is dict or isinstance(value, Mapping):
        if isinstance(key, int | float) and not isinstance(key, bool):
            key = str(key)
        return value.get(key, MISSING) if isinstance(key, str) else MISSING
    if isinstance(value, list | tuple | str):
        if isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 10:
            key = int(key)
        if isinstance(key, int) and not isinstance(key, bool) and -len(value) <= key < len(value):
            return value[key]
    return MISSING


def to_text(value: Any) -> str:
    """Return the text of a value inside other text."""
    if isinstance(value, str):
        return value
    if value is None or value is MISSING:
        return ""
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, int | float):
        return repr(value)
    return to_json(value)


def to_json(value: Any) -> str:
    """Return the value as JSON. Raises TemplateError for what JSON cannot hold."""
    if isinstance(value, float) and not math.isfinite(value):
        raise TemplateError("a number that is not finite cannot be written as JSON")
    if isinstance(value, int) and abs(value) >= 2**63:
        return repr(value)
    try:
        return orjson.dumps(plain(value)).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise TemplateError(f"a value cannot be written as JSON: {error}") from None


def plain(value: Any) -> Any:
    """Return the value as a caller sees it: null for what is missing, lists for tuples, plain text."""
    if value is MISSING:
        return None
    if isinstance(value, Literal):
        return str(value)
    if isinstance(value, list | tuple):
        if type(value) is list and _SCALARS.issuperset(map(type, value)):
            return value
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        if type(value) is dict and _SCALARS.issuperset(map(type, value.values())):
            return value
        return {str(key): plain(item) for key, item in value.items()}
    return value


def number(value: Any, what: str) -> int | float:
    """Return the value when it is a number. Raises TemplateError naming the operator."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TemplateError(f"{what} needs numbers, got {kind(value)}")
    return value


def bounded(value: Any) -> Any:
    """Return a computed number. Raises TemplateError when it is out of bounds."""
    if isinstance(value, complex) or not -MAX_NUMBER < value < MAX_NUMBER:
        raise TemplateError("a number in a template is out of bounds")
    return value


def kind(value: Any) -> str:
    """Return the JSON name of a value's type, for messages."""
    if value is None or value is MISSING:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, Sequence) else "an object"


def items_of(budget: Budget, value: Any) -> list[Any]:
    """Return what a loop over the value visits: elements, keys of an object, nothing for null."""
    if value is None or value is MISSING:
        return []
    if isinstance(value, Mapping | list | tuple | str):
        budget.spend(len(value))
        return list(value)
    raise TemplateError(f"a loop or list filter needs a list, got {kind(value)}")
