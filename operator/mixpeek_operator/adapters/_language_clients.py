"""Requests of the language port in the terms of pydantic-ai, which speaks every provider's protocol.

Nothing here is read from the environment: keys and endpoints are given, or a provider's own endpoint is named.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import httpx2
from genai_prices import calc_price
from pydantic_ai.direct import model_request
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelServerError,
    ModelTimeoutError,
    ModelUnavailableError,
    UnexpectedModelBehavior,
)
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import Model, ModelRequestParameters, create_async_httpx2_client
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from mixpeek_operator.core.errors import (
    MixpeekError,
    RateLimitedError,
    RefusedError,
    SpecError,
    UnavailableError,
)
from mixpeek_operator.ports.language import Provider, Request

OWN_URL: Final[Mapping[Provider, str]] = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "google": "https://generativelanguage.googleapis.com",
}
ANSWER: Final = "answer"
"""The tool by which a model gives an answer that fits a schema."""
_PASSING: Final = (ModelRateLimitError, ModelUnavailableError, ModelServerError, ModelConnectionError)
_SHOWN: Final = 300
_MAX_CLIENTS: Final = 32
_MAX_TOKENS: Final = 4096
"""Of an answer that nobody set a limit for."""


class Clients:
    """Clients of models. They share connections, and are forgotten when there are many: `aclose` them together."""

    def __init__(self, timeout_s: float) -> None:
        self._http = create_async_httpx2_client(timeout=timeout_s)
        self._models: OrderedDict[tuple[str, ...], Model[Any]] = OrderedDict()

    async def model(self, provider: Provider, name: str, url: str | None, key: str | None) -> Model[Any]:
        """Return the client of a model at `url`, the provider's own when None."""
        mark = (provider, name, url or "", key or "")
        if mark not in self._models:
            # The first client of a provider imports its library, which takes seconds.
            made = await asyncio.to_thread(_model, provider, name, url, key, self._http)
            self._models[mark] = made
            if len(self._models) > _MAX_CLIENTS:
                self._models.popitem(last=False)
        self._models.move_to_end(mark)
        return self._models[mark]

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def _model(provider: Provider, name: str, url: str | None, key: str | None, http: httpx2.AsyncClient) -> Model[Any]:
    # Without a key or an address of ours the libraries would look for one in the environment.
    given, address = key or "none", url or OWN_URL[provider]
    if provider == "anthropic":
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        return AnthropicModel(name, provider=AnthropicProvider(api_key=given, base_url=address, http_client=http))
    if provider == "google":
        from pydantic_ai.models.google import GoogleModel
        from pydantic_ai.providers.google import GoogleProvider

        return GoogleModel(name, provider=GoogleProvider(api_key=given, base_url=address, http_client=http))
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

    if url is None:
        return OpenAIChatModel(name, provider=OpenAIProvider(api_key=given, base_url=address, http_client=http))
    compatible = OpenAICompatibleProvider("openai-compatible", base_url=url, api_key=key, http_client=http)
    return OpenAIChatModel(name, provider=compatible)


def conversation(request: Request) -> list[ModelMessage]:
    """Return the messages of a request; results of tools that follow each other are one message."""
    messages: list[ModelMessage] = []
    for message in request.messages:
        if message.role == "model":
            messages += ModelMessagesTypeAdapter.validate_json(message.native)
            continue
        part: UserPromptPart | ToolReturnPart
        if message.call is not None:
            part = ToolReturnPart(tool_name=message.call.name, content=message.text, tool_call_id=message.call.id)
        else:
            part = UserPromptPart(message.text)
        last = messages[-1] if messages else None
        if isinstance(last, ModelRequest):
            last.parts = [*last.parts, part]
        else:
            messages.append(ModelRequest(parts=[part], instructions=request.system or None))
    return messages


def native(response: ModelResponse) -> str:
    """Return a model's message as JSON, to be read back by `conversation`."""
    return ModelMessagesTypeAdapter.dump_json([response]).decode()


async def ask(model: Model[Any], messages: list[ModelMessage], request: Request, timeout_s: float) -> ModelResponse:
    """Make one request, without retries; `ours` reads what it raises."""
    # With a limit of its own a model streams long answers, where a timeout means something else.
    settings: ModelSettings = {
        "timeout": timeout_s,
        "max_retries": 0,
        "max_tokens": request.max_tokens or _MAX_TOKENS,
    }
    if request.temperature is not None:
        settings["temperature"] = request.temperature
    parameters = ModelRequestParameters(
        function_tools=[
            ToolDefinition(name=tool.name, description=tool.description, parameters_json_schema=dict(tool.parameters))
            for tool in request.tools
        ]
    )
    if request.schema is not None:
        parameters.output_mode = "tool"
        parameters.allow_text_output = False
        parameters.output_tools = [
            ToolDefinition(
                name=ANSWER,
                description="Gives the final answer.",
                parameters_json_schema=_wrapped(request.schema),
                kind="output",
            )
        ]
    return await model_request(model, messages, model_settings=settings, model_request_parameters=parameters)


def unwrapped(schema: Mapping[str, Any], arguments: Any) -> Any:
    """Return the answer in the arguments of the tool ANSWER."""
    if _is_object(schema) or not isinstance(arguments, Mapping):
        return arguments
    return arguments.get(ANSWER, arguments)


def _wrapped(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a tool are objects; what is none becomes a property of one."""
    if _is_object(schema):
        return dict(schema)
    inner = {key: value for key, value in schema.items() if key not in ("$defs", "definitions")}
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    return {"type": "object", "properties": {ANSWER: inner}, "required": [ANSWER], **shared}


def _is_object(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "object"


def corrected(messages: list[ModelMessage], response: ModelResponse, complaint: str) -> list[ModelMessage]:
    """Return the conversation with an answer and what is wrong with it."""
    calls = [part for part in response.parts if isinstance(part, ToolCallPart)]
    parts: list[Any] = [
        ToolReturnPart(tool_name=call.tool_name, content=complaint, tool_call_id=call.tool_call_id) for call in calls
    ]
    instructions = next((item.instructions for item in messages if isinstance(item, ModelRequest)), None)
    return [*messages, response, ModelRequest(parts=parts or [UserPromptPart(complaint)], instructions=instructions)]


def calls_of(response: ModelResponse) -> list[tuple[str, str, Any]]:
    """Return (id, name, arguments) of every call; arguments that are no JSON object stay text."""
    found = []
    for part in response.parts:
        if isinstance(part, ToolCallPart):
            arguments: Any = part.args if part.args is not None else {}
            if isinstance(arguments, str):
                try:
                    arguments = json.loads(arguments or "{}")
                except ValueError:
                    arguments = part.args
            found.append((part.tool_call_id, part.tool_name, arguments))
    return found


def text_of(response: ModelResponse) -> str:
    """Return what the model said."""
    return "".join(part.content for part in response.parts if isinstance(part, TextPart))


def cost_usd(provider: Provider, name: str, response: ModelResponse) -> Decimal | None:
    """Return the list price of a response in US dollars, None for a model without one."""
    try:
        return calc_price(response.usage, model_ref=name, provider_id=provider).total_price
    except (LookupError, ValueError):
        return None


def passing(error: Exception, attempt: int) -> bool:
    """Whether the same request may succeed later. What took too long is given one more chance only."""
    return isinstance(error, _PASSING) and not (isinstance(error, ModelTimeoutError) and attempt > 0)


def ours(error: Exception, name: str, where: str, key: str | None) -> MixpeekError:
    """Return our error for one of pydantic-ai's; `where` says what to check, `key` is cut out of what is shown."""
    if isinstance(error, ModelRateLimitError):
        return RateLimitedError(f"{name} asks to slow down; try again later", code="model_rate_limited")
    if isinstance(error, ModelConnectionError):
        return UnavailableError(
            f"{name} does not answer ({type(error.__cause__ or error).__name__}); check {where}",
            code="model_unreachable",
        )
    if isinstance(error, ModelUnavailableError | ModelServerError):
        status = f" with {error.status_code}" if isinstance(error, ModelHTTPError) else ""
        return UnavailableError(f"{name} failed{status}; try again later", code="model_unavailable")
    if isinstance(error, ModelContextWindowExceededError):
        return SpecError(f"the request is longer than {name} takes; send less of each document", code="model_overflow")
    if isinstance(error, UnexpectedModelBehavior) or not isinstance(error, ModelAPIError):
        return RefusedError(
            f"{name} gave an answer that cannot be used: {_said(error, key)}", code="model_answer_invalid"
        )
    why = "refused the request"
    if isinstance(error, ModelQuotaExceededError):
        why = "refused: the account's quota or credit is used up"
    elif isinstance(error, ModelAuthenticationError):
        why = "refused the key"
    elif isinstance(error, ModelNotFoundError):
        why = "is not known there"
    return RefusedError(f"{name} {why}; check {where}. It said: {_said(error, key)}", code="model_refused")


def _said(error: Exception, key: str | None) -> str:
    """The provider's own words, without the key that some providers repeat."""
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, Mapping) else None
    said = inner.get("message") if isinstance(inner, Mapping) else None
    text = said if isinstance(said, str) else str(error)
    return (text.replace(key, "…") if key else text)[:_SHOWN]
