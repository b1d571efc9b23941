"""Responses in JSON, encoded once by orjson. Hot routes return these directly: FastAPI then adds nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY


def encode(content: Any) -> bytes:
    """Return `content` as JSON; not-a-number and infinity become null, dates ISO 8601."""
    return orjson.dumps(content, option=_OPTIONS)


class Json(Response):
    """A JSON answer: `return Json(payload)`."""

    media_type = "application/json"

    def __init__(self, content: Any = None, status_code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(content=content, status_code=status_code, headers=headers)

    def render(self, content: Any) -> bytes:
        """JSON that is encoded already (bytes) is sent as it is."""
        return content if isinstance(content, bytes) else encode(content)


class Yaml(Response):
    """A YAML answer; `text/yaml`, because that is the one spelling the public SDK decodes."""

    media_type = "text/yaml"
