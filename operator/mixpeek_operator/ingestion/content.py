"""What a client may write as the data of a blob: plain text, a data URI, base64 or a URL. Pure."""

from __future__ import annotations

import base64
import binascii
import mimetypes
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson

from mixpeek_operator.core.errors import Problem, SpecError

_TEXTUAL = frozenset({"text", "string", "json", "document"})
_URL = re.compile(r"^https?://[^\s]+$", re.IGNORECASE)
_FOREIGN = re.compile(r"^(s3|gs|gcs|az|azure|ftp|file|abfs)://", re.IGNORECASE)
_BASE64 = re.compile(r"^[A-Za-z0-9+/]+={0,2}$")
_DATA_URI = re.compile(r"^data:(?P<mime>[^;,]*)(?P<parameters>(;[^;,]*)*),(?P<body>.*)$", re.DOTALL | re.IGNORECASE)
_DEFAULT_MIME = {
    "text": "text/plain; charset=utf-8",
    "string": "text/plain; charset=utf-8",
    "json": "application/json",
    "object": "application/json",
    "array": "application/json",
    "pdf": "application/pdf",
}


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of a blob and what they are."""

    data: bytes
    mime_type: str


@dataclass(frozen=True, slots=True)
class Link:
    """A blob that has to be fetched first."""

    url: str


@dataclass(frozen=True, slots=True)
class Value:
    """A blob whose data is a JSON value rather than a file."""

    value: Any


def read(kind: str, data: Any, *, where: str) -> Content | Link | Value:
    """Return what `data` of a blob of type `kind` stands for.

    Text that reads as base64 of printable UTF-8 is taken as base64; any other text stands for itself. Raises
    SpecError naming `where` when a file is neither a URL, a data URI nor base64.
    """
    kind = kind.lower()
    if not isinstance(data, str):
        if kind in ("image", "audio", "video", "pdf", "excel", "gif", "binary", "file"):
            raise _refused(where, f"{kind} data is a URL, a data URI or base64, not {type(data).__name__}")
        return Value(data)
    text = data.strip()
    if _URL.match(text):
        return Link(text)
    if match := _DATA_URI.match(text):
        return _data_uri(match, where)
    if _FOREIGN.match(text) and not any(char.isspace() for char in text):
        scheme = text.split(":", 1)[0]
        raise _refused(where, f"{scheme}:// cannot be read from here; use an http(s) URL, an upload or base64")
    if (kind in _DEFAULT_MIME and kind != "pdf") or kind in _TEXTUAL:
        decoded = _printable(text)
        mime = _DEFAULT_MIME.get(kind, "text/plain; charset=utf-8")
        return Content(decoded if decoded is not None else data.encode(), mime)
    if kind in ("number", "integer", "float", "boolean", "date", "datetime"):
        return Value(data)
    return Content(_base64(text, where, kind), _DEFAULT_MIME.get(kind, "application/octet-stream"))


def value_of(kind: str, data: bytes, mime_type: str | None) -> Any:
    """Return the bytes of a stored blob as an extractor takes them: text, parsed JSON, or the bytes."""
    mime = (mime_type or "").split(";")[0].strip().lower()
    if kind in ("json", "object", "array") or mime == "application/json":
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise _refused("blob", f"is not JSON: {error}") from error
    if kind in _TEXTUAL or mime.startswith("text/"):
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise _refused("blob", f"is not UTF-8 text (byte {error.start} cannot be decoded)") from error
    return data


def kind_of(mime_type: str, filename: str = "") -> str:
    """Return the blob type that a MIME type stands for, e.g. `image` for `image/png`."""
    mime = mime_type.split(";")[0].strip().lower()
    if mime in ("", "application/octet-stream"):
        mime = mimetypes.guess_type(filename)[0] or mime
    family = mime.split("/")[0]
    if family in ("image", "audio", "video"):
        return family
    if mime == "application/pdf":
        return "pdf"
    if "spreadsheet" in mime or "ms-excel" in mime:
        return "excel"
    return "text" if family == "text" or mime == "application/json" else "binary"


def _data_uri(match: re.Match[str], where: str) -> Content:
    mime = match["mime"] or "text/plain"
    if "base64" in match["parameters"].lower():
        return Content(_base64(match["body"], where, "data URI"), mime)
    return Content(unquote_to_bytes(match["body"]), mime)


def _base64(text: str, where: str, kind: str) -> bytes:
    compact = "".join(text.split())
    if not compact:
        raise _refused(where, f"{kind} data is empty")
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refused(where, f"{kind} data is neither a URL, a data URI nor base64") from error


def _printable(text: str) -> bytes | None:
    if len(text) < 16 or len(text) % 4 or not _BASE64.match(text):
        return None
    try:
        decoded = base64.b64decode(text, validate=True)
        readable = decoded.decode("utf-8")
    except (binascii.Error, ValueError):
        return None
    return decoded if all(char.isprintable() or char in "\r\n\t" for char in readable) else None


def _refused(where: str, message: str) -> SpecError:
    return SpecError.of([Problem("invalid_blob", f"{where}: {message}", location=(where,))])
