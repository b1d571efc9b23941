"""BM25-style sparse embedding on Qdrant Edge, by language.

A text's weights are its term frequencies, saturated and set against its length; a query's are how often it says each
word, so that the product of both is BM25 once the store has multiplied it with the IDF.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from qdrant_edge import Bm25, Bm25Config

from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.ports.vectors import SparseVector

AVERAGE_LENGTH: Final = 80.0
"""Words, less stop words, of the text that is neither long nor short: those of an abstract or a long paragraph.

The true average is not known while texts come in, and is another in every collection (CISI's abstracts: 72)."""
_UNSATURATED: Final = 1e6


class EdgeBm25:
    """Serves `extraction.sparse.SparseEncoder`; one model per language, made when first used."""

    def __init__(self) -> None:
        self._documents = lru_cache(maxsize=None)(_for_documents)
        self._queries = lru_cache(maxsize=None)(_for_queries)

    def encode(self, language: str, texts: Sequence[str], *, purpose: str) -> list[SparseVector]:
        """Weights per text; a text of stop words only gives an empty vector."""
        if purpose == "query":
            model = self._queries(language)
            found = [model.embed_document(text) for text in texts]
            return [SparseVector(tuple(item.indices), tuple(map(float, map(round, item.values)))) for item in found]
        model = self._documents(language)
        found = [model.embed_document(text) for text in texts]
        return [SparseVector(tuple(item.indices), tuple(item.values)) for item in found]


def _for_documents(language: str) -> Bm25:
    return _build(language, Bm25Config(language=language, avg_len=AVERAGE_LENGTH))


def _for_queries(language: str) -> Bm25:
    # Its own embedding of queries forgets how often a word is said, which long queries lose by (CISI: nDCG@10 0.30
    # instead of 0.40). Neither saturated nor set against a length, the weight of a word is its count.
    return _build(language, Bm25Config(language=language, k=_UNSATURATED, b=0.0))


def _build(language: str, config: Bm25Config) -> Bm25:
    try:
        return Bm25(config)
    except ValueError as error:
        raise SpecError(f"no BM25 model for the language {language!r}", code="model_unknown") from error
