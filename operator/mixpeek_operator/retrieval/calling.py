"""What stages that call out share: URLs, credentials by name, limits, and what becomes of a failed document."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from mixpeek_operator.core.catalog import Need
from mixpeek_operator.core.domains import Domains
from mixpeek_operator.core.errors import MixpeekError, SpecError
from mixpeek_operator.core.filters import matches
from mixpeek_operator.ports.outbound import Credential, Rate
from mixpeek_operator.retrieval.each import AT_ONCE, each
from mixpeek_operator.retrieval.late import TEMPLATE_MARK, LateFilter, Names
from mixpeek_operator.retrieval.stage import Context, Documents, State
from mixpeek_operator.retrieval.templating.errors import TemplateError
from mixpeek_operator.retrieval.templating.template import Template, compile_url, is_template

T = TypeVar("T")
OnError = Literal["skip", "remove", "raise"]
ON_ERROR = "What happens to a document whose call fails: skip keeps it as it is, remove drops it, raise ends the query."


class LateUrl:
    """A URL that may hold templates; what they insert behind the host is percent-encoded."""

    __slots__ = ("_template", "constant", "namespaces")

    def __init__(self, source: str, *, braces: bool) -> None:
        """Raises TemplateError."""
        self._template: Template | None = None
        self.constant: str | None = source
        """The URL itself when nothing in it is a template."""
        self.namespaces: frozenset[str] = frozenset()
        if is_template(source, braces=braces):
            self._template, self.constant = compile_url(source, braces=braces), None
            self.namespaces = self._template.namespaces

    def value(self, names: Names) -> str:
        """Return the URL for one document. Raises TemplateError when a value it needs is missing."""
        return self.constant if self._template is None else self._template.render(names)  # type: ignore[return-value]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def check(value: Any, info: core_schema.ValidationInfo) -> LateUrl:
            if isinstance(value, LateUrl):
                return value
            if not isinstance(value, str) or not value:
                raise ValueError("a URL is text")
            try:
                return cls(value, braces=bool(info.context and info.context.get("braces")))
            except TemplateError as error:
                raise ValueError(f"{TEMPLATE_MARK}{error.message}") from None

        return core_schema.with_info_plain_validator_function(check)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "description": "A URL, which may hold templates."}


class _Given(BaseModel):
    """What clients write for "absent" is absent here, too: null, and the text "null"."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _absent(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {key: value for key, value in values.items() if value is not None and value != "null"}


class Auth(_Given):
    """How a call authenticates: by a secret of the organization, which only its name refers to."""

    type: Literal["none", "bearer", "api_key", "basic", "custom_header"] = "none"
    """none; bearer: Authorization: Bearer; api_key: in a header or the query; basic: the secret holds
    username:password; custom_header: the secret as the value of any header."""
    secret_ref: str | None = Field(default=None, min_length=1, examples=["crm_token"])
    """Name of the secret (POST /v1/organizations/secrets)."""
    key: str | None = Field(default=None, pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", examples=["X-API-Key"])
    """Name of the header or query parameter, for api_key and custom_header."""
    location: Literal["header", "query"] = "header"
    """Where an api_key goes."""

    @model_validator(mode="after")
    def _complete(self) -> Auth:
        if self.type != "none" and self.secret_ref is None:
            raise ValueError(f"auth of type {self.type} needs secret_ref, the name of a secret")
        if self.type in ("api_key", "custom_header") and self.key is None:
            raise ValueError(f"auth of type {self.type} needs key, the name of the header or query parameter")
        return self


class RateLimit(_Given):
    """How often one domain is called, counted for the organization in each server process."""

    requests_per_minute: int | None = Field(default=None, ge=1, le=100_000)
    """Most requests a minute to one domain."""
    requests_per_hour: int | None = Field(default=None, ge=1, le=1_000_000)
    """Most requests an hour to one domain."""

    @property
    def rate(self) -> Rate:
        """The limits as the port takes them."""
        return Rate(self.requests_per_minute, self.requests_per_hour)


def check_reachable(url: LateUrl, allowed_domains: Sequence[str]) -> None:
    """Check what can be checked before a call. Raises SpecError for a domain list or constant URL that cannot work."""
    domains = Domains(allowed_domains)
    if url.constant is None:
        return
    parts = urlsplit(url.constant)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SpecError(f"url: {url.constant!r} is no http or https URL", code="parameter_invalid")
    if not domains.allow(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)):
        raise SpecError(f"url: {parts.hostname!r} is not among allowed_domains", code="domain_refused")


class Once:
    """Makes each thing once; those who ask for it meanwhile wait, and share its failure, too."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, asyncio.Lock] = {}
        self._made: dict[Hashable, Any] = {}

    async def of(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        """Return what `make` returned for the key, or raise the MixpeekError it raised."""
        async with self._locks.setdefault(key, asyncio.Lock()):
            if key not in self._made:
                try:
                    self._made[key] = await make()
                except MixpeekError as error:
                    self._made[key] = error
        found = self._made[key]
        if isinstance(found, MixpeekError):
            raise found
        return found  # type: ignore[no-any-return]


def needs(auth: Auth | None) -> tuple[Need, ...]:
    """Return the secret that authenticates a call."""
    return () if auth is None or auth.type == "none" else named_secret(auth.secret_ref, "auth", "secret_ref")


def named_secret(name: str | None, *location: str) -> tuple[Need, ...]:
    """Return the secret that the parameter at a location names, if it names one."""
    return () if name is None else (Need("secret", name, location),)


async def credentials(auth: Auth | None, context: Context) -> tuple[Credential, ...]:
    """Return what authenticates a call. Raises NotFoundError naming a secret that is not there."""
    if auth is None or auth.type == "none":
        return ()
    assert auth.secret_ref is not None
    value = (await context.secrets.value(context.scope.organization, auth.secret_ref)).strip()
    if auth.type == "bearer":
        return (Credential("header", "Authorization", f"Bearer {value}"),)
    if auth.type == "basic":
        if ":" not in value:
            raise SpecError(f"the secret {auth.secret_ref!r} does not hold username:password", code="secret_invalid")
        return (Credential("header", "Authorization", "Basic " + base64.b64encode(value.encode()).decode()),)
    assert auth.key is not None
    place = auth.location if auth.type == "api_key" else "header"
    return (Credential(place, auth.key, value),)


def applies(when: LateFilter | None, document: Mapping[str, Any], context: Context) -> bool:
    """Whether a stage's `when` holds for a document."""
    return when is None or matches(when.value({**context.names, "DOC": document}), document)


async def enriched(
    state: State,
    context: Context,
    work: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]],
    *,
    when: LateFilter | None,
    on_error: OnError,
    at_once: int = AT_ONCE,
) -> Documents:
    """Return `work` of every document that `when` holds for, in order; failures are told in warnings and statistics.

    Raises the first failure with `on_error` raise.
    """
    failures: list[MixpeekError] = []
    called = 0

    async def one(document: dict[str, Any]) -> dict[str, Any] | None:
        nonlocal called
        if not applies(when, document, context):
            return document
        called += 1
        try:
            return await work(document)
        except MixpeekError as error:
            if on_error == "raise":
                raise
            failures.append(error)
            return document if on_error == "skip" else None

    made = await each(state.documents, one, at_once=at_once)
    state.metadata.update(called=called, failed=len(failures))
    if failures:
        codes = sorted({failure.code for failure in failures})
        state.metadata["failures"] = {code: sum(item.code == code for item in failures) for code in codes}
        fate = "kept as they were" if on_error == "skip" else "removed"
        stage = context.names["STAGE"].get("name", "the stage")
        context.warnings.append(
            f"{stage}: {len(failures)} of {called} documents failed and were {fate}; the first: {failures[0].message}"
        )
    return [document for document in made if document is not None]
