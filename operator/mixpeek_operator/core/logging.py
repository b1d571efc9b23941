"""Logs: structured events, as JSON for machines and coloured lines for people, and never a secret."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import threading
from collections.abc import Iterator, MutableMapping
from functools import lru_cache
from typing import Any, TextIO

import orjson
import structlog

_SECRET_NAMES = re.compile(
    r"(?i)(^|_)(authorization|password|passphrase|token|secret|secret_value|api_key|encryption_key|private_key)$"
)
_SECRET_VALUES = re.compile(r"\bsk_[A-Za-z0-9]{12,}|(?i:bearer)\s+[^\s,;\"']{6,}")
_HIDDEN = "[hidden]"
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


def configure(level: str = "info", format: str = "auto", stream: TextIO | None = None) -> None:
    """Set up logging for this process: ours and every library's, in one format.

    `format` is json, console, or auto (console on a terminal). Called once, by the program that runs.
    """
    target = stream or sys.stderr
    number = _LEVELS.get(level.lower(), 20)
    console = format == "console" or (format == "auto" and target.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.MaybeTimeStamper(fmt="iso", utc=True),
    ]
    last: Any = (
        structlog.dev.ConsoleRenderer(colors=target.isatty()) if console else structlog.processors.JSONRenderer(_dumps)
    )
    # Tracebacks become text before secrets are hidden, and are never rendered with their local variables.
    rendering: list[Any] = [structlog.processors.format_exc_info, hide_secrets, last]
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=Lines(target),
        cache_logger_on_first_use=stream is None,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.INFO) if number > logging.DEBUG else number)
    for noisy in ("httpx", "httpcore", "uvicorn.access", "watchfiles"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class Lines:
    """Where lines go, as structlog's logger and the factory of it; those of several threads do not mix."""

    def __init__(self, target: TextIO) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._held: list[str] | None = None

    def __call__(self, *_: Any) -> Lines:
        return self

    def msg(self, line: str) -> None:
        """Write a line."""
        with self._lock:
            if self._held is None:
                print(line, file=self._target, flush=True)
            else:
                self._held.append(line)

    debug = info = warning = error = critical = exception = msg

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Write the lines of the block at its end, at once."""
        with self._lock:
            self._held = []
        try:
            yield
        finally:
            with self._lock:
                lines, self._held = self._held, None
                if lines:
                    print("\n".join(lines), file=self._target, flush=True)


def together() -> contextlib.AbstractContextManager[None]:
    """Write what is logged in the block at its end, at once: to write a line takes as long as to make two."""
    lines = structlog.get_config()["logger_factory"]
    return lines.together() if isinstance(lines, Lines) else contextlib.nullcontext()


def hide_secrets(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace values under secret-looking names, and keys and bearer tokens wherever they stand."""
    for name, value in event.items():
        if value is None or isinstance(value, bool | int | float):
            continue
        if _is_secret(name):
            event[name] = _HIDDEN
        else:
            event[name] = _hidden(value)
    return event


@lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    return _SECRET_NAMES.search(name) is not None


def _hidden(value: Any) -> Any:
    if isinstance(value, str):
        # Nearly no text has either in it, and to look for them takes a tenth of the pattern's time.
        if "sk_" in value or "bearer" in value.lower():
            return _SECRET_VALUES.sub(_HIDDEN, value)
        return value
    if isinstance(value, dict):
        return {
            key: _HIDDEN if isinstance(key, str) and _is_secret(key) else _hidden(item) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_hidden(item) for item in value]
    return value


def _dumps(event: Any, **options: Any) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
