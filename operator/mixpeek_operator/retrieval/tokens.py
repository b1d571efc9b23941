"""How many tokens a language model makes of a text, estimated: the same everywhere, without a vocabulary.

The vocabularies of hosted models are fetched from the network when they are first used, which a server may not be
able to. This estimate divides a text as cl100k_base does, into words, groups of three digits, punctuation and white
space, and goes by the length of each piece. It is meant to be above the true count, so that a budget holds: on
English, German, French, Japanese, Russian, Arabic, Hindi, Python, JSON and emoji it was 1.0 to 2.0 times the count of
cl100k_base. Random letters and rare scripts may be beyond that.
"""

from __future__ import annotations

import re
from typing import Final

_PIECES: Final = re.compile(r" ?(?P<word>[^\W\d_]+)| ?(?P<signs>(?:[^\w\s]|_)+)|(?P<one>\d{1,3}|\s+)")
_PER_TOKEN: Final = {"word": 4, "signs": 2}
"""ASCII characters of one token."""


def count(text: str) -> int:
    """Return the tokens of a text, about; never more than those of its parts together."""
    return sum(map(_tokens, _PIECES.finditer(text)))


def start(text: str, most: int) -> str:
    """Return the longest start of whole pieces that has at most so many tokens."""
    total = 0
    for piece in _PIECES.finditer(text):
        total += _tokens(piece)
        if total > most:
            return text[: piece.start()]
    return text


def _tokens(piece: re.Match[str]) -> int:
    kind = str(piece.lastgroup)
    if kind == "one":
        return 1
    characters = piece[kind]
    if not characters.isascii():
        # A letter of another script counts twice for each of its bytes.
        length = sum(1 if char.isascii() else 2 * len(char.encode()) for char in characters)
    else:
        length = len(characters)
    return -(-length // _PER_TOKEN[kind])
