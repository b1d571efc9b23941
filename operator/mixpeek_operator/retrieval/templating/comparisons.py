"""What templates may compare and test: `==`, `<`, `in`, and what stands behind `is`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from mixpeek_operator.retrieval.templating.values import MISSING, Budget, items_of, number, plain

Function = Callable[..., Any]


def equal(budget: Budget, left: Any, right: Any) -> bool:
    """JSON equality; what is missing equals null; a boolean is not a number."""
    if left is MISSING:
        left = None
    if right is MISSING:
        right = None
    if isinstance(left, bool) is not isinstance(right, bool):
        return False
    if isinstance(left, str | list | tuple | Mapping):
        budget.spend(1 + (len(left) >> 4))
    return bool(plain(left) == plain(right))


def order(budget: Budget, left: Any, right: Any) -> int | None:
    """-1, 0 or 1; None when the two cannot be ordered, which makes every comparison false."""
    if isinstance(left, bool) or isinstance(right, bool):
        return None
    if isinstance(left, int | float) and isinstance(right, int | float):
        return (left > right) - (left < right)
    if isinstance(left, str) and isinstance(right, str):
        return (left > right) - (left < right)
    return None


def contains(budget: Budget, container: Any, member: Any) -> bool:
    """Whether a list holds an element, an object a key, a text a part."""
    if isinstance(container, str):
        budget.spend(1 + (len(container) >> 4))
        return isinstance(member, str) and member in container
    if isinstance(container, Mapping):
        return isinstance(member, str) and member in container
    return any(equal(budget, item, member) for item in items_of(budget, container))


def _ordering(accepted: tuple[int, ...]) -> Callable[[Budget, Any, Any], bool]:
    return lambda budget, left, right: order(budget, left, right) in accepted


COMPARISONS: Final[Mapping[str, Callable[[Budget, Any, Any], bool]]] = {
    "eq": equal,
    "ne": lambda budget, left, right: not equal(budget, left, right),
    "lt": _ordering((-1,)),
    "lteq": _ordering((-1, 0)),
    "gt": _ordering((1,)),
    "gteq": _ordering((0, 1)),
    "in": lambda budget, left, right: contains(budget, right, left),
    "notin": lambda budget, left, right: not contains(budget, right, left),
}


def _test_number(budget: Budget, value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _compare(name: str) -> Function:
    def apply(budget: Budget, value: Any, other: Any) -> bool:
        return COMPARISONS[name](budget, value, other)

    return apply


TESTS: Final[Mapping[str, Function]] = {
    "truthy": lambda budget, value: bool(value),
    "defined": lambda budget, value: value is not MISSING,
    "undefined": lambda budget, value: value is MISSING,
    "none": lambda budget, value: value is None or value is MISSING,
    "string": lambda budget, value: isinstance(value, str),
    "number": _test_number,
    "integer": lambda budget, value: _test_number(budget, value) and isinstance(value, int),
    "float": lambda budget, value: isinstance(value, float),
    "boolean": lambda budget, value: isinstance(value, bool),
    "true": lambda budget, value: value is True,
    "false": lambda budget, value: value is False,
    "mapping": lambda budget, value: isinstance(value, Mapping),
    "sequence": lambda budget, value: isinstance(value, list | tuple | str),
    "iterable": lambda budget, value: isinstance(value, list | tuple | str | Mapping),
    "even": lambda budget, value: number(value, "even") % 2 == 0,
    "odd": lambda budget, value: number(value, "odd") % 2 == 1,
    "in": lambda budget, value, other: contains(budget, other, value),
    "==": _compare("eq"),
    "eq": _compare("eq"),
    "equalto": _compare("eq"),
    "!=": _compare("ne"),
    "ne": _compare("ne"),
    "<": _compare("lt"),
    "lt": _compare("lt"),
    "lessthan": _compare("lt"),
    "<=": _compare("lteq"),
    "le": _compare("lteq"),
    ">": _compare("gt"),
    "gt": _compare("gt"),
    "greaterthan": _compare("gt"),
    ">=": _compare("gteq"),
    "ge": _compare("gteq"),
}
