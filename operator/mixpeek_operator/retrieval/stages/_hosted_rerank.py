"""Rerankers that others run, by HTTP: Cohere, Jina and Voyage, and servers that speak as one of them does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from mixpeek_operator.core.errors import RateLimitedError, RefusedError, UnavailableError
from mixpeek_operator.ports.outbound import Answer, Call, Credential
from mixpeek_operator.retrieval.each import each
from mixpeek_operator.retrieval.stage import Context

CREDITS_PER_TEXT: Final = 0.02
"""What a scored text counts in budgets: Cohere's price, 0.002 dollars for 100, at 1000 credits a dollar."""
_TIMEOUT_S = 30.0
_MOST_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Provider:
    """How a provider is asked; all of them answer with an index and a `relevance_score` for each text."""

    name: str
    url: str
    results: str
    """Where the answer has them."""
    options: Mapping[str, Any]
    """Sent beside model, query and documents."""

    @property
    def secret(self) -> str:
        """Secret of the organization that holds its key, unless the stage names another."""
        return f"{self.name}_api_key"


_PROVIDERS: Final = {
    provider.name: provider
    for provider in (
        Provider("cohere", "https://api.cohere.com/v2/rerank", "results", {}),
        Provider("jina", "https://api.jina.ai/v1/rerank", "results", {"return_documents": False}),
        Provider("voyage", "https://api.voyageai.com/v1/rerank", "data", {"truncation": True}),
    )
}
_SHORT: Final = {
    "cohere-rerank-v3": ("cohere", "rerank-multilingual-v3.0"),
    "jina-reranker-v2": ("jina", "jina-reranker-v2-base-multilingual"),
}
NAMES: Final = ", ".join((*(f"{name}/<model>" for name in _PROVIDERS), *_SHORT))


@dataclass(frozen=True, slots=True)
class Hosted:
    """One model of a provider."""

    provider: Provider
    model: str

    async def score(
        self,
        query: str,
        texts: Sequence[str],
        context: Context,
        *,
        secret_ref: str | None,
        base_url: str | None,
        batch_size: int,
        at_once: int,
    ) -> list[float]:
        """One score per text, in order; each batch is one call.

        Raises NotFoundError without the secret, RefusedError for a key or a model the provider refuses,
        RateLimitedError, UnavailableError, and SpecError for an address that may not be reached.
        """
        key = await context.secrets.value(context.scope.organization, secret_ref or self.provider.secret)
        url = self.provider.url if base_url is None else base_url.rstrip("/") + "/rerank"
        credential = Credential("header", "Authorization", f"Bearer {key}")

        async def one(batch: Sequence[str]) -> list[float]:
            body = {"model": self.model, "query": query, "documents": list(batch), **self.provider.options}
            call = Call(
                url,
                "POST",
                json=body,
                credentials=(credential,),
                domains=(urlsplit(url).netloc.rpartition("@")[2],),
                timeout_s=_TIMEOUT_S,
                max_bytes=_MOST_BYTES,
                max_redirects=0,
                attempts=3,
                tenant=context.scope.organization,
            )
            return self._read(await context.outbound.send(call), len(batch), key)

        batches = [texts[start : start + batch_size] for start in range(0, len(texts), batch_size)]
        return [score for scores in await each(batches, one, at_once=at_once) for score in scores]

    def _read(self, answer: Answer, count: int, key: str) -> list[float]:
        name, status = self.provider.name, answer.status
        if status == 429:
            raise RateLimitedError(f"{name} refuses more calls for now; try again later, or score fewer documents")
        if status >= 500:
            raise UnavailableError(f"{name} answered {status}; try again later")
        if status != 200:
            reason = _reason(answer.body).replace(key, "***")
            raise RefusedError(f"{name} refused the rerank with {self.model!r}: {status} {reason}".rstrip())
        try:
            entries = orjson.loads(answer.body)[self.provider.results]
            found = {int(entry["index"]): float(entry["relevance_score"]) for entry in entries}
            return [found[position] for position in range(count)]
        except (ValueError, KeyError, TypeError) as error:
            raise UnavailableError(f"{name} answered with something that is no list of scores") from error


def find(model: str, base_url: str | None) -> Hosted | None:
    """The hosted model that a name means; any name is one of Jina's kind at a `base_url`."""
    if model in _SHORT:
        name, hosted = _SHORT[model]
        return Hosted(_PROVIDERS[name], hosted)
    name, _, hosted = model.partition("/")
    if name in _PROVIDERS and hosted:
        return Hosted(_PROVIDERS[name], hosted)
    return None if base_url is None else Hosted(_PROVIDERS["jina"], model)


def _reason(body: bytes) -> str:
    """What a provider says is wrong, at most 200 characters."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    for key in ("message", "detail", "error"):
        if isinstance(said, Mapping) and isinstance(said.get(key), str):
            return str(said[key])[:200]
    return ""
