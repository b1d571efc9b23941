"""What travels between server and workers arrives as it was sent."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpeek_operator.core import errors
from mixpeek_operator.core.errors import MixpeekError, ModelUnavailableError
from mixpeek_operator.extraction.ray import wire
from mixpeek_operator.ports.compute import RowFailure, Segment, SourceRow
from mixpeek_operator.ports.vectors import SparseVector

TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
"""Any text, halves of surrogate pairs among it."""
PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | TEXT
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)
INPUTS = st.dictionaries(st.text(max_size=8), VALUES | st.binary(max_size=40), max_size=4)
ROWS = st.lists(st.builds(SourceRow, st.text(max_size=8), INPUTS), max_size=12)
FLOATS = st.floats(width=32, allow_nan=False)
VECTORS = st.lists(FLOATS, max_size=4) | st.builds(
    lambda pairs: SparseVector(tuple(pairs), tuple(pairs.values())), st.dictionaries(st.integers(0, 2**32), FLOATS)
)
RESULTS = st.lists(
    st.builds(RowFailure, st.text(), st.text(), TEXT)
    | st.builds(
        Segment,
        st.text(),
        st.integers(0, 9),
        INPUTS,
        st.dictionaries(st.text(), VECTORS, max_size=2),
        st.dictionaries(st.text(), st.text(), max_size=2),
    )
)


def typed(value: Any) -> Any:
    """A value with the types of its parts, since 1, 1.0 and True are equal."""
    if isinstance(value, dict):
        return {name: typed(item) for name, item in value.items()}
    return [typed(item) for item in value] if isinstance(value, list) else (type(value), value)


@given(ROWS, st.integers(1, 5), st.integers(1, 200))
def test_pieces_hold_every_row_in_order_and_keep_their_bounds(rows: list[SourceRow], most: int, size: int) -> None:
    pieces = [wire.rows_of(piece) for piece in wire.pieces(rows, max_rows=most, max_bytes=size)]
    assert [row for piece in pieces for row in piece] == rows
    assert [typed(dict(row.inputs)) for piece in pieces for row in piece] == [typed(dict(row.inputs)) for row in rows]
    for piece in pieces:
        assert 1 <= len(piece) <= most
        packed = sum(len(wire.pack([row.id, dict(row.inputs)])) for row in piece)
        assert packed <= size or len(piece) == 1


@given(RESULTS)
def test_results_arrive(results: list[Segment | RowFailure]) -> None:
    assert wire.results_of(wire.answer(results)) == results


EVERY_ERROR = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, MixpeekError)]


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_an_error_is_raised_as_what_it_was(kind: type[MixpeekError]) -> None:
    with pytest.raises(kind, match="why") as caught:
        wire.results_of(wire.failed(kind("why", code="its_code")))
    assert (type(caught.value), caught.value.code) == (kind, "its_code")


def test_an_error_of_a_newer_worker_is_still_an_error() -> None:
    unknown = {**wire.described(ModelUnavailableError("why")), "error": "FromTheFuture"}
    with pytest.raises(errors.InternalError, match="why"):
        wire.results_of(wire.pack(unknown))
