"""What `cross_compare` compares: elements of texts, and how alike two are."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from typing import Any, Final

from mixpeek_operator.core.errors import SpecError

MAX_SECONDS: Final = 10.0
"""Time that comparing texts of one stage may take."""
_BOLD: Final = re.compile(r"\*\*([^*\n]{2,80})\*\*")
_DASHED: Final = re.compile(r"^\s*(?:[-*•]\s+)?([^\n—–]{2,80}?)\s+[—–]\s+\S", re.MULTILINE)
_ACTION: Final = re.compile(
    r"\b(?:Click|Select|Open|Choose|Press|Tap|Configure|Enable|Disable|Set up)\s+(?:the\s+|on\s+)?"
    r"((?:[A-Z][\w&/-]*)(?:\s+[A-Z][\w&/-]*){0,5})"
)
_GENERIC: Final = frozenset({
    "add", "apply", "back", "cancel", "close", "confirm", "continue", "delete", "done", "edit", "finish", "help",
    "home", "menu", "next", "no", "ok", "okay", "open", "previous", "remove", "save", "search", "send", "settings",
    "skip", "start", "stop", "submit", "update", "view", "yes",
})  # fmt: skip


def elements(value: Any, mode: str, *, skip_generic: bool) -> list[str]:
    """Return the different elements of a field's value, in order: its texts, their lines, labels in them."""
    if mode == "list" and not isinstance(value, list):
        value = [value]
    texts = [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]
    if mode == "lines":
        texts = [line for text in texts for line in text.splitlines()]
    elif mode == "labels":
        texts = [label for text in texts for label in _labels(text, skip_generic=skip_generic)]
    return list(dict.fromkeys(text.strip() for text in texts if text.strip()))


def normal(text: str) -> str:
    """Return the text as exact and fuzzy comparison see it: without case and extra white space."""
    return " ".join(text.casefold().split())


def nearest(wanted: Sequence[str], offered: Sequence[str], least: float) -> dict[str, tuple[int, float]]:
    """Return for each text the most similar one offered, with its ratio, where that is at least `least`.

    Ratcliff and Obershelp's ratio, twice the matching characters by all of both. Of equal ones the first. Raises
    SpecError after MAX_SECONDS.
    """
    deadline = time.monotonic() + MAX_SECONDS
    others = [normal(text) for text in offered]
    found: dict[str, tuple[int, float]] = {}
    for text in wanted:
        matcher: SequenceMatcher[str] = SequenceMatcher(None, "", normal(text), autojunk=False)
        best = least
        for position, other in enumerate(others):
            matcher.set_seq1(other)
            bounds: tuple[Callable[[], float], ...] = (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio)
            ratio = 0.0
            for bound in bounds:
                ratio = bound()
                if ratio < best or (ratio == best and text in found):
                    break
            else:
                best, found[text] = ratio, (position, ratio)
            if time.monotonic() > deadline:
                raise SpecError(
                    f"comparing {len(wanted)} texts with {len(offered)} takes longer than {MAX_SECONDS:g} s; compare "
                    "fewer or shorter ones, or leave out the tier fuzzy",
                    code="comparison_too_long",
                )
    return found


def _labels(text: str, *, skip_generic: bool) -> list[str]:
    spans = [(match.start(1), match[1]) for pattern in (_BOLD, _DASHED, _ACTION) for match in pattern.finditer(text)]
    labels = [label.strip(" *:.") for _, label in sorted(spans)]
    return [label for label in labels if label and not (skip_generic and label.casefold() in _GENERIC)]
