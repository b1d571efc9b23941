"""Log lines: one format for our events and the libraries', and no secret in any."""

from __future__ import annotations

import io
import logging as standard
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import structlog

from mixpeek_operator.core import logging

_KEY = "sk_abcdefghijklmnop"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = standard.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_every_line_is_json(stream: io.StringIO) -> None:
    logging.configure("info", "json", stream)
    structlog.get_logger("ours").info("did it", count=3)
    structlog.get_logger("ours").debug("not shown")
    standard.getLogger("theirs").warning("careful with %s", "that")
    first, second = (orjson.loads(line) for line in stream.getvalue().splitlines())
    assert (first["event"], first["count"], first["level"]) == ("did it", 3, "info")
    assert (second["event"], second["logger"], second["level"]) == ("careful with that", "theirs", "warning")


class _Written(io.StringIO):
    """Counts how often it is written through."""

    times = 0

    def flush(self) -> None:
        self.times += 1


def test_what_is_logged_together_is_written_at_once_and_in_order(stream: io.StringIO) -> None:
    target = _Written()
    logging.configure("info", "json", target)
    log = structlog.get_logger("ours")
    log.info("before")
    with pytest.raises(ZeroDivisionError), logging.together():
        log.info("one")
        log.info("two")
        assert "one" not in target.getvalue()
        raise ZeroDivisionError
    log.info("after")
    assert [orjson.loads(line)["event"] for line in target.getvalue().splitlines()] == ["before", "one", "two", "after"]
    assert target.times == 3


@pytest.mark.parametrize("format", ["json", "console"])
def test_secrets_are_hidden_wherever_they_stand(stream: io.StringIO, format: str) -> None:
    logging.configure("debug", format, stream)
    log = structlog.get_logger("ours")
    log.info(f"sent Bearer {_KEY}", api_key="planted", nested={"password": "planted", "deep": [f"key {_KEY}"]})
    try:
        raise ValueError(f"the key {_KEY} is wrong")
    except ValueError:
        log.exception("failed")
        standard.getLogger("theirs").exception("failed with %s", _KEY)
    written = stream.getvalue()
    assert _KEY not in written
    assert "planted" not in written
    assert written.count("ValueError") >= 2


@pytest.mark.parametrize(
    ("name", "value", "hidden"),
    [
        ("authorization", "x", True),
        ("secret_value", "x", True),
        ("encryption_key", "x", True),
        ("llm_api_key", "x", True),
        ("next_page_token", "x", True),
        ("secret_name", "pay", False),
        ("key_id", "key_1", False),
        ("tokens", 12, False),
        ("token", None, False),
        ("path", "/v1/organizations/secrets/pay", False),
    ],
)
def test_what_counts_as_a_secret(name: str, value: Any, hidden: bool) -> None:
    assert (logging.hide_secrets(None, "info", {name: value})[name] != value) == hidden
