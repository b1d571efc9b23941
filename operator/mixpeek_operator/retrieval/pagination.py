"""Pages of an answer: offset, cursor, scroll and keyset. Tokens are opaque and belong to one query.

A cursor holds a position and the last document seen, so that documents added or removed before it neither repeat nor
hide others. A scroll keeps its result in the cache until it expires. A keyset marker holds the values sorted by.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from mixpeek_operator.core import ids
from mixpeek_operator.core.errors import BadRequestError, Place, Problem, SpecError
from mixpeek_operator.ports.cache import Cache
from mixpeek_operator.retrieval import paths

MAX_PAGE: Final = 5000
DEFAULT_PAGE: Final = 1000
"""Documents of a page when the request names no size: all that a pipeline usually makes."""
_METHODS: Final = ("offset", "cursor", "scroll", "keyset")
_ASKED: Final = frozenset({"pagination", "limit", "page_size", "offset"})
"""Keys of a request that ask for a page."""

Documents = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class PageRequest:
    """What the request asked for, checked."""

    method: str = "cursor"
    limit: int = DEFAULT_PAGE
    offset: int = 0
    token: str | None = None
    after: Mapping[str, Any] | None = None
    ttl_s: int = 300


@dataclass(frozen=True, slots=True)
class Order:
    """What the result is sorted by, for keyset markers."""

    field: str = "score"
    descending: bool = True


def read(request: Mapping[str, Any]) -> PageRequest:
    """Return the page that a request asks for. Raises SpecError with every mistake."""
    if _ASKED.isdisjoint(request):
        return PageRequest()
    problems: list[Problem] = []
    body = request.get("pagination")
    if body is None:
        body = {}
    if not isinstance(body, Mapping):
        raise SpecError.of([_problem("pagination", "pagination must be an object with a method")])

    def whole(name: str, low: int, high: int, *sources: Any) -> int | None:
        value = next((source for source in sources if source is not None), None)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            problems.append(_problem(name, f"{name} must be a whole number from {low} to {high}; got {value!r:.40}"))
            return None
        return value

    method = body.get("method")
    if method is None:
        method = _inferred(body, request)
    if method not in _METHODS:
        raise SpecError.of([_problem("pagination.method", f"unknown method {method!r:.40}; use one of {_METHODS}")])
    limit = whole(
        "limit", 1, MAX_PAGE, body.get("limit"), body.get("page_size"), request.get("limit"), request.get("page_size")
    )
    size = limit or (10 if method == "offset" and body else 100 if method == "scroll" else DEFAULT_PAGE)
    offset = whole("offset", 0, 10**9, body.get("offset"), request.get("offset")) or 0
    number = whole("page_number", 1, 10**9, body.get("page_number"), body.get("page"))
    if number is not None:
        offset = (number - 1) * size
    token = {"cursor": body.get("cursor"), "scroll": body.get("scroll_id")}.get(method)
    if token is not None and not isinstance(token, str):
        problems.append(_problem("pagination", f"a {method} token is text"))
    after = body.get("after") if method == "keyset" else None
    if after is not None and not isinstance(after, Mapping):
        problems.append(_problem("pagination.after", "after must be an object: the next_cursor of the page before"))
    ttl = whole("scroll_ttl", 1, 86_400, body.get("scroll_ttl")) or 300
    if problems:
        raise SpecError.of(problems)
    return PageRequest(method, size, offset, token or None, after or None, ttl)


def query_hash(parts: Any) -> str:
    """Return a short hash of everything that decides a result."""
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS, default=str)).hexdigest()[:24]


class Pager:
    """Cuts results into pages; `query` gives the hash of the query and is asked only when a token needs it."""

    def __init__(self, cache: Cache, namespace_id: str, page: PageRequest, query: Callable[[], str]) -> None:
        self._cache = cache
        self._namespace_id = namespace_id
        self._page = page
        self._query = query

    async def resume(self) -> tuple[Documents, dict[str, Any]] | None:
        """Return the next page of a scroll from its kept result, None for every other page.

        Raises BadRequestError for a token of another query and for a scroll that expired.
        """
        page = self._page
        if page.method != "scroll" or page.token is None:
            return None
        token = self._decode(page.token)
        kept = await self._cache.get(self._key(str(token.get("i"))))
        if kept is None:
            raise BadRequestError("the scroll has expired; start again without scroll_id", code="scroll_expired")
        documents: Documents = orjson.loads(kept)
        return self._scrolled(documents, int(token["o"]), str(token["i"]))

    async def cut(self, documents: Documents, order: Order) -> tuple[Documents, dict[str, Any]]:
        """Return the asked page of a fresh result and its `pagination`."""
        page = self._page
        if page.method == "offset":
            part = documents[page.offset : page.offset + page.limit]
            info = self._info(part, documents, page.offset)
            info |= {"page_size": page.limit, "page_number": page.offset // page.limit + 1, "offset": page.offset}
            return part, info
        if page.method == "keyset":
            return self._keyset(documents, order)
        if page.method == "scroll":
            if len(documents) <= page.limit:
                return self._scrolled(documents, 0, "")
            id = ids.random("scroll")
            await self._cache.set(self._key(id), orjson.dumps(documents), ttl_s=page.ttl_s)
            return self._scrolled(documents, 0, id)
        start = self._start(documents) if page.token is not None else page.offset
        part = documents[start : start + page.limit]
        info = self._info(part, documents, start)
        info["cursor"] = info["next_cursor"] = (
            self._encode({"o": start + len(part), "a": part[-1].get("document_id")}) if info["has_next"] else None
        )
        return part, info

    def _start(self, documents: Documents) -> int:
        token = self._decode(self._page.token or "")
        position, anchor = int(token["o"]), token.get("a")
        if anchor is None:
            return position
        if 0 < position <= len(documents) and documents[position - 1].get("document_id") == anchor:
            return position
        for index, document in enumerate(documents):
            if document.get("document_id") == anchor:
                return index + 1
        return max(0, position - 1)

    def _keyset(self, documents: Documents, order: Order) -> tuple[Documents, dict[str, Any]]:
        page = self._page
        start = 0
        if page.after is not None:
            marker = dict(page.after)
            if marker.pop("query", self._query()) != self._query():
                raise BadRequestError("this keyset marker belongs to another query", code="page_token_invalid")
            missing = [name for name in (order.field, "id") if name not in marker]
            if missing:
                raise SpecError.of(
                    [_problem("pagination.after", f"after must hold {order.field!r} and 'id'; missing {missing[0]!r}")]
                )
            start = _after(documents, order, marker)
        part = documents[start : start + page.limit]
        info = self._info(part, documents, start)
        marker_out = None
        if info["has_next"]:
            last = part[-1]
            value = paths.read(last, order.field)
            marker_out = {
                order.field: None if value is paths.ABSENT else value,
                "id": last.get("document_id"),
                "query": self._query(),
            }
        info["next_cursor"] = info["after"] = marker_out
        return part, info

    def _scrolled(self, documents: Documents, start: int, id: str) -> tuple[Documents, dict[str, Any]]:
        part = documents[start : start + self._page.limit]
        info = self._info(part, documents, start)
        info["scroll_id"] = self._encode({"o": start + len(part), "i": id}) if info["has_next"] else None
        return part, info

    def _info(self, part: Documents, documents: Sequence[Any], start: int) -> dict[str, Any]:
        return {
            "method": self._page.method,
            "limit": self._page.limit,
            "returned": len(part),
            "total": len(documents),
            "has_next": start + len(part) < len(documents),
        }

    def _key(self, id: str) -> str:
        return f"{self._namespace_id}:scroll:{id}"

    def _encode(self, content: dict[str, Any]) -> str:
        return encode(content, self._page.method, self._query())

    def _decode(self, token: str) -> dict[str, Any]:
        return decode(token, self._page.method, self._query())


def encode(content: Mapping[str, Any], method: str, query: str) -> str:
    """Return a page token: a position `o` and whatever else, bound to the method and the query."""
    return base64.urlsafe_b64encode(orjson.dumps({**content, "m": method, "q": query})).decode().rstrip("=")


def decode(token: str, method: str, query: str) -> dict[str, Any]:
    """Return the content of a page token. Raises BadRequestError when it is none, or of another query."""
    try:
        content = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (ValueError, binascii.Error):
        content = None
    position = content.get("o") if isinstance(content, dict) else None
    if content is None or not isinstance(position, int) or isinstance(position, bool) or position < 0:
        raise BadRequestError("this is no page token of this server", code="page_token_invalid")
    if content.get("q") != query or content.get("m") != method:
        raise BadRequestError(
            "this page token belongs to another query; start again without it", code="page_token_invalid"
        )
    return dict(content)


def _after(documents: Documents, order: Order, marker: Mapping[str, Any]) -> int:
    """Position of the first document behind the marker."""
    for index, document in enumerate(documents):
        if document.get("document_id") == marker["id"]:
            return index + 1
    for index, document in enumerate(documents):
        if _behind(paths.read(document, order.field), document.get("document_id"), order, marker):
            return index
    return len(documents)


def _behind(value: Any, id: Any, order: Order, marker: Mapping[str, Any]) -> bool:
    last = marker[order.field]
    if value is paths.ABSENT or value is None:
        return last is not None
    try:
        if value == last:
            return str(id) > str(marker["id"])
        return bool(value < last) if order.descending else bool(value > last)
    except TypeError:
        return False


def _inferred(body: Mapping[str, Any], request: Mapping[str, Any]) -> str:
    if "scroll_id" in body:
        return "scroll"
    if "after" in body:
        return "keyset"
    offset = any(body.get(name) is not None for name in ("offset", "page_number", "page"))
    return "offset" if offset or (request.get("offset") is not None and "cursor" not in body) else "cursor"


def _problem(path: str, message: str) -> Problem:
    return Problem("pagination_invalid", message, Place(path=path), location=("body", *path.split(".")))
