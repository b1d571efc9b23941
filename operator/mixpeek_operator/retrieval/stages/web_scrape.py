"""Read web pages: those that documents name, or one that makes a document of its own."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator, model_validator

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.core.domains import Domains
from mixpeek_operator.core.errors import MixpeekError, RefusedError, SpecError
from mixpeek_operator.core.filter_values import pattern
from mixpeek_operator.core.filters import all_of
from mixpeek_operator.ports.outbound import Call
from mixpeek_operator.retrieval import calling, paths, search
from mixpeek_operator.retrieval.late import LateFilter
from mixpeek_operator.retrieval.stage import Context, Documents, Stage, StageParams, State
from mixpeek_operator.retrieval.stages import _page

_PAGES: Final = 20
_DEPTH: Final = 5
_MAX_BYTES: Final = 5 * 1024 * 1024
_ATTEMPTS: Final = 3
_HEADERS: Final = {"Accept": "text/html,application/xhtml+xml;q=0.9,text/plain;q=0.8"}


class Patterns(BaseModel):
    """Which links are followed, by regular expressions (RE2) that are searched for in the address."""

    model_config = ConfigDict(extra="forbid")

    include: list[str] = Field(default_factory=list, description="One of these has to be found.", examples=[["/docs/"]])
    exclude: list[str] = Field(default_factory=list, description="None of these may be found.")

    @field_validator("include", "exclude")
    @classmethod
    def _compiled(cls, patterns: list[str]) -> list[str]:
        for text in patterns:
            pattern(text, fold=False)
        return patterns

    def allow(self, url: str) -> bool:
        """Whether a link is followed."""
        return (not self.include or self._finds(self.include, url)) and not self._finds(self.exclude, url)

    @staticmethod
    def _finds(patterns: list[str], url: str) -> bool:
        return any(pattern(text, fold=False).search(url) for text in patterns)


class Params(StageParams):
    """Parameters of `web_scrape`; `output_field` and `timeout` are accepted as well."""

    url_field: str | None = Field(
        default=None,
        description="Dotted path of the page's address in the documents.",
        examples=["metadata.source_url"],
    )
    url: calling.LateUrl | None = Field(
        default=None,
        description="Address of one page, instead of url_field: it becomes a document of its own behind the others.",
    )
    result_field: str = Field(
        default="scraped_content",
        min_length=1,
        validation_alias=AliasChoices("result_field", "output_field"),
        description=(
            "Dotted path where {status, url, final_url, title, description, language, text, content_length} and what "
            "is included go; {status: error, error} where the page cannot be read; `pages` where links are followed."
        ),
        examples=["page"],
    )
    include_markdown: bool = Field(
        default=True, description="Whether the main part goes along as Markdown.", examples=[True]
    )
    include_html: bool = Field(default=False, description="Whether the whole page goes along as HTML.")
    include_links: bool = Field(default=False, description="Whether the page's links go along: {text, href}.")
    include_images: bool = Field(default=False, description="Whether the page's images go along: {alt, src}.")
    allowed_domains: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Hosts whose pages may be read: example.com, *.example.com. Any public host when absent.",
    )
    wait_for: int = Field(
        default=0, ge=0, le=60_000, description="Accepted; pages are read as they come, their scripts do not run."
    )
    strategy: Literal["auto", "static", "javascript"] = Field(
        default="auto", description="auto and static read the page as it comes; javascript is not done here."
    )
    timeout_ms: int = Field(
        default=30_000, ge=1, le=120_000, description="Milliseconds for one page.", examples=[30_000]
    )
    timeout: float | None = Field(default=None, ge=1, le=120, description="The same in seconds.")
    batch_size: int = Field(default=5, ge=1, le=20, description="Pages that are read at the same time.")
    when: LateFilter | None = Field(
        default=None, description="Only pages of documents that satisfy this filter are read; others pass unchanged."
    )
    on_error: calling.OnError = Field(
        default="skip",
        description=(
            "What happens to a document whose page cannot be read: skip keeps it with the error in result_field, "
            "remove drops it, raise ends the query."
        ),
    )

    max_depth: int | None = Field(
        default=None, ge=0, le=5, description="Follow the page's links so many steps; only the page itself when absent."
    )
    max_pages: int | None = Field(
        default=None,
        ge=1,
        le=100,
        description="Most pages that following links reads; 20 when only max_depth is given.",
    )
    same_domain_only: bool = Field(default=True, description="Whether only links to the page's own host are followed.")
    url_patterns: Patterns | None = Field(default=None, description="Which links are followed.")
    delay_between_requests: float = Field(
        default=0.5, ge=0, le=5, description="Seconds between two pages when links are followed."
    )
    min_content_length: int = Field(
        default=500, ge=100, description="Accepted; it matters only where scripts of pages run."
    )

    @model_validator(mode="after")
    def _one_address(self) -> Params:
        if self.url is not None and self.url_field == "metadata.url":
            # Client libraries send their default along.
            self.url_field = None
        if (self.url is None) == (self.url_field is None):
            raise ValueError("give url_field or url")
        if self.strategy == "javascript":
            raise ValueError("scripts of pages are not run here; use strategy static")
        if self.url is not None and "DOC" in self.url.namespaces:
            raise ValueError("url makes a document of its own and knows no DOC; name the documents' field in url_field")
        if self.allowed_domains is not None:
            Domains(self.allowed_domains)
        return self

    @property
    def follows(self) -> bool:
        """Whether links are followed."""
        return self.max_depth is not None or self.max_pages is not None


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return the documents with their pages; with `url`, the documents and one for each page read."""
    once = calling.Once()
    if params.wait_for:
        context.warnings.append("web_scrape: wait_for has no effect, scripts of pages do not run")
    if params.url is not None:
        made = await _pages(params.url.value(context.names), params, context)
        return [*state.documents, *(_document(page, params.result_field) for page in made)]
    if state.first:
        state.documents = await _every_document(state, context)
    field = params.url_field
    assert field is not None

    async def enrich(document: dict[str, Any]) -> dict[str, Any]:
        url = paths.read(document, field)
        if not isinstance(url, str) or not url:
            raise SpecError(f"the document has no address at {field}", code="url_incomplete")
        first, *others = await once.of(url, lambda: _pages(url, params, context))
        page = {**first, "pages": others} if params.follows else first
        if page["status"] == "error":
            state.metadata["unreadable"] = state.metadata.get("unreadable", 0) + 1
        return paths.write(document, params.result_field, page)

    return await calling.enriched(
        state, context, enrich, when=params.when, on_error=params.on_error, at_once=params.batch_size
    )


async def _pages(url: str, params: Params, context: Context) -> list[dict[str, Any]]:
    """The page, and with `follows` those it leads to. Raises what stops the first one unless errors are kept."""
    try:
        first = await _fetched(url, params, context)
    except MixpeekError as error:
        if params.on_error != "skip":
            raise
        return [{"status": "error", "error": error.message, "url": url, "markdown": None}]
    made = [_shaped(url, *first, params)]
    seen, level, depth = {url, first[0]}, [first], 0
    most = params.max_pages or _PAGES
    deepest = params.max_depth if params.max_depth is not None else _DEPTH
    while params.follows and depth < deepest and len(made) < most:
        depth += 1
        linked = [(link["href"], base) for base, page in level for link in page.links]
        links = dict.fromkeys(href for href, base in linked if _followed(href, base, params))
        wanted = [link for link in links if link not in seen][: most - len(made)]
        seen.update(wanted)
        level = []
        for link in wanted:
            await asyncio.sleep(params.delay_between_requests)
            try:
                found = await _fetched(link, params, context)
            except MixpeekError as error:
                made.append({"status": "error", "error": error.message, "url": link, "markdown": None})
                continue
            seen.add(found[0])
            level.append(found)
            made.append(_shaped(link, *found, params))
        if not wanted:
            break
    return made


def _followed(href: str, base: str, params: Params) -> bool:
    if params.same_domain_only and urlsplit(href).netloc != urlsplit(base).netloc:
        return False
    return params.url_patterns is None or params.url_patterns.allow(href)


async def _fetched(url: str, params: Params, context: Context) -> tuple[str, _page.Page]:
    """Where the page was in the end, and the page."""
    timeout_s = params.timeout if params.timeout is not None else params.timeout_ms / 1000
    answer = await context.outbound.send(
        Call(
            url,
            headers=_HEADERS,
            domains=None if params.allowed_domains is None else tuple(params.allowed_domains),
            timeout_s=timeout_s,
            max_bytes=_MAX_BYTES,
            attempts=_ATTEMPTS,
            tenant=context.scope.organization,
        )
    )
    if not 200 <= answer.status < 300:
        raise RefusedError(f"{answer.url} answered {answer.status}", code="call_failed")
    kind = answer.headers.get("content-type")
    return answer.url, await asyncio.to_thread(_page.read, answer.body, kind, answer.url)


def _shaped(url: str, final_url: str, page: _page.Page, params: Params) -> dict[str, Any]:
    shaped: dict[str, Any] = {
        "status": "success",
        "url": url,
        "final_url": final_url,
        "title": page.title,
        "description": page.description,
        "language": page.language,
        "text": page.text,
        "content_length": len(page.text),
    }
    if params.include_markdown:
        shaped["markdown"] = page.markdown
    if params.include_html:
        shaped["html"] = page.html
    if params.include_links:
        shaped["links"] = list(page.links)
    if params.include_images:
        shaped["images"] = list(page.images)
    return shaped


def _document(page: dict[str, Any], result_field: str) -> dict[str, Any]:
    """A document of a page; the same page has the same id."""
    id = "web_" + hashlib.sha256(page["url"].encode()).hexdigest()[:16]
    document = {"document_id": id, "source": "web", "url": page["url"], "title": page.get("title"), "score": 1.0}
    return paths.write(document, result_field, page)


async def _every_document(state: State, context: Context) -> Documents:
    """What the pipeline starts from when nothing comes before."""
    if not context.collections:
        return []
    condition = search.in_collections([collection.id for collection in context.collections])
    found, more = await search.scan(
        context.vectors,
        context.namespace.vector_collection,
        all_of(condition, *state.filters) or condition,
        limit=search.MAX_SCAN,
    )
    if more:
        context.warnings.append(f"web_scrape reads the pages of the first {search.MAX_SCAN} documents only")
    return found


def _estimate(params: Params, documents: int) -> tuple[int, float, float]:
    pages = (params.max_pages or _PAGES) if params.follows else 1
    if params.url is not None:
        return documents + pages, 0.0, 1000.0 * pages
    return documents, 0.0, 1000.0 * pages * -(-documents // params.batch_size)


def _writes(params: Params) -> tuple[str, ...]:
    return (params.result_field,) if params.url is None and params.on_error != "remove" else ()


STAGE = Stage(
    StageInfo("web_scrape", "apply", "Read the web pages that documents name, or one page.", "file-text", Params),
    run,
    source=True,
    braces=True,
    by_document=lambda params: params.url is None,
    writes=_writes,
    reads=lambda params: () if params.url_field is None else (params.url_field,),
    estimate=_estimate,
)
