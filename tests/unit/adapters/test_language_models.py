"""Language models against a local server that speaks the three protocols."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.servers.language import Asked, Models, Reply, data

from mixpeek_operator.adapters.language_models import HttpLanguageModels
from mixpeek_operator.core.errors import (
    BadRequestError,
    MixpeekError,
    NotFoundError,
    RateLimitedError,
    RefusedError,
    SpecError,
    UnavailableError,
)
from mixpeek_operator.core.settings import Settings
from mixpeek_operator.ports.language import Message, ModelChoice, Provider, Request, Tool

pytest.importorskip("pydantic_ai", reason="needs the extra llm")

PROVIDERS: list[Provider] = ["openai", "anthropic", "google"]
COLOUR = {"type": "object", "properties": {"colour": {"enum": ["red", "green"]}}, "required": ["colour"]}
LOOK = Tool("look", "Looks something up.", {"type": "object", "properties": {"word": {"type": "string"}}})


class Vault:
    def __init__(self, **values: str) -> None:
        self.values = values

    async def value(self, organization: str, name: str) -> str:
        if organization != "int_test" or name not in self.values:
            raise NotFoundError(f"there is no secret named {name!r}", code="secret_not_found")
        return self.values[name]

    async def names(self, organization: str) -> list[str]:
        return sorted(self.values)


@pytest.fixture
def models() -> Iterator[Models]:
    made = Models()
    yield made
    made.close()


@asynccontextmanager
async def language(vault: Vault | None = None, **settings: Any) -> AsyncIterator[HttpLanguageModels]:
    made = HttpLanguageModels(Settings(**settings), vault or Vault(), backoff_s=0.0)
    try:
        yield made
    finally:
        await made.close()


def ask(text: str = "hi", **options: Any) -> Request:
    return Request((Message("user", text),), **options)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_an_answer_in_words(models: Models, provider: Provider) -> None:
    models.script = [Reply("hello")]
    async with language(**models.settings()) as one:
        request = ask("Say hello.", model=ModelChoice(provider), system="Be brief.", temperature=0.0, max_tokens=77)
        answer = await one.complete(request, organization="int_test")
    assert (answer.text, answer.data, answer.calls) == ("hello", None, ())
    assert answer.model == f"{provider}:{models.asked[0].model}"
    assert (answer.usage.calls, answer.usage.input_tokens, answer.usage.output_tokens) == (1, 100, 20)
    assert answer.usage.credits > 0
    (asked,) = models.asked
    assert (asked.provider, asked.key, asked.system) == (provider, f"sk-{provider}", "Be brief.")
    assert asked.messages == [("user", "Say hello.")]
    assert not asked.tools
    assert "77" in str(asked.body)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_an_answer_that_fits_a_schema(models: Models, provider: Provider) -> None:
    models.script = [data({"colour": "blue"}), data({"colour": "red"})]
    async with language(**models.settings()) as one:
        answer = await one.complete(ask(model=ModelChoice(provider), schema=COLOUR), organization="int_test")
    assert answer.data == {"colour": "red"}
    assert answer.usage.calls == 2
    assert answer.usage.input_tokens == 200
    first, second = models.asked
    assert first.tools.keys() == {"answer"}
    assert "colour" in first.tools["answer"]["properties"]
    assert "'blue' is not one of" in second.messages[-1][1]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("value", ["text", 7, ["a"], {"a": 1}, True])
async def test_a_schema_of_any_type(models: Models, provider: Provider, value: Any) -> None:
    types = {str: "string", int: "integer", list: "array", dict: "object", bool: "boolean"}
    schema: dict[str, Any] = {"type": types[type(value)], "$defs": {"x": {"type": "string"}}}
    if schema["type"] == "array":
        schema["items"] = {"$ref": "#/$defs/x"}
    models.script = [data(value if isinstance(value, dict) else {"answer": value})]
    async with language(**models.settings()) as one:
        answer = await one.complete(ask(model=ModelChoice(provider), schema=schema), organization="int_test")
    assert answer.data == value


@pytest.mark.parametrize("text", ['{"colour": "red"}', '```json\n{"colour": "red"}\n```'])
async def test_json_in_words_counts_as_an_answer(models: Models, text: str) -> None:
    models.script = [Reply(text)]
    async with language(**models.settings("openai")) as one:
        answer = await one.complete(ask(schema=COLOUR), organization="int_test")
    assert answer.data == {"colour": "red"}


async def test_a_model_that_never_fits_is_refused(models: Models) -> None:
    models.script = [Reply("I would say red.")]
    async with language(**models.settings("openai")) as one:
        with pytest.raises(RefusedError, match="no answer that fits in 3 attempts") as caught:
            await one.complete(ask(schema=COLOUR), organization="int_test")
    assert caught.value.code == "model_answer_invalid"
    assert len(models.asked) == 3


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_conversation_with_tools(models: Models, provider: Provider) -> None:
    models.script = [
        Reply("Let me see.", calls=[("look", {"word": "a"}), ("look", {"word": "b"})]),
        data({"colour": "green"}),
    ]
    async with language(**models.settings()) as one:
        request = ask("Which?", model=ModelChoice(provider), tools=(LOOK,), schema=COLOUR, system="Look.")
        first = await one.complete(request, organization="int_test")
        assert [call.arguments for call in first.calls] == [{"word": "a"}, {"word": "b"}]
        results = tuple(Message("tool", f"found {call.arguments['word']}", call=call) for call in first.calls)
        history = (*request.messages, Message("model", native=first.native), *results)
        second = await one.complete(
            Request(history, request.model, request.system, COLOUR, (LOOK,)), organization="int_test"
        )
    assert second.data == {"colour": "green"}
    asked = models.asked[1]
    assert asked.system == "Look."
    assert [message for message in asked.messages if message[1]] == [
        ("user", "Which?"),
        ("model" if provider == "google" else "assistant", "Let me see."),
        ("tool", "found a"),
        ("tool", "found b"),
    ]
    assert asked.tools.keys() == {"look", "answer"}


async def test_a_call_of_no_tool_or_with_wrong_arguments_is_told(models: Models) -> None:
    tool = Tool("look", "", {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]})
    models.script = [
        Reply(calls=[("lock", {})]),
        Reply(calls=[("look", '{"word": ')]),
        Reply(calls=[("look", {"word": "x"})]),
    ]
    async with language(**models.settings("openai")) as one:
        answer = await one.complete(ask(tools=(tool,)), organization="int_test")
    assert answer.calls[0].arguments == {"word": "x"}
    assert "no tool 'lock'" in models.asked[1].messages[-1][1]
    assert "arguments of look are wrong" in models.asked[2].messages[-1][1]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("status", [429, 500, 503, 529])
async def test_what_may_pass_is_tried_again(models: Models, provider: Provider, status: int) -> None:
    models.script = [Reply(status=status), Reply(status=status, headers={"Retry-After": "0"}), Reply("at last")]
    async with language(**models.settings(), llm_retries=2) as one:
        answer = await one.complete(ask(model=ModelChoice(provider)), organization="int_test")
    assert answer.text == "at last"
    assert len(models.asked) == 3


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    ("status", "error", "calls"),
    [
        (429, RateLimitedError, 2),
        (503, UnavailableError, 2),
        (400, RefusedError, 1),
        (401, RefusedError, 1),
        (404, RefusedError, 1),
    ],
)
async def test_what_does_not_pass_is_an_error(
    models: Models, provider: Provider, status: int, error: type[MixpeekError], calls: int
) -> None:
    models.script = [Reply(f"bad key sk-{provider}", status=status)]
    async with language(**models.settings(), llm_retries=1) as one:
        with pytest.raises(error) as caught:
            await one.complete(ask(model=ModelChoice(provider)), organization="int_test")
    assert len(models.asked) == calls
    assert provider in str(caught.value)
    assert f"sk-{provider}" not in repr(caught.value) + str(caught.value.details)
    assert caught.value.__cause__ is None
    if error is RefusedError:
        setting = {"openai": "MIXPEEK_LLM_API_KEY"}.get(provider, f"MIXPEEK_{provider.upper()}_API_KEY")
        assert setting in str(caught.value)


async def test_an_overflow_is_the_callers(models: Models) -> None:
    models.script = [Reply("too long", status=400, code="context_length_exceeded")]
    async with language(**models.settings("openai")) as one:
        with pytest.raises(SpecError, match="longer than openai:gpt-4o-mini takes"):
            await one.complete(ask(), organization="int_test")


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_what_takes_too_long_is_asked_twice(models: Models, provider: Provider) -> None:
    go_on = threading.Event()

    def held(asked: Asked) -> Reply:
        go_on.wait(60)
        return Reply("late")

    models.script = [held]
    try:
        async with language(**models.settings(), llm_timeout_s=0.5) as one:
            with pytest.raises(UnavailableError, match="does not answer"):
                await one.complete(ask(model=ModelChoice(provider)), organization="int_test")
    finally:
        go_on.set()
    assert len(models.asked) == 2


async def test_nobody_there(models: Models) -> None:
    async with language(llm_base_url="http://127.0.0.1:9/v1", llm_model="m", llm_retries=1) as one:
        with pytest.raises(UnavailableError, match="does not answer") as caught:
            await one.complete(ask(), organization="int_test")
    assert "MIXPEEK_LLM_BASE_URL" in str(caught.value)


async def test_answers_that_are_no_completion(models: Models) -> None:
    models.script = [Reply(body={"hello": "world"})]
    async with language(**models.settings()) as one:
        for provider in PROVIDERS:
            with pytest.raises(RefusedError) as caught:
                await one.complete(ask(model=ModelChoice(provider)), organization="int_test")
            assert caught.value.code == "model_answer_invalid"


async def test_a_key_of_ones_own(models: Models) -> None:
    models.script = [Reply("ok")]
    vault = Vault(mine="sk-mine")
    async with language(vault, anthropic_base_url=models.url) as one:
        choice = ModelChoice("anthropic", secret="mine")
        await one.complete(ask(model=choice), organization="int_test")
        vault.values["mine"] = "sk-new"
        await one.complete(ask(model=choice), organization="int_test")
        with pytest.raises(NotFoundError, match="'other'"):
            await one.complete(ask(model=ModelChoice("anthropic", secret="other")), organization="int_test")
        with pytest.raises(NotFoundError):
            await one.complete(ask(model=choice), organization="int_other")
        models.script = [Reply("wrong: sk-new", status=401)]
        with pytest.raises(RefusedError, match="the secret 'mine'") as caught:
            await one.complete(ask(model=choice), organization="int_test")
    assert [asked.key for asked in models.asked[:2]] == ["sk-mine", "sk-new"]
    assert "sk-new" not in str(caught.value)


async def test_preloading_may_be_cut_short(models: Models) -> None:
    models.script = [Reply("ok")]
    async with language(**models.settings("openai")) as one:
        one.preload()
        await one.complete(ask(), organization="int_test")
    async with language(**models.settings("google")) as one:
        one.preload()
    async with language() as one:
        one.preload()


async def test_no_more_calls_at_once_than_set(models: Models) -> None:
    loop, two, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def held(asked: Asked) -> Reply:
        if len(models.asked) >= 2:
            loop.call_soon_threadsafe(two.set)
        go_on.wait(60)
        return Reply("ok")

    models.script = [held]
    async with language(**models.settings("openai"), llm_concurrency=2) as one:
        calls = [asyncio.create_task(one.complete(ask(str(index)), organization="int_test")) for index in range(12)]
        await two.wait()
        # Time for a third one to come, if it could.
        await asyncio.sleep(0.3)
        at_once = len(models.asked)
        go_on.set()
        await asyncio.gather(*calls)
    assert (at_once, len(models.asked)) == (2, 12)


NAMED: list[tuple[dict[str, Any], ModelChoice, str]] = [
    ({"llm_api_key": "k"}, ModelChoice(), "openai:gpt-4o-mini"),
    ({"anthropic_api_key": "k"}, ModelChoice(), "anthropic:claude-haiku-4-5"),
    ({"google_api_key": "k"}, ModelChoice(), "google:gemini-2.5-flash"),
    ({"llm_base_url": "http://x", "llm_model": "llama"}, ModelChoice(), "openai:llama"),
    ({"llm_api_key": "k", "google_api_key": "k", "llm_provider": "google"}, ModelChoice(), "google:gemini-2.5-flash"),
    ({"llm_api_key": "k", "anthropic_api_key": "k"}, ModelChoice(name="claude-x"), "anthropic:claude-x"),
    ({"llm_base_url": "http://x", "google_api_key": "k"}, ModelChoice(name="gemini-x"), "google:gemini-x"),
    ({"llm_base_url": "http://x", "google_api_key": "k"}, ModelChoice(name="qwen3"), "openai:qwen3"),
    ({"llm_base_url": "http://x"}, ModelChoice("openai", "claude-x"), "openai:claude-x"),
    ({}, ModelChoice("anthropic", "claude-x", "mine"), "anthropic:claude-x"),
    ({}, ModelChoice(name="gpt-4o", secret="mine"), "openai:gpt-4o"),
]


@pytest.mark.parametrize(("settings", "choice", "expected"), NAMED)
def test_which_model_answers(settings: dict[str, Any], choice: ModelChoice, expected: str) -> None:
    named = HttpLanguageModels(Settings(**settings), Vault()).named(choice)
    assert f"{named.provider}:{named.name}" == expected
    assert named.secret == choice.secret


@pytest.mark.parametrize(
    ("settings", "choice", "said"),
    [
        ({}, ModelChoice(), "MIXPEEK_ANTHROPIC_API_KEY"),
        ({}, ModelChoice("google"), "MIXPEEK_GOOGLE_API_KEY"),
        ({"google_api_key": "k"}, ModelChoice(name="gpt-4o"), "or give the provider that serves the model: google"),
        ({"llm_base_url": "http://x"}, ModelChoice(), "MIXPEEK_LLM_MODEL"),
    ],
)
def test_what_nobody_configured_says_what_to_set(settings: dict[str, Any], choice: ModelChoice, said: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        HttpLanguageModels(Settings(**settings), Vault()).named(choice)
    assert said in str(caught.value)
    assert caught.value.code == "no_model_configured"


async def test_keys_of_the_environment_are_not_used(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.setenv(name, "sk-environment")
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "GOOGLE_GEMINI_BASE_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    models.script = [Reply("ok")]
    urls = {name: value for name, value in models.settings().items() if not name.endswith("key")}
    async with language(**urls) as one:
        for provider in PROVIDERS:
            await one.complete(ask(model=ModelChoice(provider)), organization="int_test")
    assert "sk-environment" not in str([(asked.key, asked.body) for asked in models.asked])


async def test_a_price_that_is_not_known_counts_by_tokens(models: Models) -> None:
    models.script = [Reply("ok", tokens=(900, 100))]
    settings = {**models.settings("openai"), "llm_credits_per_million_tokens": 500.0, "llm_credits_per_usd": 10_000.0}
    async with language(**settings) as one:
        unknown = await one.complete(ask(model=ModelChoice(name="my-llama")), organization="int_test")
        dear = await one.complete(ask(model=ModelChoice(name="gpt-4o")), organization="int_test")
        cheap = await one.complete(ask(model=ModelChoice(name="gpt-4o-mini")), organization="int_test")
    assert unknown.usage.credits == pytest.approx(0.5)
    assert dear.usage.credits > cheap.usage.credits > 0
