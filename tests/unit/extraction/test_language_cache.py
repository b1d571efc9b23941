"""Answers of language models are asked for once, and only where the second answer would be the same."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from mixpeek_operator.adapters.memory_cache import MemoryCache
from mixpeek_operator.core.clock import SystemClock
from mixpeek_operator.core.errors import UnavailableError
from mixpeek_operator.extraction.language import CachedLanguageModels
from mixpeek_operator.ports.language import Answer, Message, ModelChoice, Request, Tool, ToolCall, Usage

ASK = Request((Message("user", "is it red?"),), temperature=0)


class Counting:
    """Stands where the adapter stands; that one is tested against servers of the real protocols."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Request]] = []
        self.error: UnavailableError | None = None

    def named(self, choice: ModelChoice) -> ModelChoice:
        return replace(choice, provider=choice.provider or "openai", name=choice.name or "small")

    async def complete(self, request: Request, *, organization: str) -> Answer:
        self.asked.append((organization, request))
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        call = ToolCall("1", "find", {"query": "red"})
        return Answer("openai:small", f"answer {len(self.asked)}", {"a": 1}, (call,), Usage(1, 10, 5, 0.5), "{}")

    async def close(self) -> None: ...


class Away:
    """A cache that is away."""

    def __getattr__(self, name: str) -> Any:
        async def fail(*_: Any, **__: Any) -> Any:
            raise UnavailableError("away")

        return fail


def models(cache: Any = None) -> tuple[CachedLanguageModels, Counting]:
    inner = Counting()
    return CachedLanguageModels(inner, cache or MemoryCache(1_000_000, SystemClock())), inner


async def test_the_second_answer_is_the_first_one_and_costs_nothing() -> None:
    cached, inner = models()
    first = await cached.complete(ASK, organization="o")
    named = replace(ASK, model=ModelChoice("openai", "small"))
    for again in (ASK, named):
        second = await cached.complete(again, organization="o")
        assert second == replace(first, usage=Usage())
    assert first.usage.credits == 0.5 and len(inner.asked) == 1
    await cached.close()


@pytest.mark.parametrize(
    "other",
    [
        replace(ASK, messages=(Message("user", "is it blue?"),)),
        replace(ASK, system="be brief"),
        replace(ASK, schema={"type": "object"}),
        replace(ASK, tools=(Tool("find", "", {}),)),
        replace(ASK, max_tokens=5),
        replace(ASK, model=ModelChoice("anthropic")),
        replace(ASK, model=ModelChoice(secret="mine")),
    ],
)
async def test_any_difference_is_another_question(other: Request) -> None:
    cached, inner = models()
    for request in (ASK, other, ASK, other):
        await cached.complete(request, organization="o")
    assert len(inner.asked) == 2
    await cached.complete(ASK, organization="another")
    assert len(inner.asked) == 3


@pytest.mark.parametrize(
    "request_",
    [
        replace(ASK, temperature=None),
        replace(ASK, temperature=0.7),
    ],
)
async def test_what_may_come_out_differently_is_asked_again(request_: Request) -> None:
    cached, inner = models()
    for _ in range(2):
        await cached.complete(request_, organization="o")
    assert len(inner.asked) == 2


async def test_equal_questions_at_the_same_time_are_asked_once() -> None:
    cached, inner = models()
    tasks = [asyncio.create_task(cached.complete(ASK, organization="o")) for _ in range(50)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert {answer.text for answer in answers[1:] if isinstance(answer, Answer)} == {"answer 1"}
    assert len(inner.asked) == 1


async def test_failures_are_told_and_not_kept() -> None:
    cached, inner = models()
    inner.error = UnavailableError("busy")
    failed = await asyncio.gather(*(cached.complete(ASK, organization="o") for _ in range(3)), return_exceptions=True)
    assert all(isinstance(error, UnavailableError) for error in failed) and len(inner.asked) == 1
    inner.error = None
    assert (await cached.complete(ASK, organization="o")).text == "answer 2"


async def test_a_cache_that_is_away_fails_no_question() -> None:
    cached, _ = models(Away())
    assert (await cached.complete(ASK, organization="o")).text == "answer 1"
    assert (await cached.complete(ASK, organization="o")).text == "answer 2"
