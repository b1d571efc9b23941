"""Splitting text into chunks of units. Pure; every chunk is a slice of the text.

A chunk holds at most `size` units; each chunk after the first begins with the last `overlap` units of the one
before it; every unit is in a chunk, and the last chunk is never made of repeated units only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain

_WORD = re.compile(r"\S+")
_PARAGRAPH_END = re.compile(r"\n[ \t\r\f\v]*\n\s*")
_PAGE_END = re.compile(r"\f")
# Possessive, and begun only where a run begins: linear on a text of nothing but dots.
# Quotes by code point, since several look like others: U+2018 U+2019 U+201C U+201D; full-width ! is U+FF01, ? U+FF1F.
_SENTENCE_END = re.compile(
    r"""(?:(?<![.!?…])[.!?…]++["'\u201d\u2019»)\]]*+(?=\s)     # an end mark, what closes with it, then space
          |[。\uff01\uff1f]+["'\u201d\u2019»」』)\]]*           # full-width marks need no space
          |\n[ \t\r]*\n)                                       # a blank line ends a sentence, too""",
    re.VERBOSE,
)
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\[\"'\u201c\u2018])(?:[A-HJ-Z]|(?:[A-Za-z]\.)+[A-Za-z]|Mrs?|Ms|Dr|Prof|St|Sr|Jr|[Nn]o"
    r"|[Vv]s|[Ff]ig|[Vv]ol|[Aa]pprox|[Cc]f|Inc|Ltd|Gen|Rev)\.$"
)

Span = tuple[int, int]


def split(text: str, split_by: str, size: int, overlap: int) -> Iterator[str]:
    """Yield the chunks of `text`; nothing for a text without units, the text itself for `none`.

    Raises ValueError when the overlap leaves no progress.
    """
    if size < 1 or not 0 <= overlap < size:
        raise ValueError(f"chunk_overlap ({overlap}) must be at least 0 and less than chunk_size ({size})")
    if split_by == "none":
        yield text
    elif split_by == "characters":
        for start in range(0, max(1, len(text) - overlap) if text else 0, size - overlap):
            yield text[start : start + size]
    else:
        yield from _windows(text, units(text, split_by), size, overlap)


def units(text: str, split_by: str) -> Iterator[Span]:
    """Where the units of `text` lie, trimmed of white space; empty ones are left out."""
    match split_by:
        case "words":
            return (match.span() for match in _WORD.finditer(text))
        case "sentences":
            return _trimmed(text, _sentence_ends(text))
        case "paragraphs":
            return _trimmed(text, (match.end() for match in _PARAGRAPH_END.finditer(text)))
        case "pages":
            return _trimmed(text, (match.end() for match in _PAGE_END.finditer(text)))
        case _:
            raise ValueError(f"unknown unit {split_by!r}")


def _windows(text: str, spans: Iterable[Span], size: int, overlap: int) -> Iterator[str]:
    """Slices of `size` units; holds one chunk's units, however long the text."""
    held: list[Span] = []
    fresh = False
    for span in spans:
        held.append(span)
        fresh = True
        if len(held) == size:
            yield text[held[0][0] : held[-1][1]]
            held = held[size - overlap :]
            fresh = False
    if fresh:
        yield text[held[0][0] : held[-1][1]]


def _sentence_ends(text: str) -> Iterator[int]:
    for match in _SENTENCE_END.finditer(text):
        before = text[max(0, match.start() - 16) : match.end()]
        if match.group() == "." and _ABBREVIATION.search(before):
            continue
        yield match.end()


def _trimmed(text: str, ends: Iterable[int]) -> Iterator[Span]:
    start = 0
    for end in chain(ends, (len(text),)):
        piece = text[start:end]
        body = piece.strip()
        if body:
            first = start + len(piece) - len(piece.lstrip())
            yield first, first + len(body)
        start = end
