"""Web search by Exa's API (https://docs.exa.ai/reference/search)."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from pydantic import BaseModel, Field, SecretStr, ValidationError

from mixpeek_operator.core.errors import RateLimitedError, RefusedError, SpecError, UnavailableError
from mixpeek_operator.ports.outbound import Answer, Call, Credential, Outbound
from mixpeek_operator.ports.web_search import WebQuery, WebResult, WebResults

_TIMEOUT_S: Final = 30.0
_ATTEMPTS: Final = 3
_MAX_BYTES: Final = 20 * 1024 * 1024
_CREDITS_PER_USD: Final = 1000.0
_USD_PER_SEARCH: Final = 0.005


class _Result(BaseModel):
    url: str
    title: str | None = None
    score: float | None = None
    published_date: str | None = Field(default=None, alias="publishedDate")
    author: str | None = None
    text: str | None = None
    highlights: list[str] = []
    summary: str | None = None


class _Cost(BaseModel):
    total: float = _USD_PER_SEARCH


class _Answer(BaseModel):
    results: list[_Result]
    cost: _Cost = Field(default_factory=_Cost, alias="costDollars")


class ExaSearch:
    """The `WebSearch` port. The server's key is for organizations that bring none."""

    def __init__(self, outbound: Outbound, base_url: str, key: SecretStr | None) -> None:
        self._outbound = outbound
        self._url = base_url.rstrip("/") + "/search"
        self._key = key.get_secret_value() if key else None

    async def search(self, query: WebQuery, *, key: str | None, tenant: str) -> WebResults:
        used = key or self._key
        if not used:
            raise SpecError(
                "web search has no key: store one of Exa as the secret exa_api_key (POST /v1/organizations/secrets), "
                "or set MIXPEEK_EXA_API_KEY",
                code="web_search_not_configured",
            )
        call = Call(
            self._url,
            "POST",
            json=_body(query),
            credentials=(Credential("header", "x-api-key", used),),
            domains=(urlsplit(self._url).netloc,),
            timeout_s=_TIMEOUT_S,
            max_bytes=_MAX_BYTES,
            max_redirects=0,
            attempts=_ATTEMPTS,
            tenant=tenant,
        )
        return _read(await self._outbound.send(call), used)


def _body(query: WebQuery) -> dict[str, Any]:
    body: dict[str, Any] = {
        "query": query.text,
        "numResults": query.results,
        "useAutoprompt": query.autoprompt,
        "includeDomains": list(query.include_domains),
        "excludeDomains": list(query.exclude_domains),
        "startPublishedDate": query.published_after,
        "category": query.category,
        "contents": dict(query.contents),
    }
    return {name: value for name, value in body.items() if value not in (None, [], {})}


def _read(answer: Answer, key: str) -> WebResults:
    if answer.status in (401, 403):
        raise RefusedError(
            f"Exa refused the key ({answer.status}); store a valid one as the secret exa_api_key", code="key_refused"
        )
    if answer.status == 429:
        raise RateLimitedError("Exa is asked too often; try again later")
    if answer.status >= 500:
        raise UnavailableError(f"Exa answered {answer.status}; try again later")
    if answer.status != 200:
        raise RefusedError(f"Exa refused the query: {answer.status} {_reason(answer.body, key)}".rstrip())
    try:
        found = _Answer.model_validate_json(answer.body)
    except ValidationError:
        raise UnavailableError("Exa answered with something that is no list of results") from None
    results = tuple(WebResult(**{**item.model_dump(), "highlights": tuple(item.highlights)}) for item in found.results)
    return WebResults(results, found.cost.total * _CREDITS_PER_USD)


def _reason(body: bytes, key: str) -> str:
    """What the provider says is wrong with the query."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    reason = said.get("error") if isinstance(said, dict) else None
    return reason.replace(key, "***")[:200] if isinstance(reason, str) else ""
