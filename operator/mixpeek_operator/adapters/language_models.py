"""Language models over HTTP: OpenAI and what is compatible with it, Anthropic, Google.

The client library takes seconds to import; it is imported when it is first needed, beside the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, Final

import orjson
import structlog
from pydantic import SecretStr

from mixpeek_operator.core.errors import BadRequestError, RefusedError
from mixpeek_operator.core.json_schema import JsonSchema
from mixpeek_operator.core.settings import Settings
from mixpeek_operator.ports.language import PROVIDERS, Answer, ModelChoice, Provider, Request, ToolCall, Usage
from mixpeek_operator.ports.secrets import Secrets

_CORRECTIONS: Final = 2
"""Times a model is told what is wrong with its answer."""
_LONGEST_WAIT_S: Final = 30.0
_FAMILIES: Final[Mapping[Provider, re.Pattern[str]]] = {
    "openai": re.compile(r"gpt-|chatgpt-|o\d"),
    "anthropic": re.compile(r"claude-"),
    "google": re.compile(r"gemini-"),
}
_SETTING: Final[Mapping[Provider, str]] = {
    "openai": "MIXPEEK_LLM_API_KEY (for an endpoint of your own MIXPEEK_LLM_BASE_URL and MIXPEEK_LLM_MODEL)",
    "anthropic": "MIXPEEK_ANTHROPIC_API_KEY",
    "google": "MIXPEEK_GOOGLE_API_KEY",
}
_NO_MODEL: Final = "no_model_configured"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """A provider as the settings describe it."""

    url: str | None
    """None for the provider's own."""
    key: str | None
    model: str | None
    """What answers when no model is named."""

    @property
    def configured(self) -> bool:
        return self.url is not None or self.key is not None


@dataclass(frozen=True, slots=True)
class _Asked:
    """One model, ready to be asked, and how errors name it."""

    provider: Provider
    name: str
    key: str | None
    client: Any
    where: str
    """What to check when it refuses."""

    @property
    def title(self) -> str:
        return f"{self.provider}:{self.name}"


class HttpLanguageModels:
    """Implements `ports.language.LanguageModels` on the providers that the settings name."""

    def __init__(self, settings: Settings, secrets: Secrets, *, backoff_s: float = 0.5) -> None:
        self._settings = settings
        self._secrets = secrets
        self._backoff_s = backoff_s
        self._endpoints: dict[Provider, _Endpoint] = {
            "openai": _Endpoint(
                settings.llm_base_url,
                _plain(settings.llm_api_key),
                settings.llm_model or (None if settings.llm_base_url else "gpt-4o-mini"),
            ),
            "anthropic": _Endpoint(
                settings.anthropic_base_url, _plain(settings.anthropic_api_key), settings.anthropic_model
            ),
            "google": _Endpoint(settings.google_base_url, _plain(settings.google_api_key), settings.google_model),
        }
        self._places = asyncio.Semaphore(settings.llm_concurrency)
        self._library: Any = None
        self._clients: Any = None
        self._preloading: asyncio.Task[_Asked] | None = None

    def named(self, choice: ModelChoice) -> ModelChoice:
        """See the port; no provider is asked."""
        if find_spec("pydantic_ai") is None:
            raise BadRequestError("language models need a package: install mixpeek-operator[llm]", code=_NO_MODEL)
        configured = [provider for provider in PROVIDERS if self._endpoints[provider].configured]
        provider = (
            choice.provider or _family(choice.name) or self._settings.llm_provider or next(iter(configured), None)
        )
        if provider is None:
            raise BadRequestError(
                f"no language model is configured; set {_any_of(_SETTING.values())} and restart the server, or give "
                "api_key with provider",
                code=_NO_MODEL,
            )
        endpoint = self._endpoints[provider]
        if not endpoint.configured and choice.secret is None:
            other = f"; or give the provider that serves the model: {_any_of(configured)}" if configured else ""
            raise BadRequestError(
                f"the provider {provider} is not configured; set {_SETTING[provider]} and restart the server, or give "
                f"api_key{other}",
                code=_NO_MODEL,
            )
        name = choice.name or endpoint.model
        if name is None:
            raise BadRequestError(
                "no model is named; give model, or set MIXPEEK_LLM_MODEL and restart the server", code=_NO_MODEL
            )
        return replace(choice, provider=provider, name=name)

    async def complete(self, request: Request, *, organization: str) -> Answer:
        """See the port."""
        asked = await self._asked(self.named(request.model), organization)
        schema = None if request.schema is None else JsonSchema(request.schema)
        messages = self._library.conversation(request)
        usage = Usage()
        for corrections in range(_CORRECTIONS, -1, -1):
            response = await self._ask(asked, messages, request)
            usage += self._usage(asked, response)
            answer = _read(self._library, response, request, schema)
            if isinstance(answer, Answer):
                return replace(answer, model=asked.title, usage=usage)
            _log.info("the model's answer does not fit", model=asked.title, corrections_left=corrections)
            messages = self._library.corrected(messages, response, answer)
        raise RefusedError(
            f"{asked.title} gave no answer that fits in {_CORRECTIONS + 1} attempts: {answer:.400}",
            code="model_answer_invalid",
        )

    def preload(self) -> None:
        """Begin to import what the default model needs, if there is one, so that no first call waits for it."""
        with contextlib.suppress(BadRequestError):
            self._preloading = asyncio.create_task(self._asked(self.named(ModelChoice()), ""))

    async def close(self) -> None:
        """Close every connection."""
        if self._preloading is not None:
            self._preloading.cancel()
            await asyncio.wait([self._preloading])
        if self._clients is not None:
            await self._clients.aclose()

    async def _asked(self, choice: ModelChoice, organization: str) -> _Asked:
        assert choice.provider is not None and choice.name is not None
        endpoint = self._endpoints[choice.provider]
        key, where = endpoint.key, _SETTING[choice.provider]
        if choice.secret is not None:
            # Read for each call, so that a key that was replaced is replaced at once.
            key, where = await self._secrets.value(organization, choice.secret), f"the secret {choice.secret!r}"
        if self._library is None:
            library = await asyncio.to_thread(importlib.import_module, "mixpeek_operator.adapters._language_clients")
            if self._clients is None:
                self._clients = library.Clients(self._settings.llm_timeout_s)
            self._library = library
        client = await self._clients.model(choice.provider, choice.name, endpoint.url, key)
        return _Asked(choice.provider, choice.name, key, client, where)

    async def _ask(self, asked: _Asked, messages: Any, request: Request) -> Any:
        """One answer, with retries of what may pass; waits hold no place."""
        for attempt in range(self._settings.llm_retries + 1):
            try:
                async with self._places:
                    return await self._library.ask(asked.client, messages, request, self._settings.llm_timeout_s)
            except Exception as failure:
                # From what is no completion the libraries fall over in ways of their own.
                if not self._library.passing(failure, attempt) or attempt == self._settings.llm_retries:
                    raise self._library.ours(failure, asked.title, asked.where, asked.key) from None
                wait_s = self._backoff_s * 2**attempt * random.uniform(0.5, 1.0)  # noqa: S311  no secret
                wait_s = getattr(failure, "retry_after", None) or wait_s
                _log.info("asking the model again", model=asked.title, after=type(failure).__name__, wait_s=wait_s)
            await asyncio.sleep(min(wait_s, _LONGEST_WAIT_S))
        raise AssertionError("unreachable")

    def _usage(self, asked: _Asked, response: Any) -> Usage:
        taken, made = response.usage.input_tokens, response.usage.output_tokens
        usd = self._library.cost_usd(asked.provider, asked.name, response)
        if usd is not None:
            credits = float(usd) * self._settings.llm_credits_per_usd
        else:
            credits = (taken + made) * self._settings.llm_credits_per_million_tokens / 1e6
        return Usage(1, taken, made, credits)


def _read(library: Any, response: Any, request: Request, schema: JsonSchema | None) -> Answer | str:
    """The answer in a response, or what is wrong with it."""
    calls, text = library.calls_of(response), library.text_of(response)
    native = library.native(response)
    finals = [arguments for _, name, arguments in calls if name == library.ANSWER]
    if schema is not None and (finals or not calls):
        data = library.unwrapped(schema.body, finals[0]) if finals else _json(text)
        problems = schema.problems(data)
        if not problems:
            return Answer("", text, data, native=native)
        return "The answer does not fit the schema. Give it again, corrected:\n" + "\n".join(problems)
    if calls:
        known = {tool.name: JsonSchema(tool.parameters) for tool in request.tools}
        made = []
        for id, name, arguments in calls:
            if name not in known:
                return f"There is no tool {name!r}. There are: {', '.join(known) or 'none'}."
            problems = known[name].problems(arguments)
            if problems:
                return f"The arguments of {name} are wrong: {'; '.join(problems)}"
            made.append(ToolCall(id, name, arguments))
        return Answer("", text, calls=tuple(made), native=native)
    return Answer("", text, native=native) if text.strip() else "The answer is empty. Answer the question."


def _json(text: str) -> Any:
    """The value of an answer in text, which models give that do not use tools; the text itself when it is no JSON."""
    bare = text.strip().removeprefix("```json").removeprefix("```").removesuffix("```")
    try:
        return orjson.loads(bare)
    except orjson.JSONDecodeError:
        return text


def _family(name: str | None) -> Provider | None:
    """The provider whose model bears such a name."""
    if name is None:
        return None
    return next((provider for provider, pattern in _FAMILIES.items() if pattern.match(name)), None)


def _plain(key: SecretStr | None) -> str | None:
    return None if key is None else key.get_secret_value()


def _any_of(words: Any) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last
