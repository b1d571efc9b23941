"""What templates may call: filters, tests, functions and the few methods of texts and objects.

Every function takes the budget first and pays for what it touches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from mixpeek_operator.retrieval.templating.comparisons import TESTS, Function, contains
from mixpeek_operator.retrieval.templating.errors import TemplateError
from mixpeek_operator.retrieval.templating.values import (
    MAX_OUTPUT,
    MISSING,
    Budget,
    Literal,
    bounded,
    items_of,
    kind,
    lookup,
    number,
    to_json,
    to_text,
)


def _ordered(budget: Budget, items: list[Any], attribute: Any) -> list[Any]:
    budget.spend(len(items) * 4)

    def key(item: Any) -> tuple[int, Any]:
        value = path(item, attribute)
        if isinstance(value, int | float):
            return (0, value)
        return (1, to_text(value)) if value is not None and value is not MISSING else (2, "")

    return sorted(items, key=key)


def path(value: Any, attribute: Any) -> Any:
    """Return the value at a dotted path, the value itself without one."""
    if attribute is None:
        return value
    for part in str(attribute).split("."):
        value = lookup(value, part)
    return value


def _default(budget: Budget, value: Any, fallback: Any = "", boolean: Any = False) -> Any:
    return fallback if value is MISSING or value is None or (boolean and not value) else value


def _tojson(budget: Budget, value: Any, indent: Any = None) -> Any:
    return Literal(budget.text(to_json(value)))


def _length(budget: Budget, value: Any) -> int:
    if value is None or value is MISSING:
        return 0
    if isinstance(value, str | list | tuple | Mapping):
        return len(value)
    raise TemplateError(f"length needs text, a list or an object, got {kind(value)}")


def _join(budget: Budget, value: Any, separator: Any = "", attribute: Any = None) -> str:
    parts = [to_text(path(item, attribute)) for item in items_of(budget, value)]
    glue = to_text(separator)
    budget.spend((sum(map(len, parts)) + len(glue) * len(parts)) >> 4)
    if sum(map(len, parts)) + len(glue) * len(parts) > MAX_OUTPUT:
        raise TemplateError(f"join would make more than {MAX_OUTPUT} characters")
    return glue.join(parts)


def _replace(budget: Budget, value: Any, old: Any, new: Any, count: Any = -1) -> str:
    text, old_text, new_text = to_text(value), to_text(old), to_text(new)
    budget.spend(1 + (len(text) >> 4))
    hits = text.count(old_text)
    if len(text) + hits * len(new_text) > MAX_OUTPUT:
        raise TemplateError(f"replace would make more than {MAX_OUTPUT} characters")
    return budget.text(text.replace(old_text, new_text, int(number(count, "replace"))))


def _texts(change: Callable[[str], str]) -> Function:
    def apply(budget: Budget, value: Any) -> str:
        text = to_text(value)
        budget.spend(len(text) >> 4)
        return budget.text(change(text))

    return apply


def _trim(budget: Budget, value: Any, characters: Any = None) -> str:
    return to_text(value).strip(None if characters is None else to_text(characters))


def _truncate(budget: Budget, value: Any, length: Any = 255, killwords: Any = False, end: Any = "...") -> str:
    text, limit, tail = to_text(value), int(number(length, "truncate")), to_text(end)
    if len(text) <= limit:
        return text
    head = text[: max(0, limit - len(tail))]
    return (head if killwords else (head.rsplit(" ", 1)[0] if " " in head else head)) + tail


def _round(budget: Budget, value: Any, precision: Any = 0, method: Any = "common") -> Any:
    if value is None or value is MISSING:
        return MISSING
    digits = max(-30, min(30, int(number(precision, "round"))))
    if method not in ("common", "ceil", "floor"):
        raise TemplateError("round takes the methods common, ceil and floor")
    amount = float(number(value, "round"))
    if method == "common":
        return round(amount, digits)
    scaled = amount * 10**digits
    whole = scaled // 1 if method == "floor" else -((-scaled) // 1)
    return whole / 10**digits


def _int(budget: Budget, value: Any, default: Any = 0, base: Any = 10) -> Any:
    try:
        if isinstance(value, str):
            text = value.strip()
            if len(text) > 40:
                return default
            return bounded(int(text) if text.lstrip("+-").isdigit() else int(float(text)))
        return bounded(int(value)) if isinstance(value, int | float) else default
    except (ValueError, OverflowError):
        return default


def _float(budget: Budget, value: Any, default: Any = 0.0) -> Any:
    try:
        return float(value) if isinstance(value, int | float | str) and len(str(value)) < 60 else default
    except (ValueError, OverflowError):
        return default


def _sum(budget: Budget, value: Any, attribute: Any = None, start: Any = 0) -> Any:
    total: Any = number(start, "sum")
    for item in items_of(budget, value):
        entry = path(item, attribute)
        if entry is not None and entry is not MISSING:
            total = bounded(total + number(entry, "sum"))
    return total


def _extreme(last: bool) -> Function:
    def apply(budget: Budget, value: Any, case_sensitive: Any = False, attribute: Any = None) -> Any:
        entries = [item for item in items_of(budget, value) if path(item, attribute) is not None]
        ordered = _ordered(budget, entries, attribute)
        return ordered[-1 if last else 0] if ordered else MISSING

    return apply


def _sort(
    budget: Budget, value: Any, reverse: Any = False, case_sensitive: Any = False, attribute: Any = None
) -> list[Any]:
    ordered = _ordered(budget, items_of(budget, value), attribute)
    return ordered[::-1] if reverse else ordered


def _unique(budget: Budget, value: Any, case_sensitive: Any = False, attribute: Any = None) -> list[Any]:
    seen: set[str] = set()
    kept = []
    for item in items_of(budget, value):
        mark = to_json(path(item, attribute))
        budget.spend(1 + (len(mark) >> 4))
        if mark not in seen:
            seen.add(mark)
            kept.append(item)
    return kept


def _map(budget: Budget, value: Any, name: Any = None, *args: Any, attribute: Any = None, default: Any = None) -> Any:
    items = items_of(budget, value)
    if attribute is not None:
        found = [path(item, attribute) for item in items]
        return [default if item is MISSING else item for item in found]
    if name not in FILTERS or name == "map":
        raise TemplateError(f"map knows no filter {name!r}")
    return [FILTERS[name](budget, item, *args) for item in items]


def _select(keep: bool, attribute: bool) -> Function:
    def apply(budget: Budget, value: Any, *args: Any) -> list[Any]:
        rest = list(args)
        where = rest.pop(0) if attribute and rest else None
        name = rest.pop(0) if rest else "truthy"
        test = TESTS.get(name)
        if test is None:
            raise TemplateError(f"unknown test {name!r}")
        return [item for item in items_of(budget, value) if bool(test(budget, path(item, where), *rest)) is keep]

    return apply


def _batch(budget: Budget, value: Any, size: Any) -> list[Any]:
    items, step = items_of(budget, value), int(number(size, "batch"))
    if step < 1:
        raise TemplateError("batch needs a size of at least 1")
    return [items[index : index + step] for index in range(0, len(items), step)]


def _pairs(budget: Budget, value: Any) -> list[Any]:
    if value is None or value is MISSING:
        return []
    if not isinstance(value, Mapping):
        raise TemplateError(f"items needs an object, got {kind(value)}")
    budget.spend(len(value))
    return [list(pair) for pair in value.items()]


def _first(budget: Budget, value: Any) -> Any:
    return next(iter(value), MISSING) if isinstance(value, list | tuple | str | Mapping) else MISSING


def _last(budget: Budget, value: Any) -> Any:
    return value[-1] if isinstance(value, list | tuple | str) and value else MISSING


def _split(budget: Budget, value: Any, separator: Any = None, limit: Any = -1) -> list[Any]:
    text = to_text(value)
    budget.spend(1 + len(text))
    if separator == "":
        raise TemplateError("split needs a separator that is not empty")
    parts = text.split(None if separator is None else to_text(separator), int(number(limit, "split")))
    return list(parts)


def _date(budget: Budget, value: Any, layout: Any = "%Y-%m-%d") -> str:
    """`DOC.created_at | date('%d.%m.%Y')`, of an ISO 8601 text."""
    text, pattern = to_text(value), to_text(layout)
    if len(pattern) > 64 or any(char.isdigit() for char in pattern):
        raise TemplateError("date takes a strftime layout of at most 64 characters")
    try:
        return datetime.fromisoformat(text).strftime(pattern)
    except ValueError:
        raise TemplateError(f"{text[:40]!r} is not an ISO 8601 date") from None


def _range(budget: Budget, *args: Any) -> list[int]:
    numbers = [int(number(item, "range")) for item in args]
    if not 1 <= len(numbers) <= 3 or (len(numbers) == 3 and numbers[2] == 0):
        raise TemplateError("range takes (stop), (start, stop) or (start, stop, step)")
    length = len(range(*numbers)) if all(abs(item) < 2**62 for item in numbers) else 2**62
    if length > 10_000:
        raise TemplateError("range may have 10000 elements")
    budget.spend(length)
    return list(range(*numbers))


FILTERS: Final[Mapping[str, Function]] = {
    "abs": lambda budget, value: abs(number(value, "abs")),
    "batch": _batch,
    "bool": lambda budget, value: bool(value) and to_text(value).lower() not in ("false", "0", "no", ""),
    "capitalize": _texts(str.capitalize),
    "count": _length,
    "d": _default,
    "date": _date,
    "default": _default,
    "dictsort": lambda budget, value: _ordered(budget, _pairs(budget, value), "0"),
    "first": _first,
    "float": _float,
    "int": _int,
    "items": _pairs,
    "join": _join,
    "keys": lambda budget, value: [pair[0] for pair in _pairs(budget, value)],
    "last": _last,
    "length": _length,
    "list": items_of,
    "lower": _texts(str.lower),
    "map": _map,
    "max": _extreme(True),
    "min": _extreme(False),
    "reject": _select(False, False),
    "rejectattr": _select(False, True),
    "replace": _replace,
    "reverse": lambda budget, value: value[::-1] if isinstance(value, str) else items_of(budget, value)[::-1],
    "round": _round,
    "select": _select(True, False),
    "selectattr": _select(True, True),
    "sort": _sort,
    "split": _split,
    "string": lambda budget, value: to_text(value),
    "sum": _sum,
    "title": _texts(str.title),
    "tojson": _tojson,
    "to_json": _tojson,
    "trim": _trim,
    "truncate": _truncate,
    "unique": _unique,
    "upper": _texts(str.upper),
    "values": lambda budget, value: [pair[1] for pair in _pairs(budget, value)],
}

FUNCTIONS: Final[Mapping[str, Function]] = {
    "range": _range,
    "len": _length,
    "min": lambda budget, *values: FILTERS["min"](budget, list(values[0] if len(values) == 1 else values)),
    "max": lambda budget, *values: FILTERS["max"](budget, list(values[0] if len(values) == 1 else values)),
    "abs": FILTERS["abs"],
    "round": _round,
    "int": _int,
    "float": _float,
    "str": FILTERS["string"],
    "dict": lambda budget, **values: values,
}

METHODS: Final[Mapping[str, Function]] = {
    "get": lambda budget, value, key, fallback=None: fallback if lookup(value, key) is MISSING else lookup(value, key),
    "items": _pairs,
    "keys": FILTERS["keys"],
    "values": FILTERS["values"],
    "upper": FILTERS["upper"],
    "lower": FILTERS["lower"],
    "title": FILTERS["title"],
    "capitalize": FILTERS["capitalize"],
    "strip": _trim,
    "split": _split,
    "replace": _replace,
    "startswith": lambda budget, value, start: to_text(value).startswith(to_text(start)),
    "endswith": lambda budget, value, end: to_text(value).endswith(to_text(end)),
    "join": lambda budget, value, parts: _join(budget, parts, value),
    "includes": contains,
}
