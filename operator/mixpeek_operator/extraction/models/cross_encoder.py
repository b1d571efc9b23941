"""A cross-encoder on torch: reads a query and a text together and says how relevant the text is.

Not thread-safe: one thread owns it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from mixpeek_operator.core.errors import ModelUnavailableError
from mixpeek_operator.extraction.models.registry import Weights, read_json


class CrossEncoder:
    """Loaded weights."""

    def __init__(self, weights: Weights, *, threads: int | None = None) -> None:
        """Load the model; takes seconds. Raises ModelUnavailableError."""
        labels = read_json(weights.folder / "config.json").get("id2label")
        if isinstance(labels, dict) and len(labels) != 1:
            raise ModelUnavailableError(
                f"the model {weights.name!r} tells {len(labels)} classes apart; a reranker has one score"
            )
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            import torch
            from sentence_transformers import CrossEncoder as Model
            from transformers.utils import logging
        except ImportError as error:
            raise ModelUnavailableError(
                f"the model {weights.name!r} needs {error.name}; install mixpeek-operator[models]"
            ) from error
        if threads is not None:
            torch.set_num_threads(threads)
        logging.disable_progress_bar()
        self.id = weights.id
        try:
            self._model: Any = Model(str(weights.folder), device="cpu", local_files_only=True)
        except Exception as error:
            raise ModelUnavailableError(
                f"the model {weights.name!r} in {weights.folder} cannot be loaded: {type(error).__name__}: {error}"
            ) from error

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """One score per text, in the model's own scale, in one forward pass."""
        pairs = [(query, text) for text in texts]
        scores: list[float] = self._model.predict(pairs, batch_size=len(pairs), show_progress_bar=False).tolist()
        return scores
