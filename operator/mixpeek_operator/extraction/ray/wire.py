"""Rows and results as bytes, between the server and the processes of a Ray cluster.

MessagePack: it keeps text apart from bytes and integers from floats, takes text that is no valid Unicode, and
reading it runs no code.
"""

from __future__ import annotations

import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgpack

from mixpeek_operator.core import errors
from mixpeek_operator.core.errors import InternalError, MixpeekError
from mixpeek_operator.ports.compute import RowFailure, Segment, SourceRow
from mixpeek_operator.ports.vectors import SparseVector, Vector

_ERRORS = {
    name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, MixpeekError)
}


def pack(value: Any) -> bytes:
    """Plain data as bytes."""
    packed: bytes = msgpack.packb(value, unicode_errors="surrogatepass")
    return packed


def unpack(data: bytes) -> Any:
    """What `pack` was given; tuples come back as lists."""
    return msgpack.unpackb(data, unicode_errors="surrogatepass", strict_map_key=False)


def pieces(rows: Sequence[SourceRow], *, max_rows: int, max_bytes: int) -> Iterator[bytes]:
    """Yield the rows in order, packed, each piece within both bounds unless one row alone is larger."""
    held: list[bytes] = []
    size = 0
    for row in rows:
        packed = pack([row.id, dict(row.inputs)])
        if held and (len(held) == max_rows or size + len(packed) > max_bytes):
            yield pack(held)
            held, size = [], 0
        held.append(packed)
        size += len(packed)
    if held:
        yield pack(held)


def rows_of(piece: bytes) -> list[SourceRow]:
    """The rows of a piece."""
    return [SourceRow(*unpack(row)) for row in unpack(piece)]


def answer(results: Sequence[Segment | RowFailure]) -> bytes:
    """The results of a piece."""
    return pack([_packed(result) for result in results])


def failed(error: MixpeekError) -> bytes:
    """The answer to a piece, or to a whole run, that ended in an error."""
    return pack(described(error))


def described(error: MixpeekError) -> dict[str, Any]:
    """An error as plain data, for `error_of` to make it again elsewhere."""
    return {"error": type(error).__name__, "message": error.message, "code": error.code}


def error_of(described: Mapping[str, Any]) -> MixpeekError:
    """The error that was described."""
    return _ERRORS.get(described["error"], InternalError)(described["message"], code=described["code"])


def results_of(data: bytes) -> list[Segment | RowFailure]:
    """The results of an answer. Raises the error that it holds instead."""
    found = unpack(data)
    if isinstance(found, dict):
        raise error_of(found)
    return [_unpacked(entry) for entry in found]


def _packed(result: Segment | RowFailure) -> list[Any]:
    if isinstance(result, RowFailure):
        return [result.source_id, result.error_type, result.message]
    vectors = {name: _packed_vector(vector) for name, vector in result.vectors.items()}
    return [result.source_id, result.index, dict(result.fields), vectors, dict(result.embedders)]


def _unpacked(entry: list[Any]) -> Segment | RowFailure:
    if len(entry) == 3:
        return RowFailure(*entry)
    source_id, index, fields, packed, embedders = entry
    vectors = {name: _unpacked_vector(vector) for name, vector in packed.items()}
    return Segment(source_id, index, fields, vectors, embedders)


def _packed_vector(vector: Vector) -> Any:
    """Dense vectors as float32, which is what models compute and stores keep."""
    if isinstance(vector, SparseVector):
        return [list(vector.indices), list(vector.values)]
    return array.array("f", vector).tobytes()


def _unpacked_vector(value: Any) -> Vector:
    if isinstance(value, bytes):
        return array.array("f", value).tolist()
    return SparseVector(tuple(value[0]), tuple(value[1]))
