"""A SQL query as a declaration holds it: one SELECT with named places for values. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from mixpeek_operator.core.errors import SpecError

MAX_LENGTH: Final = 20_000
_READS: Final = frozenset({"select", "with", "values", "table"})
# What may hold anything stands first: strings, quoted names, comments. `::` is a cast, `:name` and `$1` are places.
_TOKEN = re.compile(
    r"""(?P<skip>
          '(?:[^'\\]|'')*' | "(?:[^"\\]|"")*" | `[^`\\]*`
        | (?P<tag>\$(?:[A-Za-z_]\w*)?\$).*?(?P=tag)
        | --[^\n]*(?:\n|$) | /\*.*?\*/ | ::
        )
      | (?P<open>'|"|`|/\*)
      | :(?P<name>[A-Za-z_]\w*)
      | \$(?P<number>\d+)
      | (?P<end>;)
      | (?P<word>[A-Za-z_][\w$]*)
      | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Statement:
    """One reading statement. `parts` alternate text and the name of a value, text first and last."""

    parts: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its values as they come in the text, repeated ones repeated."""
        return self.parts[1::2]

    def written(self, place: Callable[[int], str], text: Callable[[str], str] = str) -> str:
        """Return the text for a driver: `place` writes the value at a position, `text` what is between."""
        return "".join(place(index // 2) if index % 2 else text(part) for index, part in enumerate(self.parts))


def parse(source: str, names: Sequence[str]) -> Statement:
    """Return the statement. `names` are the values there are, in the order that `$1`, `$2` count them.

    Raises SpecError for what is no single SELECT and for a place without a value.
    """
    if len(source) > MAX_LENGTH:
        raise _wrong(f"a query may have {MAX_LENGTH} characters, this has {len(source)}")
    parts, text, first, ended = [], "", "", False
    for found in _TOKEN.finditer(source):
        kind, token = found.lastgroup, found[0]
        if kind == "tag":
            kind = "skip"
        if kind == "open":
            # A backslash escapes a quote for some servers and not for others.
            raise _wrong(
                f"the query opens {token} and never closes it, or holds a backslash; use parameters for values"
            )
        comment = kind == "skip" and token.startswith(("--", "/*"))
        if ended and not comment and token.strip():
            raise _wrong("a query is one statement; there is something behind the semicolon")
        if kind == "end":
            ended = True
            continue
        if comment:
            # Servers read some comments as code: /*! … */.
            text += " "
            continue
        if kind == "word":
            first = first or token.lower()
            if token.lower() == "into":
                raise _wrong("a query reads; INTO writes")
        if kind in ("name", "number"):
            name = found["name"] or _numbered(int(found["number"]), names)
            if name not in names:
                raise _wrong(f"the query uses :{name}, which parameters does not hold")
            parts += [text, name]
            text = ""
        else:
            text += token
    if first not in _READS:
        raise _wrong(f"only queries that read are run (SELECT or WITH); this begins with {first.upper() or 'nothing'}")
    return Statement((*parts, text))


def _numbered(number: int, names: Sequence[str]) -> str:
    if not 1 <= number <= len(names):
        raise _wrong(f"the query uses ${number}, and parameters holds {len(names)}")
    return names[number - 1]


def _wrong(message: str) -> SpecError:
    return SpecError(message, code="query_invalid")
