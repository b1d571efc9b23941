"""Enrich documents with what an HTTP API answers, one call per document."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BeforeValidator, Field, field_validator, model_validator

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.core.errors import RefusedError, SpecError
from mixpeek_operator.ports.outbound import Answer, Call, Credential
from mixpeek_operator.retrieval import calling, paths
from mixpeek_operator.retrieval.each import AT_ONCE
from mixpeek_operator.retrieval.late import Late, LateFilter, Names, known
from mixpeek_operator.retrieval.stage import Context, Documents, Stage, StageParams, State
from mixpeek_operator.retrieval.stages._json_path import JsonPath

_OWN_HEADERS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding"})
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_LARGE: Final = 100_000
_ATTEMPTS: Final = 3
_SECRET_HEADERS: Final = frozenset({"authorization", "proxy-authorization", "cookie"})
_Text = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value)]


class Params(StageParams):
    """Parameters of `api_call`."""

    url: calling.LateUrl = Field(
        description=(
            "Address to call, with {DOC.field} and {INPUT.field}. Values behind the host are percent-encoded; a "
            "missing one fails the document."
        ),
        examples=["https://api.example.com/v1/customers/{DOC.customer_id}"],
    )
    allowed_domains: list[str] = Field(
        min_length=1,
        description="Hosts that may be called, redirects included: api.example.com, or *.example.com for subdomains.",
        examples=[["api.example.com"]],
    )
    output_field: str = Field(
        min_length=1, description="Dotted path where the answer goes.", examples=["metadata.customer"]
    )
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = Field(
        default="GET", description="HTTP method.", examples=["GET"]
    )
    auth: calling.Auth | None = Field(default=None, description="How the call authenticates; not at all when absent.")
    headers: Late[dict[str, _Text]] = Field(
        default_factory=dict,
        description="Further headers; values may be templates. Credentials go into auth.",
        examples=[{"Accept": "application/json"}],
    )
    body: Late[Any] = Field(default=None, description="Sent as JSON; not with GET. Values may be templates.")
    timeout: float = Field(default=10, ge=1, le=60, description="Seconds for one call, redirects and retries included.")
    max_response_size: int = Field(
        default=10 * 1024 * 1024, ge=1024, le=100 * 1024 * 1024, description="Most bytes of an answer."
    )
    response_path: JsonPath | None = Field(
        default=None,
        description=(
            "JSONPath (RFC 9535) of what is kept of the answer; all of it when absent. A path that can match several "
            "places makes a list; one that matches nothing fails the document."
        ),
        examples=["$.data"],
    )
    rate_limit: calling.RateLimit | None = Field(
        default=None, description="How often a domain is called. A call whose turn comes after its timeout fails."
    )
    when: LateFilter | None = Field(
        default=None, description="Only documents that satisfy this filter are called for; others pass unchanged."
    )
    on_error: calling.OnError = Field(default="skip", description=calling.ON_ERROR, examples=["skip"])

    @field_validator("method", mode="before")
    @classmethod
    def _any_case(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _reachable(self) -> Params:
        calling.check_reachable(self.url, self.allowed_domains)
        if isinstance(self.headers, dict):
            _check_headers(self.headers)
        if self.body is not None and self.method == "GET":
            raise ValueError("a GET has no body; set method to POST, PUT, PATCH or DELETE")
        return self


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return the documents with their answers; equal GET requests are sent once."""
    once = calling.Once()
    organization = context.scope.organization

    async def ask(call: Call) -> Any:
        answer = await context.outbound.send(call)
        if len(answer.body) > _LARGE:
            return await asyncio.to_thread(_content, answer, params.response_path)
        return _content(answer, params.response_path)

    async def enrich(document: dict[str, Any]) -> dict[str, Any]:
        auth = await once.of("auth", lambda: calling.credentials(params.auth, context))
        call = _call(params, {**context.names, "DOC": document}, auth, organization)
        if call.method == "GET":
            key = (call.url, *sorted(call.headers.items()))
            content = await once.of(key, lambda: ask(call))
        else:
            content = await ask(call)
        return paths.write(document, params.output_field, content)

    return await calling.enriched(state, context, enrich, when=params.when, on_error=params.on_error)


def _call(params: Params, names: Names, auth: tuple[Credential, ...], organization: str) -> Call:
    headers = known(params.headers, names, "headers")
    _check_headers(headers)
    return Call(
        params.url.value(names),
        params.method,
        headers,
        known(params.body, names, "body"),
        auth,
        tuple(params.allowed_domains),
        timeout_s=params.timeout,
        max_bytes=params.max_response_size,
        attempts=_ATTEMPTS if params.method == "GET" else 1,
        rate=params.rate_limit.rate if params.rate_limit else None,
        tenant=organization,
    )


def _check_headers(headers: dict[str, str]) -> None:
    for name in headers:
        if name.lower() in _SECRET_HEADERS:
            raise SpecError(
                f"headers: {name!r} holds a credential; store it as a secret and name it in auth.secret_ref",
                code="parameter_invalid",
            )
        if name.lower() in _OWN_HEADERS or not _TOKEN.fullmatch(name):
            raise SpecError(f"headers: {name!r} cannot be set", code="parameter_invalid")


def _content(answer: Answer, path: JsonPath | None) -> Any:
    """What the answer says: JSON, or its text where it is none. Raises RefusedError."""
    if not 200 <= answer.status < 300:
        raise RefusedError(f"{answer.url} answered {answer.status}", code="call_failed")
    if not answer.body:
        content = None
    else:
        try:
            content = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            if "json" in answer.headers.get("content-type", ""):
                raise RefusedError(f"{answer.url} answered with JSON that cannot be read", code="call_failed") from None
            content = answer.body.decode(errors="replace")
    return content if path is None else path.read(content)


def _estimate(params: Params, documents: int) -> tuple[int, float, float]:
    return documents, 0.0, 300.0 * -(-documents // AT_ONCE)


def _writes(params: Params) -> tuple[str, ...]:
    return (params.output_field,) if params.on_error != "remove" and params.method == "GET" else ()


STAGE = Stage(
    StageInfo("api_call", "apply", "Enrich documents with what an HTTP API answers.", "globe", Params),
    run,
    braces=True,
    by_document=True,
    writes=_writes,
    needs=lambda params: calling.needs(params.auth),
    estimate=_estimate,
)
