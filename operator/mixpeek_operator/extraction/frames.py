"""Rows into the DataFrame of the archive contract, and a DataFrame into segments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mixpeek_operator.core.catalog import VectorIndex
from mixpeek_operator.core.errors import InternalError, ModelUnavailableError, SpecError
from mixpeek_operator.extraction.archive import Archive
from mixpeek_operator.extraction.sdk import (
    DATA,
    ERROR,
    FIELDS,
    INPUTS,
    OBJECT_ID,
    ROW,
    SYSTEM_COLUMNS,
    Processor,
    StepDefinition,
)
from mixpeek_operator.ports.compute import Segment, SourceRow
from mixpeek_operator.ports.vectors import SparseVector, Vector

if TYPE_CHECKING:
    import pandas as pd


class Frames:
    """Conversion for one extractor; columns hold Python objects, so that no value changes its type on the way."""

    def __init__(
        self, archive: Archive, indexes: Sequence[VectorIndex], identity: Callable[[VectorIndex], str | None]
    ) -> None:
        """`identity` tells what embeds the vectors of an index, if a model of the platform does."""
        try:
            import pandas
        except ImportError as error:
            raise ModelUnavailableError("running extractors needs pandas; install mixpeek-operator[models]") from error
        self._pandas = pandas
        self._archive = archive
        self._identity = identity
        self._indexes = {index.output: index for index in indexes}

    def of_rows(self, rows: Sequence[SourceRow], positions: Sequence[int]) -> pd.DataFrame:
        """One row per source row; `data` is the first input the manifest declares that the row has."""
        declared = tuple(self._archive.input_schema.get("properties") or ())
        picked = [rows[position] for position in positions]
        names = [
            next((name for name in (*declared, *row.inputs) if row.inputs.get(name) is not None), None)
            for row in picked
        ]
        data = [row.inputs[name] if name else None for row, name in zip(picked, names, strict=True)]
        kinds = [_mime_type(value) for value in data]
        return self._pandas.DataFrame(
            {
                ROW: self._pandas.Series(positions, dtype="int64"),
                DATA: self._column(data),
                INPUTS: self._column([dict(row.inputs) for row in picked]),
                OBJECT_ID: self._column([row.id for row in picked]),
                "document_id": self._column([row.id for row in picked]),
                "blob_property": self._column(names),
                "blob_type": self._column([kind.partition("/")[0] for kind in kinds]),
                "mime_type": self._column(kinds),
                ERROR: self._column([None] * len(picked)),
            }
        )

    def apply(self, step: StepDefinition, processor: Processor, frame: pd.DataFrame) -> pd.DataFrame:
        """The frame after one step; rows that its condition leaves out pass by, and order is kept."""
        seen = self._pandas.Series([step.condition.matches(kind) for kind in frame["mime_type"]], dtype=bool)
        if not seen.any():
            return frame
        batch = frame if seen.all() else frame[seen].reset_index(drop=True)
        before = batch[ROW].tolist()
        result = processor(batch)
        name = type(processor).__name__
        if not isinstance(result, self._pandas.DataFrame):
            raise InternalError(f"{name} must return a DataFrame, not {type(result).__name__}")
        if ROW not in result.columns:
            if len(result) != len(before):
                raise InternalError(
                    f"{name} returned {len(result)} rows for {len(before)} without the column {ROW}, so which "
                    "row made which is not known"
                )
            result = result.assign(**{ROW: before})
        if not seen.all():
            result = self._pandas.concat([result, frame[~seen]]).sort_values(ROW, kind="stable")
        return result.reset_index(drop=True)

    def take_out_failures(self, frame: pd.DataFrame, failures: dict[int, str]) -> pd.DataFrame:
        """The frame without the rows that failed; why they did goes to `failures`, by row."""
        if ERROR not in frame.columns:
            return frame.assign(**{ERROR: None})
        found = {
            row: error
            for row, error in zip(frame[ROW].tolist(), frame[ERROR].tolist(), strict=True)
            if isinstance(error, str)
        }
        if not found:
            return frame
        failures.update(found)
        return frame[~frame[ROW].isin(list(found))].reset_index(drop=True)

    def segments(self, frame: pd.DataFrame, rows: Sequence[SourceRow]) -> Iterator[tuple[int, Segment]]:
        """(row position, segment) in order; segments of a row count from 0."""
        columns = {str(name): frame[name].tolist() for name in frame.columns}
        further = columns.get(FIELDS)
        plain = [name for name in columns if name not in SYSTEM_COLUMNS and name not in self._indexes]
        counts: dict[int, int] = {}
        for place, row in enumerate(columns[ROW]):
            fields: dict[str, Any] = {name: _plain(columns[name][place]) for name in plain}
            if further is not None and isinstance(further[place], Mapping):
                fields.update(further[place])
            vectors = {
                index.name: vector
                for output, index in self._indexes.items()
                if output in columns and (vector := _vector(columns[output][place], index)) is not None
            }
            number = counts.get(row, 0)
            counts[row] = number + 1
            yield row, Segment(rows[row].id, number, fields, vectors, self._embedders(vectors))

    def _embedders(self, vectors: Mapping[str, Vector]) -> dict[str, str]:
        found = {}
        for index in self._indexes.values():
            if index.name in vectors and (identity := self._identity(index)) is not None:
                found[index.name] = identity
        return found

    def _column(self, values: Sequence[Any]) -> pd.Series[Any]:
        return self._pandas.Series(values, dtype=object)


def _mime_type(value: Any) -> str:
    if isinstance(value, str):
        return "text/plain"
    return "application/octet-stream" if isinstance(value, bytes) else "application/json"


def _plain(value: Any) -> Any:
    """A cell as JSON knows it: numpy's scalars and arrays become Python's, NaN becomes None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return None if isinstance(value, float) and math.isnan(value) else value


def _vector(value: Any, index: VectorIndex) -> Vector | None:
    """A cell as a vector; None when there is none. Raises SpecError for one of the wrong kind or size."""
    value = _plain(value)
    if value is None:
        return None
    if isinstance(value, SparseVector):
        if index.type != "sparse":
            raise SpecError(f"{index.output} must be a dense vector")
        return value if value.indices else None
    if index.type != "dense" or not isinstance(value, list | tuple):
        raise SpecError(f"{index.output} must be a {index.type} vector, not {type(value).__name__}")
    if len(value) != index.dimensions:
        raise SpecError(f"{index.output} has {len(value)} dimensions, not {index.dimensions}")
    return value
