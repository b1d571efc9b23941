"""Port: searching the web."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class WebQuery:
    """What is asked for."""

    text: str
    results: int = 10
    autoprompt: bool = True
    """Whether the provider may rewrite the query."""
    include_domains: tuple[str, ...] = ()
    exclude_domains: tuple[str, ...] = ()
    published_after: str | None = None
    """ISO 8601."""
    category: str | None = None
    contents: Mapping[str, Any] = field(default_factory=dict)
    """What comes with each result: text, highlights, summary; each true or an object of options."""


@dataclass(frozen=True, slots=True)
class WebResult:
    """A page that was found."""

    url: str
    title: str | None = None
    score: float | None = None
    published_date: str | None = None
    author: str | None = None
    text: str | None = None
    highlights: tuple[str, ...] = ()
    summary: str | None = None


@dataclass(frozen=True, slots=True)
class WebResults:
    """The pages, best first, and what finding them cost."""

    results: tuple[WebResult, ...]
    credits: float = 0.0


class WebSearch(Protocol):
    """One provider of web search."""

    async def search(self, query: WebQuery, *, key: str | None, tenant: str) -> WebResults:
        """Search with the tenant's own key, or the server's when it is None.

        Raises SpecError (`web_search_not_configured`) when there is neither, RefusedError when the provider refuses
        the key or the query, RateLimitedError and UnavailableError when it will answer later.
        """
        ...
