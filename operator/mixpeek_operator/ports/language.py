"""Port: language models. One call asks for one completion: text, data that fits a JSON schema, or calls of tools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

Provider = Literal["openai", "anthropic", "google"]
PROVIDERS: Final[tuple[Provider, ...]] = ("openai", "anthropic", "google")


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Which model a caller asks for; what it leaves open is the server's."""

    provider: Provider | None = None
    name: str | None = None
    secret: str | None = None
    """Name of the organization's secret that holds the key; the server's own key when None."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may ask for."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    """JSON schema of its arguments, an object."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What the model asks a tool for."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation: of the user, of the model, or the result of a tool."""

    role: Literal["user", "model", "tool"]
    text: str = ""
    call: ToolCall | None = None
    """Of a tool's result: the call it answers."""
    native: str = ""
    """Of the model: `Answer.native`, whole."""


@dataclass(frozen=True, slots=True)
class Request:
    """A completion to ask for. `messages` starts with one of the user."""

    messages: tuple[Message, ...]
    model: ModelChoice = ModelChoice()
    system: str = ""
    schema: Mapping[str, Any] | None = None
    """JSON schema that the final answer has to fit; text when None."""
    tools: tuple[Tool, ...] = ()
    temperature: float | None = None
    max_tokens: int | None = None
    """Most tokens of the answer."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What calls took."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    credits: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.credits + other.credits,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """A completion: calls of tools, or a final answer as `data` (with a schema) or `text`. Plain data all through."""

    model: str
    """`<provider>:<name>` of the model that answered."""
    text: str = ""
    data: Any = None
    calls: tuple[ToolCall, ...] = ()
    usage: Usage = field(default_factory=Usage)
    native: str = ""
    """The model's message as its provider wants it back in the next request of the conversation."""


class LanguageModels(Protocol):
    """The models of every provider that is configured. An answer with a schema was checked against it.

    Two requests are the same call when `named(request.model)`, the organization and every other field of the request
    are equal; at temperature 0 a cache may answer the second one.
    """

    def named(self, choice: ModelChoice) -> ModelChoice:
        """The choice with its provider and name filled in.

        Raises BadRequestError `no_model_configured`, saying what to set, when nothing could answer it.
        """
        ...

    async def complete(self, request: Request, *, organization: str) -> Answer:
        """Ask; wait for a free place, retry what may pass, and ask again when an answer does not fit the schema.

        Raises BadRequestError when no model is configured, SpecError when the request is more than the model takes,
        RateLimitedError, UnavailableError, and RefusedError when the provider refuses or never answers to the schema.
        `usage` counts every attempt that was answered.
        """
        ...

    async def close(self) -> None: ...
