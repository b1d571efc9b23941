"""Port: where extraction runs. In process on one machine; KubeRay and Ray on a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mixpeek_operator.ports.vectors import Vector


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One input of an extractor: an object or an upstream document, inputs already mapped."""

    id: str
    """Object id or document id."""
    inputs: Mapping[str, Any]
    """Extractor input name → value (text, number, JSON) or bytes of a blob."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One document-to-be."""

    source_id: str
    index: int
    """Position of the segment in its source, from 0."""
    fields: Mapping[str, Any]
    """Output fields of the extractor."""
    vectors: Mapping[str, Vector] = field(default_factory=dict)
    embedders: Mapping[str, str] = field(default_factory=dict)
    """`Inference.identity` of what made each vector; a vector that no model of the platform made has none."""


@dataclass(frozen=True, slots=True)
class RowFailure:
    """A row that could not be processed; the others are."""

    source_id: str
    error_type: str
    message: str


class Runner(Protocol):
    """Runs an extractor over rows in bounded memory; every adapter passes `tests/contract/runner`."""

    def run(
        self,
        *,
        extractor: str,
        version: str,
        parameters: Mapping[str, Any],
        namespace_id: str,
        rows: AsyncIterator[Sequence[SourceRow]],
        run_id: str | None = None,
    ) -> AsyncIterator[Sequence[Segment | RowFailure]]:
        """Yield, per incoming block of rows, its segments and failures, in order.

        A run under the `run_id` of one whose process died may go on with what that one started elsewhere.

        Raises ModelUnavailableError or UnavailableError when no row can be processed.
        """
        ...
