"""Templates: compiled once, rendered many times.

compile_text("{{INPUT.limit * 2}}").render({"INPUT": {"limit": 5}}) == 10      # one expression keeps its type
compile_text("about {{INPUT.topic}}").render({"INPUT": {}}) == "about "        # what is missing is empty text
compile_json('{"title": "{{DOC.title}}"}').render({"DOC": {"title": 'a "b"'}}) == {"title": 'a "b"'}
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import orjson

from mixpeek_operator.retrieval.templating.errors import TemplateError
from mixpeek_operator.retrieval.templating.expressions import MAX_SOURCE, Evaluate, Frame, parse_expression
from mixpeek_operator.retrieval.templating.source import rewrite, rewrite_blocks, single_braces, split
from mixpeek_operator.retrieval.templating.statements import Compiler, parse_template
from mixpeek_operator.retrieval.templating.values import MISSING, Literal, plain, to_json, to_text


class Template:
    """A compiled template; `render` may be called from anywhere, as often as needed."""

    __slots__ = ("_run", "namespaces", "paths", "source", "whole")

    def __init__(self, source: str, run: Callable[[Frame], Any], compiler: Compiler, *, whole: bool) -> None:
        self.source = source
        self.namespaces = frozenset(compiler.namespaces)
        """Which of INPUT, DOC, CONTEXT and STAGE it reads."""
        self.paths = frozenset(compiler.paths)
        self.whole = whole
        """Whether it is one expression, whose value keeps its type."""
        self._run = run

    def render(self, names: Mapping[str, Any]) -> Any:
        """Return the value. Raises TemplateError when it cannot be computed or is over its budget."""
        return plain(self.evaluate(names))

    def evaluate(self, names: Mapping[str, Any]) -> Any:
        """Like `render`, but MISSING stays distinguishable from null."""
        try:
            return self._run(Frame(dict(names)))
        except RecursionError:
            raise TemplateError("a template is nested too deeply") from None
        except MemoryError:
            raise TemplateError("a template needs too much memory") from None


def is_template(value: Any, *, braces: bool = False) -> bool:
    """Whether a string holds an expression to compile."""
    if not isinstance(value, str) or "{" not in value:
        return False
    return ("{{" in value and value.replace("${{", "").find("{{") >= 0) or (braces and single_braces(value) != value)


def compile_text(source: str, *, braces: bool = False) -> Template:
    """Compile a parameter: text with `{{ }}` (and `{INPUT.x}` with `braces`). Raises TemplateError."""
    _check_length(source)
    if braces:
        source = single_braces(source)
    compiler = Compiler()
    pieces = list(split(source, blocks=False))
    expressions = [piece for piece in pieces if piece.kind == "expression"]
    blank = all(piece.kind == "expression" or not piece.body.strip() for piece in pieces)
    try:
        if len(expressions) == 1 and blank:
            run = compiler.expression(parse_expression(rewrite(_bare(expressions[0].body))))
            return Template(source, run, compiler, whole=True)
        parts: list[str | Evaluate] = [
            compiler.expression(parse_expression(rewrite(_bare(piece.body))))
            if piece.kind == "expression"
            else piece.body
            for piece in pieces
        ]
    except RecursionError:
        raise TemplateError("an expression is nested too deeply") from None

    def text(frame: Frame) -> str:
        out = []
        for part in parts:
            piece = part if isinstance(part, str) else to_text(part(frame))
            frame.budget.write(len(piece))
            out.append(piece)
        return "".join(out)

    return Template(source, text, compiler, whole=False)


_HOST_GIVEN = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^/?#]*[/?#]")


def compile_url(source: str, *, braces: bool = False) -> Template:
    """Compile a URL: a value behind the host is percent-encoded, so that it stays one part of a path or query.

    A value that is missing or null is a TemplateError: without it the URL is another one. What begins with an
    expression (`{{DOC.url}}`) is taken as it is.
    """
    _check_length(source)
    compiler = Compiler()
    parts: list[tuple[Evaluate, str, bool] | str] = []
    before = ""
    try:
        for piece in split(single_braces(source) if braces else source, blocks=False):
            if piece.kind == "expression":
                run = compiler.expression(parse_expression(rewrite(_bare(piece.body))))
                parts.append((run, piece.body.strip(), _HOST_GIVEN.match(before) is not None))
                before += "x"
            else:
                parts.append(piece.body)
                before += piece.body
    except RecursionError:
        raise TemplateError("an expression is nested too deeply") from None

    def url(frame: Frame) -> str:
        out = []
        for part in parts:
            if isinstance(part, str):
                piece = part
            else:
                run, name, encode = part
                value = run(frame)
                if value is MISSING or value is None or value in ("", ".", ".."):
                    raise TemplateError(f"the URL needs {name}, which is not there", code="url_incomplete")
                piece = quote(to_text(value), safe="") if encode else to_text(value)
            frame.budget.write(len(piece))
            out.append(piece)
        return "".join(out)

    return Template(source, url, compiler, whole=False)


def compile_json(source: str) -> Template:
    """Compile a Jinja template (with if, for and set) that makes one JSON value. Raises TemplateError.

    Inside a JSON string a value is inserted as escaped text; elsewhere it is inserted as JSON, so text from a
    document can never change the structure. Only text written in the template itself may be JSON syntax.
    """
    _check_length(source)
    compiler = Compiler()
    try:
        body = compiler.body(parse_template(rewrite_blocks(source)).body)
    except RecursionError:
        raise TemplateError("a template is nested too deeply") from None

    def run(frame: Frame) -> Any:
        writer = frame.writer = _JsonWriter(frame)
        body(frame)
        rendered = writer.result()
        try:
            return orjson.loads(rendered)
        except orjson.JSONDecodeError as error:
            raise TemplateError(f"the template does not make JSON: {error}", code="template_not_json") from None

    return Template(source, run, compiler, whole=False)


def _bare(body: str) -> str:
    """The expression without Jinja's white space control."""
    if body[:1] == "-" and body[1:2].isspace():
        body = body[1:]
    if body[-1:] == "-":
        body = body[:-1]
    return body


def _check_length(source: str) -> None:
    if len(source) > MAX_SOURCE:
        raise TemplateError(f"a template may have {MAX_SOURCE} characters, this one has {len(source)}")


# JSON punctuation, with bare values between: the literals that authors write between elements.
_PUNCTUATED = re.compile(r"(?=.*[\[\]{},:])(?:[\s\[\]{},:]++|true|false|null|-?\d++(?:\.\d++)?+)*+", re.DOTALL)
_OUTSIDE, _INSIDE, _ESCAPED = range(3)


class _JsonWriter:
    """Collects output and knows whether it stands inside a JSON string."""

    __slots__ = ("_frame", "_out", "_state")

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._out: list[str] = []
        self._state = _OUTSIDE

    def static(self, data: str) -> None:
        self._frame.budget.write(len(data))
        self._out.append(data)
        state = self._state
        for char in data:
            if state == _ESCAPED:
                state = _INSIDE
            elif char == '"':
                state = _INSIDE if state == _OUTSIDE else _OUTSIDE
            elif char == "\\" and state == _INSIDE:
                state = _ESCAPED
        self._state = state

    def value(self, value: Any) -> None:
        if self._state != _OUTSIDE:
            text = to_json(str(to_text(value)))[1:-1]
        elif isinstance(value, Literal) and _is_syntax(value):
            self.static(value)
            return
        else:
            text = "null" if value is MISSING else to_json(value)
        self._frame.budget.write(len(text))
        self._out.append(text)

    def result(self) -> str:
        return "".join(self._out)


def _is_syntax(text: str) -> bool:
    """Whether text of the template's author is meant as JSON rather than as a string value."""
    if '"' in text or not text.strip() or _PUNCTUATED.fullmatch(text):
        return True
    try:
        orjson.loads(str(text))
    except orjson.JSONDecodeError:
        return False
    return True
