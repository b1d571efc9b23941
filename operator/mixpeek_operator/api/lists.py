"""Lists: what to list is read from the query and the body (the body wins), answers share one envelope."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson
from fastapi import Request

from mixpeek_operator.api import bodies
from mixpeek_operator.core import filters
from mixpeek_operator.core.errors import Place, Problem, SpecError
from mixpeek_operator.core.filters import Filter
from mixpeek_operator.core.listing import ListPage, ListQuery

DEFAULT_LIMIT = 20
MAX_LIMIT = 1000
MAX_OFFSET = 1_000_000_000
"""Far beyond what anybody pages through, and small enough for every store's integers."""
_TRUE = {"true", "1", "yes"}
_FALSE = {"false", "0", "no", ""}
_DIRECTIONS = {
    "asc": "asc",
    "ascending": "asc",
    "1": "asc",
    "desc": "desc",
    "descending": "desc",
    "-1": "desc",
}


def query(default_limit: int = DEFAULT_LIMIT, max_limit: int = MAX_LIMIT) -> Callable[[Request], Any]:
    """Return the dependency that reads a ListQuery: `Annotated[ListQuery, Depends(lists.query())]`."""

    async def read(request: Request) -> ListQuery:
        given: Any = None
        if request.method in ("POST", "PUT", "PATCH"):
            given = await bodies.json_object(request)
        return parse(request.query_params, given, default_limit=default_limit, max_limit=max_limit)

    read.lists = True  # type: ignore[attr-defined]
    return read


def parse(
    parameters: Mapping[str, str],
    body: Mapping[str, Any] | None = None,
    *,
    default_limit: int = DEFAULT_LIMIT,
    max_limit: int = MAX_LIMIT,
) -> ListQuery:
    """Return the query of a list request. SpecError with every mistake in it."""
    reader = _Reader(parameters, body or {})
    limit = reader.integer(("limit", "page_size"), default_limit, 1, max_limit)
    offset = reader.integer(("offset", "skip"), None, 0, MAX_OFFSET)
    page = reader.integer(("page",), None, 1, MAX_OFFSET // MAX_LIMIT)
    if offset is None:
        offset = 0 if page is None or limit is None else (page - 1) * limit
    result = ListQuery(
        limit=limit or default_limit,
        offset=offset,
        cursor=reader.text(("cursor", "next_cursor", "after")),
        search=reader.text(("search",)),
        filters=reader.filters(),
        sort=tuple(reader.sort()),
        include_total=reader.flag("include_total"),
    )
    if reader.problems:
        raise SpecError.of(reader.problems)
    return result


def envelope(page: ListPage, query: ListQuery) -> dict[str, Any]:
    """Return `{results, total_count, pagination}` for a page."""
    return {"results": page.items, "total_count": page.total, "pagination": pagination(page, query)}


def pagination(page: ListPage, query: ListQuery) -> dict[str, Any]:
    """Return the pagination block; totals are null unless they were counted."""
    number = query.offset // query.limit + 1
    more = page.next_cursor is not None
    return {
        "total": page.total,
        "page": number,
        "page_size": query.limit,
        "total_pages": None if page.total is None else -(-page.total // query.limit),
        "next_page": str(number + 1) if more else None,
        "previous_page": str(number - 1) if number > 1 else None,
        "next_cursor": page.next_cursor,
    }


class _Reader:
    """Takes each value from the body, else from the query, and collects what is wrong with them."""

    def __init__(self, parameters: Mapping[str, str], body: Mapping[str, Any]) -> None:
        self._parameters = parameters
        self._body = body
        self.problems: list[Problem] = []

    def integer(self, names: tuple[str, ...], default: int | None, low: int, high: int) -> int | None:
        value, location = self._find(names)
        if value is None:
            return default
        number = _integer(value)
        if number is None:
            self._problem("int_parsing", f"{location[1]} must be a whole number", location)
            return default
        if number < low:
            self._problem("greater_than_equal", f"{location[1]} must be at least {low}", location)
        elif number > high:
            self._problem("less_than_equal", f"{location[1]} must be at most {high}", location)
        return number

    def text(self, names: tuple[str, ...]) -> str | None:
        value, location = self._find(names)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            self._problem("string_type", f"{location[1]} must be a string", location)
            return None
        return value

    def flag(self, name: str) -> bool:
        value, location = self._find((name,))
        if value is None or isinstance(value, bool):
            return bool(value)
        lowered = str(value).lower()
        if lowered not in _TRUE | _FALSE:
            self._problem("bool_parsing", f"{name} must be true or false", location)
        return lowered in _TRUE

    def filters(self) -> Filter | None:
        value, location = self._find(("filters",))
        if isinstance(value, str):
            value = self._json(value, location)
        try:
            return filters.parse(value, place=Place(path="filters"))
        except SpecError as error:
            for found in error.problems:
                located = (*location, *found.location)
                self.problems.append(
                    Problem(
                        found.code,
                        found.message,
                        Place(path=".".join(map(str, located[1:]))),
                        "error",
                        located,
                    )
                )
            return None

    def sort(self) -> list[tuple[str, str]]:
        pairs: list[tuple[str, str]] = []
        for name in ("sort", "sorts"):
            value, location = self._find((name,))
            if isinstance(value, str) and value[:1] in "[{" and value:
                value = self._json(value, location)
            if value in (None, "", {}, []):
                continue
            entries = value if isinstance(value, list) else [value]
            for index, entry in enumerate(entries):
                where = (*location, index) if isinstance(value, list) else location
                pairs.extend(self._pairs(entry, where))
        return pairs

    def _pairs(self, entry: Any, location: tuple[str | int, ...]) -> list[tuple[str, str]]:
        """One sort: `{field, direction}`, `field`, `-field` or `field:desc`, several of these with commas."""
        if isinstance(entry, str):
            return [pair for part in entry.split(",") if part for pair in self._pairs(_named(part), location)]
        field = (entry.get("field") or entry.get("sort_field")) if isinstance(entry, Mapping) else None
        if not isinstance(field, str):
            self._problem("sort_invalid", "a sort is {field, direction: asc|desc}", location)
            return []
        given = entry.get("direction") or entry.get("order") or entry.get("sort_direction") or "asc"
        direction = _DIRECTIONS.get(str(given).lower())
        if direction is None:
            self._problem("sort_invalid", f"the direction of a sort is asc or desc, not {given!r}", location)
            return []
        return [(field, direction)]

    def _find(self, names: tuple[str, ...]) -> tuple[Any, tuple[str | int, ...]]:
        for source, values in (("body", self._body), ("query", self._parameters)):
            for name in names:
                value = values.get(name)
                if value is not None:
                    return value, (source, name)
        return None, ("query", names[0])

    def _json(self, value: str, location: tuple[str | int, ...]) -> Any:
        try:
            found = orjson.loads(value)
        except orjson.JSONDecodeError:
            self._problem("json_invalid", f"{location[1]} in the query must be JSON", location)
            return None
        if bodies.too_deep(found):
            self._problem("too_deep", f"{location[1]} is nested deeper than {bodies.MAX_DEPTH} levels", location)
            return None
        return found

    def _problem(self, code: str, message: str, location: tuple[str | int, ...]) -> None:
        self.problems.append(Problem(code, message, location=location))


def _integer(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _named(text: str) -> dict[str, str]:
    if text.startswith("-"):
        return {"field": text[1:], "direction": "desc"}
    field, _, direction = text.partition(":")
    return {"field": field, "direction": direction or "asc"}
