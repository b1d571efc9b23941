"""BM25-style sparse embedding on Qdrant Edge, by language."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from qdrant_edge import Bm25, Bm25Config

from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.ports.vectors import SparseVector


class EdgeBm25:
    """Serves `extraction.sparse.SparseEncoder`; one model per language, made when first used."""

    def __init__(self) -> None:
        self._model = lru_cache(maxsize=None)(_build)

    def encode(self, language: str, texts: Sequence[str], *, purpose: str) -> list[SparseVector]:
        """Weights per text; a text of stop words only gives an empty vector."""
        model = self._model(language)
        embed = model.embed_query if purpose == "query" else model.embed_document
        vectors = []
        for text in texts:
            found = embed(text)
            vectors.append(SparseVector(tuple(found.indices), tuple(found.values)))
        return vectors


def _build(language: str) -> Bm25:
    try:
        return Bm25(Bm25Config(language=language))
    except ValueError as error:
        raise SpecError(f"no BM25 model for the language {language!r}", code="model_unknown") from error
