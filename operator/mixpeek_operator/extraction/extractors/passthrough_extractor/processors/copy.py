"""The one processor of passthrough_extractor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mixpeek_operator.extraction.sdk import FIELDS, INPUTS

if TYPE_CHECKING:
    import pandas as pd


class CopyProcessor:
    """Declares every input an output field."""

    def __init__(self, config: Any = None) -> None:
        self._config = config

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        batch[FIELDS] = batch[INPUTS]
        return batch
