"""Template text: where the expressions are, and C-like operators rewritten to Jinja's.

`a ? b : c`, `&&`, `||` and `!` become `(b if a else c)`, `and`, `or` and `not`. Strings are never touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mixpeek_operator.retrieval.templating.errors import TemplateError

_TOKEN = re.compile(
    r"""(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
      | (?P<space>\s+)
      | (?P<number>\d+(?:_\d+)*(?:\.\d+)?(?:[eE][+-]?\d+)?)
      | (?P<name>[^\W\d]\w*)
      | (?P<op>&&|\|\||==|!=|<=|>=|\*\*|//|[-+*/%<>=~|.,:?!()\[\]{}&])
    """,
    re.VERBOSE | re.DOTALL,
)
_OPEN = {"(": ")", "[": "]", "{": "}"}
_SINGLE = re.compile(
    r"(?<![{$])\{\s*((?:INPUT|INPUTS|input|inputs|DOC|doc|CONTEXT|context|STAGE|stage)"
    r"(?:\.\w+|\[(?:\d+|'[^'{}]*'|\"[^\"{}]*\")\])+)\s*\}(?!\})"
)
_RAW_BLOCK = re.compile(r"\{%-?\s*raw\s*-?%\}")
_MAX_DEPTH = 60


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a template: `text`, `expression`, `block` or `comment`; `body` is without delimiters."""

    kind: str
    body: str
    source: str


def split(source: str, *, blocks: bool) -> Iterator[Piece]:
    """Yield the pieces of a template; without `blocks` only `{{ }}` is special, the rest is text.

    Raises TemplateError for an expression or block that is not closed. `${{ … }}` (a secret) stays text.
    """
    position = start = 0
    openers = {"{{": ("expression", "}}")}
    if blocks:
        openers |= {"{%": ("block", "%}"), "{#": ("comment", "#}")}
    while True:
        found = source.find("{", position)
        if found < 0 or found + 1 >= len(source):
            break
        opener = source[found : found + 2]
        if opener not in openers:
            position = found + 1
            continue
        kind, closer = openers[opener]
        end = _closing(source, found + 2, closer, strings=kind != "comment")
        if end < 0:
            raise TemplateError(f"{opener!r} at character {found + 1} is never closed with {closer!r}")
        if opener == "{{" and found and source[found - 1] == "$":
            position = end + 2
            continue
        if found > start:
            yield Piece("text", source[start:found], source[start:found])
        body = source[found + 2 : end]
        yield Piece(kind, body, source[found : end + 2])
        position = start = end + 2
        if kind == "block" and _RAW_BLOCK.fullmatch(source[found : end + 2]):
            close = re.compile(r"\{%-?\s*endraw\s*-?%\}").search(source, end)
            if close is None:
                raise TemplateError("{% raw %} is never closed with {% endraw %}")
            yield Piece("block", "raw", source[end + 2 : close.end()])
            position = start = close.end()
    if start < len(source):
        yield Piece("text", source[start:], source[start:])


def single_braces(source: str) -> str:
    """Return the template with `{INPUT.x}` and `{DOC.x}` written as `{{INPUT.x}}` and `{{DOC.x}}`."""
    return _SINGLE.sub(r"{{\1}}", source)


def rewrite_blocks(source: str) -> str:
    """Return the whole template with every expression and block in Jinja's own operators."""
    out: list[str] = []
    for piece in split(source, blocks=True):
        if piece.kind == "expression":
            left, body, right = _trims(piece.body)
            out.append(f"{{{{{left} {rewrite(body)} {right}}}}}")
        elif piece.kind == "block" and not piece.body.strip("-+ \t\n").startswith("raw"):
            left, body, right = _trims(piece.body)
            out.append(f"{{%{left} {_rewrite_statement(body)} {right}%}}")
        else:
            out.append(piece.source)
    return "".join(out)


def rewrite(expression: str) -> str:
    """Return the expression in Jinja's operators; expressions already in Jinja come back equal in meaning."""
    if not any(mark in expression for mark in ("?", "&&", "||", "!")):
        return expression
    tokens = _tokens(expression)
    result, position = _sequence(tokens, 0, None, 0)
    if position != len(tokens):
        raise TemplateError(f"unexpected {tokens[position]!r} in {_shorten(expression)}")
    return result


def _trims(body: str) -> tuple[str, str, str]:
    left = body[0] if body[:1] in ("-", "+") and body[1:2].isspace() else ""
    right = body[-1] if body[-1:] in ("-", "+") else ""
    return left, body[len(left) : len(body) - len(right)], right


def _rewrite_statement(body: str) -> str:
    stripped = body.strip()
    keyword, _, rest = stripped.partition(" ")
    if keyword in ("if", "elif"):
        return f"{keyword} {rewrite(rest)}"
    if keyword == "set" and "=" in rest:
        target, _, value = rest.partition("=")
        return f"set {target}= {rewrite(value)}"
    if keyword == "for" and " in " in rest:
        target, _, iterable = rest.partition(" in ")
        return f"for {target} in {rewrite(iterable)}"
    return stripped


def _closing(source: str, position: int, closer: str, *, strings: bool) -> int:
    """Index of the closer outside strings and inner braces, or -1."""
    depth = 0
    quote = ""
    length = len(source)
    while position < length:
        char = source[position]
        if quote:
            if char == "\\":
                position += 1
            elif char == quote:
                quote = ""
        elif strings and char in "\"'":
            quote = char
        elif strings and char == "{":
            depth += 1
        elif strings and char == "}" and depth:
            depth -= 1
        elif source.startswith(closer, position):
            return position
        position += 1
    return -1


def _tokens(expression: str) -> list[str]:
    tokens: list[str] = []
    position = 0
    while position < len(expression):
        match = _TOKEN.match(expression, position)
        if match is None:
            raise TemplateError(f"unexpected {expression[position]!r} in {_shorten(expression)}")
        if match.lastgroup != "space":
            tokens.append(match.group())
        position = match.end()
    return tokens


def _sequence(tokens: list[str], position: int, closer: str | None, depth: int) -> tuple[str, int]:
    """Rewrite until the closer: segments between `,`, `=` and free `:` may each be one conditional."""
    if depth > _MAX_DEPTH:
        raise TemplateError("an expression is nested too deeply")
    out: list[str] = []
    while position < len(tokens) and tokens[position] != closer:
        part = tokens[position]
        if part in (",", "=", ":"):
            out.append(part)
            position += 1
            continue
        segment, position = _conditional(tokens, position, closer, depth)
        out.append(segment)
    return " ".join(out), position


def _conditional(tokens: list[str], position: int, closer: str | None, depth: int) -> tuple[str, int]:
    if depth > _MAX_DEPTH:
        raise TemplateError("an expression is nested too deeply")
    condition, position = _operands(tokens, position, closer, depth)
    if position < len(tokens) and tokens[position] == "?":
        if not condition:
            raise TemplateError("'?' needs a condition before it")
        then, position = _conditional(tokens, position + 1, closer, depth + 1)
        if position >= len(tokens) or tokens[position] != ":":
            raise TemplateError("'?' needs ':' and a second value: write condition ? value : other")
        otherwise, position = _conditional(tokens, position + 1, closer, depth + 1)
        if not then or not otherwise:
            raise TemplateError("both sides of ':' after '?' need a value")
        return f"(({then}) if ({condition}) else ({otherwise}))", position
    return condition, position


def _operands(tokens: list[str], position: int, closer: str | None, depth: int) -> tuple[str, int]:
    out: list[str] = []
    while position < len(tokens) and tokens[position] not in (closer, ",", "=", ":", "?"):
        part = tokens[position]
        if part in _OPEN:
            text, position = _group(tokens, position, depth)
            out.append(text)
        elif part == "&&":
            out.append("and")
            position += 1
        elif part == "||":
            out.append("or")
            position += 1
        elif part == "!":
            text, position = _negated(tokens, position + 1, depth)
            out.append(text)
        else:
            out.append(part)
            position += 1
    # A dot or a bracket after a space means the same to Jinja, so tokens may simply be joined.
    return " ".join(out), position


def _group(tokens: list[str], position: int, depth: int) -> tuple[str, int]:
    opener = tokens[position]
    closer = _OPEN[opener]
    inner, position = _sequence(tokens, position + 1, closer, depth + 1)
    if position >= len(tokens):
        raise TemplateError(f"{opener!r} is never closed with {closer!r}")
    return f"{opener}{inner}{closer}", position + 1


def _negated(tokens: list[str], position: int, depth: int) -> tuple[str, int]:
    """`!x.y[0]` binds tighter than comparison, unlike Jinja's `not`."""
    if position >= len(tokens) or depth > _MAX_DEPTH:
        raise TemplateError("'!' needs a value after it")
    sign = ""
    if tokens[position] == "!":
        inner, position = _negated(tokens, position + 1, depth + 1)
        return f"(not {inner})", position
    if tokens[position] in "-+":
        sign = tokens[position]
        position += 1
        if position >= len(tokens):
            raise TemplateError(f"{sign!r} needs a value after it")
    text, position = _primary(tokens, position, depth)
    return f"(not {sign}{text})", position


def _primary(tokens: list[str], position: int, depth: int) -> tuple[str, int]:
    if tokens[position] in _OPEN:
        text, position = _group(tokens, position, depth)
    else:
        text = tokens[position]
        position += 1
    while position < len(tokens) and tokens[position] in (".", "[", "("):
        if tokens[position] == ".":
            if position + 1 >= len(tokens):
                raise TemplateError("'.' needs a name after it")
            text += f".{tokens[position + 1]}"
            position += 2
        else:
            group, position = _group(tokens, position, depth)
            text += group
    return text, position


def _shorten(text: str, limit: int = 80) -> str:
    text = text.strip()
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")
