"""Language models on loopback: speaks the protocols of OpenAI, Anthropic and Google, and answers what it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """What a model answers: words, calls of tools, or an error."""

    text: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    """(tool, arguments)"""
    status: int = 200
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    tokens: tuple[int, int] = (100, 20)
    """Read and written."""
    body: Any = None
    """The whole body instead, as it is."""


def data(value: Any) -> Reply:
    """The final answer of a request with a schema."""
    return Reply(calls=[("answer", value)])


@dataclass
class Asked:
    """A request as the server understood it, the same for all protocols."""

    provider: str
    model: str
    key: str
    system: str
    messages: list[tuple[str, str]]
    """(role, text); results of tools have the role tool."""
    tools: dict[str, Any]
    """JSON schemas by name."""
    body: dict[str, Any]

    @property
    def prompt(self) -> str:
        """The first message."""
        return self.messages[0][1]


class Models:
    """The server. `script` is answered in order, its last entry again and again; `asked` is what came."""

    def __init__(self) -> None:
        self.script: list[Reply | Callable[[Asked], Reply]] = []
        self.asked: list[Asked] = []
        self._lock = threading.Lock()
        models = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, headers, answer = models._answer(self.path, dict(self.headers.items()), body)
                payload = json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, format: str, *args: Any) -> None:
                return None

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def settings(self, *providers: str) -> dict[str, Any]:
        """Settings that point the providers here, all three when none is named."""
        known: dict[str, dict[str, Any]] = {
            "openai": {"llm_base_url": f"{self.url}/v1", "llm_api_key": "sk-openai", "llm_model": "gpt-4o-mini"},
            "anthropic": {"anthropic_base_url": self.url, "anthropic_api_key": "sk-anthropic"},
            "google": {"google_base_url": self.url, "google_api_key": "sk-google"},
        }
        return {name: value for one in providers or known for name, value in known[one].items()}

    def _answer(
        self, path: str, headers: dict[str, str], body: dict[str, Any]
    ) -> tuple[int, dict[str, str], dict[str, Any]]:
        asked = _READ[_protocol(path)](path, {key.lower(): value for key, value in headers.items()}, body)
        with self._lock:
            self.asked.append(asked)
            entry = self.script[min(len(self.asked), len(self.script)) - 1]
        reply = entry(asked) if callable(entry) else entry
        if reply.status != 200:
            error = {
                "type": "error",
                "message": reply.text or "no",
                "code": reply.code or reply.status,
                "status": "ERROR",
            }
            return reply.status, reply.headers, {"type": "error", "error": error}
        return 200, reply.headers, reply.body or _WRITE[asked.provider](asked, reply)


def _protocol(path: str) -> str:
    if path.endswith("/chat/completions"):
        return "openai"
    if path.split("?")[0].endswith("/messages"):
        return "anthropic"
    assert path.endswith(":generateContent"), path
    return "google"


def _openai(path: str, headers: dict[str, str], body: dict[str, Any]) -> Asked:
    messages = [(item["role"], _text(item.get("content"))) for item in body["messages"]]
    return Asked(
        "openai",
        body["model"],
        headers["authorization"].removeprefix("Bearer "),
        "\n".join(text for role, text in messages if role == "system"),
        [message for message in messages if message[0] != "system"],
        {tool["function"]["name"]: tool["function"]["parameters"] for tool in body.get("tools", ())},
        body,
    )


def _anthropic(path: str, headers: dict[str, str], body: dict[str, Any]) -> Asked:
    messages: list[tuple[str, str]] = []
    for item in body["messages"]:
        parts = item["content"] if isinstance(item["content"], list) else [{"type": "text", "text": item["content"]}]
        for part in parts:
            if part["type"] == "tool_result":
                messages.append(("tool", _text(part["content"])))
            elif part["type"] == "text":
                messages.append((item["role"], part["text"]))
    key = headers.get("x-api-key") or headers["authorization"].removeprefix("Bearer ")
    tools = {tool["name"]: tool["input_schema"] for tool in body.get("tools", ())}
    return Asked("anthropic", body["model"], key, _text(body.get("system")), messages, tools, body)


def _google(path: str, headers: dict[str, str], body: dict[str, Any]) -> Asked:
    messages: list[tuple[str, str]] = []
    for item in body["contents"]:
        for part in item["parts"]:
            if "functionResponse" in part:
                messages.append(("tool", _text(part["functionResponse"]["response"])))
            elif "text" in part:
                messages.append((item["role"], part["text"]))
    tools = {
        function["name"]: function["parameters_json_schema"]
        for tool in body.get("tools", ())
        for function in tool["functionDeclarations"]
    }
    model = path.split("/models/")[1].removesuffix(":generateContent")
    system = _text(body.get("systemInstruction", {}).get("parts"))
    return Asked("google", model, headers["x-goog-api-key"], system, messages, tools, body)


def _text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list):
        return "".join(part if isinstance(part, str) else part.get("text", "") for part in content)
    return str(content.get("return_value", content.get("output", content)))


def _as_openai(asked: Asked, reply: Reply) -> dict[str, Any]:
    calls = [
        {
            "id": f"call_{index}",
            "type": "function",
            "function": {"name": name, "arguments": value if isinstance(value, str) else json.dumps(value)},
        }
        for index, (name, value) in enumerate(reply.calls)
    ]
    message = {"role": "assistant", "content": reply.text or None, **({"tool_calls": calls} if calls else {})}
    read, written = reply.tokens
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": asked.model,
        "choices": [{"index": 0, "finish_reason": "tool_calls" if calls else "stop", "message": message}],
        "usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written},
    }


def _as_anthropic(asked: Asked, reply: Reply) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": reply.text}] if reply.text else []
    content += [
        {"type": "tool_use", "id": f"toolu_{index}", "name": name, "input": value}
        for index, (name, value) in enumerate(reply.calls)
    ]
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "content": content,
        "stop_reason": "tool_use" if reply.calls else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": reply.tokens[0], "output_tokens": reply.tokens[1]},
    }


def _as_google(asked: Asked, reply: Reply) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"text": reply.text}] if reply.text else []
    parts += [{"functionCall": {"name": name, "args": value}} for name, value in reply.calls]
    read, written = reply.tokens
    return {
        "candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {
            "promptTokenCount": read,
            "candidatesTokenCount": written,
            "totalTokenCount": read + written,
        },
        "modelVersion": asked.model,
    }


_READ = {"openai": _openai, "anthropic": _anthropic, "google": _google}
_WRITE = {"openai": _as_openai, "anthropic": _as_anthropic, "google": _as_google}
