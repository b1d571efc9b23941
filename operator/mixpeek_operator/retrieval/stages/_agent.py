"""A conversation in which a language model calls tools until it has its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mixpeek_operator.core.errors import MixpeekError
from mixpeek_operator.ports.language import Answer, Message, Tool, ToolCall
from mixpeek_operator.retrieval.stages._language import Caller

_TOLD: Final = 12_000
"""Most characters of a tool's result that the model is told."""

Perform = Callable[[str, Mapping[str, Any]], Awaitable[str]]
"""Runs a tool, by name, with checked arguments; returns what the model is told."""


@dataclass(slots=True)
class Conversation:
    """What has happened so far; it stays readable when the conversation is cut short."""

    answer: Answer | None = None
    """The final answer; None while there is none."""
    turns: int = 0
    calls: list[dict[str, Any]] = field(default_factory=list)
    """Every call of a tool: {tool, arguments}, with error when it failed."""


async def converse(
    conversation: Conversation,
    caller: Caller,
    prompt: str,
    *,
    system: str,
    tools: Sequence[Tool],
    perform: Perform,
    max_turns: int,
    schema: Mapping[str, Any] | None = None,
) -> None:
    """Run the loop until the model answers, `max_turns` are over, or the execution's credits are spent.

    With a schema the last turn offers no tool, so that there is an answer. An error of a tool is told to the model.
    """
    messages = [Message("user", prompt)]
    while conversation.turns < max_turns and not caller.spent:
        conversation.turns += 1
        last = conversation.turns == max_turns and schema is not None
        answer = await caller.ask(messages, system=system, schema=schema, tools=() if last else tools)
        if not answer.calls:
            conversation.answer = answer
            return
        results = []
        for call in answer.calls:
            told = await _result(call, perform, conversation)
            results.append(Message("tool", told[:_TOLD], call=call))
        messages += [Message("model", native=answer.native), *results]


async def _result(call: ToolCall, perform: Perform, conversation: Conversation) -> str:
    made: dict[str, Any] = {"tool": call.name, "arguments": dict(call.arguments)}
    conversation.calls.append(made)
    try:
        return await perform(call.name, call.arguments)
    except MixpeekError as error:
        made["error"] = error.message
        return f"error: {error.message}"
