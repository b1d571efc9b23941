"""Near-duplicates: which of many texts or vectors are like one before them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any


def trigrams(text: str, *, fold: bool) -> frozenset[str]:
    """Return the sequences of three characters of a text, white space collapsed; a shorter text is its own."""
    words = " ".join((text.casefold() if fold else text).split())
    if len(words) < 3:
        return frozenset((words,)) if words else frozenset()
    return frozenset(words[start : start + 3] for start in range(len(words) - 2))


def unlike_texts(texts: Sequence[frozenset[str] | None], threshold: float) -> list[bool]:
    """Return for each set whether none of those kept before it has a Jaccard similarity of `threshold` (above 0).

    None is like nothing. Two sets that are so alike share one of each other's rarest elements: only sets that do are
    compared (Chaudhuri et al., A Primitive Operator for Similarity Joins, 2006).
    """
    counts = Counter(part for text in texts if text for part in text)
    least = Fraction(str(threshold))
    index: dict[str, list[int]] = {}
    kept = []
    for position, text in enumerate(texts):
        if not text:
            kept.append(True)
            continue
        rare = sorted(text, key=lambda part: (counts[part], part))
        rare = rare[: len(rare) - math.ceil(least * len(rare)) + 1]
        near = {other for part in rare for other in index.get(part, ())}
        unlike = not any(_alike(text, texts[other] or frozenset(), least) for other in near)
        kept.append(unlike)
        if unlike:
            for part in rare:
                index.setdefault(part, []).append(position)
    return kept


def unlike_vectors(rows: Any, known: Any, threshold: float) -> list[bool]:
    """Return for each row of unit vectors whether none kept before it has a cosine of `threshold`.

    Rows that are not `known` are like nothing.
    """
    kept: list[int] = []
    result = []
    for position in range(len(rows)):
        # Single precision: the same vector twice may be a hair below 1.
        alike = known[position] and kept and bool((rows[kept] @ rows[position] >= threshold - 1e-6).any())
        result.append(not alike)
        if not alike and known[position]:
            kept.append(position)
    return result


def _alike(one: frozenset[str], other: frozenset[str], least: Fraction) -> bool:
    shared = len(one & other)
    return shared * least.denominator >= least.numerator * (len(one) + len(other) - shared)
