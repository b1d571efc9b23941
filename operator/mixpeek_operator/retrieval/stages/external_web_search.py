"""Search the web and add what is found to the documents."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.core.errors import NotEnabledError, NotFoundError, RateLimitedError, UnavailableError
from mixpeek_operator.ports.web_search import WebQuery, WebResult, WebResults
from mixpeek_operator.retrieval import calling
from mixpeek_operator.retrieval.each import each
from mixpeek_operator.retrieval.late import Deferred, Late, Names, known
from mixpeek_operator.retrieval.stage import Context, Documents, Stage, StageParams, State

SECRET: Final = "exa_api_key"  # noqa: S105 - a name
_SNIPPET: Final = {"maxCharacters": 1000}
_MAX_QUERIES: Final = 50
_CREDITS: Final = 5.0
_Count = Annotated[int, Field(ge=1, le=100)]
_Date = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}(T[0-9:.]+(Z|[+-]\d{2}:\d{2})?)?$")]
_Category = Annotated[
    Literal[
        "company", "research paper", "news", "pdf", "github", "tweet", "personal site", "blog",
        "linkedin profile", "financial report",
    ],
    BeforeValidator(lambda value: value.lower().replace("_", " ") if isinstance(value, str) else value),
]  # fmt: skip
_Domains = Annotated[list[str], Field(max_length=100)]


class Contents(BaseModel):
    """What comes with each page; an object holds options of Exa's."""

    model_config = ConfigDict(extra="forbid")

    text: bool | dict[str, Any] | None = Field(default=None, description="The whole text.")
    highlights: bool | dict[str, Any] = Field(default=False, description="The passages that fit the query.")
    summary: bool | dict[str, Any] = Field(default=False, description="A summary that Exa writes.")


class Params(StageParams):
    """Parameters of `external_web_search`."""

    query: Late[str] = Field(
        default="{{INPUT.query}}",
        validate_default=True,
        description="What to search for, with {INPUT.field}; with {DOC.field} once for each different query.",
        examples=["{INPUT.query}"],
    )
    num_results: Late[_Count] = Field(default=10, description="Most pages for one query.", examples=[10])
    use_autoprompt: Late[bool] = Field(default=True, description="Whether Exa may improve the query.", examples=[True])
    start_published_date: Late[_Date] | None = Field(
        default=None, description="Only pages published since: YYYY-MM-DD, or a moment in ISO 8601."
    )
    category: Late[_Category] | None = Field(
        default=None, description="Only pages of this kind; research_paper is read as research paper, and so on."
    )
    include_domains: Late[_Domains] = Field(default_factory=list, description="Only pages of these domains.")
    exclude_domains: Late[_Domains] = Field(default_factory=list, description="No pages of these domains.")
    include_text: bool = Field(
        default=True, description="Whether a page comes with its first 1000 characters.", examples=[True]
    )
    contents: Contents = Field(default_factory=Contents, description="More that comes with a page.")
    secret_ref: str | None = Field(
        default=None,
        min_length=1,
        description=f"Secret of the organization with its key for Exa; {SECRET} when absent, else the server's key.",
    )


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return the documents and behind them one for each page; without pages, and a warning, when the web is away."""
    if context.web_search is None:
        raise NotEnabledError("this server was put together without web search")
    search, key, organization = context.web_search, await _key(params, context), context.scope.organization
    queries = list({repr(query): query for query in _queries(state, params, context)}.values())
    if len(queries) > _MAX_QUERIES:
        context.warnings.append(
            f"external_web_search: only the first {_MAX_QUERIES} of {len(queries)} queries are asked"
        )

    async def one(query: WebQuery) -> WebResults:
        return await search.search(query, key=key, tenant=organization)

    try:
        answers = await each(queries[:_MAX_QUERIES], one)
    except (UnavailableError, RateLimitedError) as error:
        context.warnings.append(f"external_web_search found nothing: {error.message}")
        state.metadata["failed"] = error.code
        return state.documents
    state.credits += sum(answer.credits for answer in answers)
    found: dict[str, dict[str, Any]] = {}
    for query, answer in zip(queries, answers, strict=False):
        for position, result in enumerate(answer.results):
            document = _document(result, query, position)
            found.setdefault(document["document_id"], document)
    state.metadata.update(queries=len(answers), found=len(found))
    return [*state.documents, *found.values()]


async def _key(params: Params, context: Context) -> str | None:
    """The organization's own key; None when it has none and names none."""
    try:
        return await context.secrets.value(context.scope.organization, params.secret_ref or SECRET)
    except NotFoundError:
        if params.secret_ref is not None:
            raise
        return None


def _queries(state: State, params: Params, context: Context) -> list[WebQuery]:
    asks_documents = any(isinstance(value, Deferred) and "DOC" in value.namespaces for value in vars(params).values())
    if not asks_documents:
        return [_query(params, context.names)]
    return [_query(params, {**context.names, "DOC": document}) for document in state.documents]


def _query(params: Params, names: Names) -> WebQuery:
    published = known(params.start_published_date, names, "start_published_date")
    contents = {name: value for name, value in params.contents.model_dump().items() if value}
    if params.include_text and params.contents.text is None:
        contents["text"] = _SNIPPET
    return WebQuery(
        known(params.query, names, "query"),
        known(params.num_results, names, "num_results"),
        known(params.use_autoprompt, names, "use_autoprompt"),
        tuple(known(params.include_domains, names, "include_domains")),
        tuple(known(params.exclude_domains, names, "exclude_domains")),
        f"{published}T00:00:00.000Z" if published and "T" not in published else published,
        known(params.category, names, "category"),
        contents,
    )


def _document(result: WebResult, query: WebQuery, position: int) -> dict[str, Any]:
    """A document of a page; the same page has the same id. What is not known is left out."""
    page = {
        "url": result.url,
        "title": result.title,
        "published_date": result.published_date,
        "author": result.author,
        "highlights": list(result.highlights) or None,
        "summary": result.summary,
    }
    known_of_page = {name: value for name, value in page.items() if value is not None}
    content = {} if result.text is None else {"content": result.text}
    text = {} if result.text is None else {"text": result.text}
    return {
        "document_id": "web_" + hashlib.sha256(result.url.encode()).hexdigest()[:16],
        "source": "web",
        "score": result.score if result.score is not None else 0.0,
        **known_of_page,
        **content,
        "metadata": {
            **known_of_page,
            **text,
            "domain": urlsplit(result.url).hostname,
            "category": query.category,
            "search_query": query.text,
            "search_position": position,
        },
    }


def _estimate(params: Params, documents: int) -> tuple[int, float, float]:
    return documents + (params.num_results if isinstance(params.num_results, int) else 10), _CREDITS, 500.0


STAGE = Stage(
    StageInfo("external_web_search", "apply", "Search the web and add the pages found as documents.", "search", Params),
    run,
    source=True,
    braces=True,
    needs=lambda params: calling.named_secret(params.secret_ref, "secret_ref"),
    estimate=_estimate,
)
