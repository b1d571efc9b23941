"""Processors of text_extractor, over pandas DataFrames."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from mixpeek_operator.extraction.extractors.text_extractor.processors.chunks import split
from mixpeek_operator.extraction.sdk import DATA, ERROR, INPUTS, ROW, InferenceService

if TYPE_CHECKING:
    import pandas as pd

MAX_CHUNKS = 10_000
"""Most chunks of one text: a bound on memory."""


@dataclass(frozen=True, slots=True)
class ChunkConfig:
    """How to split."""

    split_by: str
    chunk_size: int
    chunk_overlap: int


class ChunkProcessor:
    """Turns each row into one row per chunk with the chunk in `text`; an empty text stays one empty row."""

    def __init__(self, config: ChunkConfig) -> None:
        self._config = config

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        import pandas as pd

        positions: list[int] = []
        texts: list[str] = []
        errors: list[str | None] = []
        for position, (value, error) in enumerate(zip(batch[DATA], batch[ERROR], strict=True)):
            chunks: list[str] = [""]
            if error is None:
                try:
                    chunks = self._chunks(as_text(value))
                except (TypeError, ValueError) as failure:
                    error = f"{type(failure).__name__}: {failure}"
            positions.extend([position] * len(chunks))
            texts.extend(chunks)
            errors.extend([error] * len(chunks))
        chunked = batch[[name for name in batch.columns if name not in (DATA, INPUTS)]].take(positions)
        chunked = chunked.reset_index(drop=True)
        chunked[ERROR] = pd.Series(errors, dtype=object)
        chunked["text"] = pd.Series(texts, dtype=object)
        return chunked

    def _chunks(self, text: str) -> list[str]:
        config = self._config
        found = split(text, config.split_by, config.chunk_size, config.chunk_overlap)
        chunks = list(islice(found, MAX_CHUNKS + 1))
        if len(chunks) > MAX_CHUNKS:
            raise ValueError(f"the text makes more than {MAX_CHUNKS} chunks; raise chunk_size")
        return chunks or [""]


@dataclass(frozen=True, slots=True)
class EmbedConfig:
    """Which model writes which column."""

    inference: InferenceService
    model: str
    output: str


class EmbedProcessor:
    """Adds a column of embeddings of `text`; a text without content, or without known words, gets none."""

    def __init__(self, config: EmbedConfig) -> None:
        self._config = config

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        import pandas as pd

        texts: list[str] = batch["text"].tolist()
        filled = [position for position, text in enumerate(texts) if text.strip()]
        vectors: list[Any] = [None] * len(texts)
        if filled:
            embedded = self._config.inference.embed(
                self._config.model, [texts[position] for position in filled], purpose="document"
            )
            for position, vector in zip(filled, embedded, strict=True):
                vectors[position] = vector
        batch[self._config.output] = pd.Series(vectors, dtype=object, index=batch.index)
        return batch


def as_text(value: Any) -> str:
    """Text, UTF-8 bytes or a number as text. Raises TypeError or ValueError saying what was given."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"the text is not valid UTF-8 (byte {error.start})") from None
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"the text is not valid Unicode (position {error.start})") from None
        return value
    if isinstance(value, int | float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    raise TypeError(f"the text must be a string, not {type(value).__name__}")


__all__ = ["ROW", "ChunkConfig", "ChunkProcessor", "EmbedConfig", "EmbedProcessor", "as_text"]
