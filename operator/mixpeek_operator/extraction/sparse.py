"""Sparse text embedding, as extraction needs it; a vendor's implementation is an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mixpeek_operator.ports.vectors import SparseVector


class SparseEncoder(Protocol):
    """BM25-style weights: term frequencies for documents, counts for queries; the store adds the IDF."""

    def encode(self, language: str, texts: Sequence[str], *, purpose: str) -> list[SparseVector]:
        """One vector per text, perhaps empty; `purpose` is `document` or `query`. Thread-safe."""
        ...
