"""A manifest as it comes over HTTP: form field, file part, or the body itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from mixpeek_operator.api import bodies
from mixpeek_operator.core.errors import BadRequestError, Problem, SpecError, TooLargeError

_FIELD = "manifest_file"
_MAX_FILES = 500
_MAX_FIELDS = 50


@dataclass(frozen=True, slots=True)
class ManifestUpload:
    """The manifest's files, and the values of its declared parameters."""

    files: tuple[tuple[str | None, bytes], ...]
    """(file name as the client gave it, content); one entry for a plain field or a raw body."""
    values: dict[str, Any]


async def read_manifest(request: Request, *, max_bytes: int) -> ManifestUpload:
    """Return the manifest of a request.

    The public SDK sends the text as a plain form field, curl -F as a file part, curl --data-binary as the body.
    BadRequestError when there is none, TooLargeError when a file is over `max_bytes`.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        upload = await _form(request, max_bytes)
    else:
        raw = await request.body()
        if kind == "application/x-www-form-urlencoded" and raw.startswith(_FIELD.encode() + b"="):
            upload = await _form(request, max_bytes)
        else:
            upload = ManifestUpload(((None, raw),) if raw.strip() else (), {})
    if not upload.files:
        raise BadRequestError(
            f"send the manifest as the form field or file {_FIELD!r} (curl -F {_FIELD}=@mixpeek.yaml), "
            "or as the body itself",
            code="manifest_missing",
        )
    for name, content in upload.files:
        if len(content) > max_bytes:
            raise TooLargeError(
                f"{name or 'the manifest'} is over the limit of {max_bytes} bytes",
                details={"limit_bytes": max_bytes},
            )
    return upload


async def _form(request: Request, max_bytes: int) -> ManifestUpload:
    files: list[tuple[str | None, bytes]] = []
    values: dict[str, Any] = {}
    try:
        form = await request.form(max_files=_MAX_FILES, max_fields=_MAX_FIELDS, max_part_size=max_bytes)
    except HTTPException as error:
        raise _unreadable(str(error.detail), max_bytes) from error
    try:
        for field, value in form.multi_items():
            if field == _FIELD:
                if isinstance(value, UploadFile):
                    files.append((value.filename or None, await value.read()))
                else:
                    files.append((None, value.encode()))
            elif field == "parameters":
                text = value if isinstance(value, str) else (await value.read()).decode(errors="replace")
                values = _values(text)
    finally:
        await form.close()
    return ManifestUpload(tuple(item for item in files if item[1].strip()), values)


def _unreadable(why: str, max_bytes: int) -> BadRequestError | TooLargeError:
    if "maximum size" in why:
        return TooLargeError(f"the manifest is over the limit of {max_bytes} bytes", details={"limit_bytes": max_bytes})
    return BadRequestError(f"the form cannot be read: {why}", code="form_invalid")


def _values(text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        values = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise SpecError.of([_parameters_problem(f"must be a JSON object: {error}")]) from error
    if bodies.too_deep(values):
        raise SpecError.of([_parameters_problem(f"are nested deeper than {bodies.MAX_DEPTH} levels")])
    if not isinstance(values, dict):
        raise SpecError.of([_parameters_problem("must be a JSON object of name and value")])
    return values


def _parameters_problem(message: str) -> Problem:
    return Problem("parameters_invalid", f"parameters {message}", location=("body", "parameters"))
