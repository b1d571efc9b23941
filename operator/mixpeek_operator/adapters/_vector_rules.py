"""What every vector adapter holds its callers to, and the pure parts that the adapters share."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import orjson

from mixpeek_operator.core import filter_values
from mixpeek_operator.core.errors import BadRequestError, SpecError
from mixpeek_operator.ports.vectors import SparseVector, Vector, VectorParams

T = TypeVar("T")

DISTANCES = ("cosine", "dot", "euclid", "manhattan")
INDEX_TYPES = ("bool", "datetime", "float", "geo", "integer", "keyword", "text", "uuid")

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")


def is_name(collection: str) -> bool:
    """Whether a collection can be called so."""
    return _NAME.fullmatch(collection) is not None


def check_name(collection: str) -> str:
    """Return the name. SpecError when no collection can be called so."""
    if not is_name(collection):
        raise SpecError(f"{collection!r} cannot name a collection; use letters, digits, '_', '-' and '.'")
    return collection


def check_params(name: str, params: VectorParams) -> None:
    """Raise SpecError for a vector that cannot be made."""
    if not name or name == "~":
        raise SpecError(f"a vector cannot be called {name!r}")
    if params.kind == "sparse":
        if params.modifier not in (None, "idf"):
            raise SpecError(f"vector {name!r}: modifier {params.modifier!r} is unknown; use idf or none")
        return
    if params.kind != "dense":
        raise SpecError(f"vector {name!r}: kind {params.kind!r} is unknown; use dense or sparse")
    if not params.size or params.size < 1:
        raise SpecError(f"vector {name!r}: a dense vector needs a size of at least 1")
    if params.distance not in DISTANCES:
        raise SpecError(f"vector {name!r}: distance {params.distance!r} is unknown; use {', '.join(DISTANCES)}")


def check_index_type(type: str) -> None:
    """Raise SpecError for a payload index that no store has."""
    if type not in INDEX_TYPES:
        raise SpecError(f"payload index type {type!r} is unknown; use {', '.join(INDEX_TYPES)}")


def check_vectors(known: Mapping[str, VectorParams], owner: str, vectors: Mapping[str, Vector]) -> None:
    """Raise SpecError for vectors that a collection with the vectors `known` cannot hold."""
    for name, vector in vectors.items():
        params = known.get(name)
        if params is None:
            raise SpecError(f"{owner}: unknown vector {name!r}; the collection has {listed(known)}")
        if isinstance(vector, SparseVector):
            if params.kind != "sparse":
                raise SpecError(f"{owner}: vector {name!r} is dense, a sparse one was given")
            if len(vector.indices) != len(vector.values) or len(set(vector.indices)) != len(vector.indices):
                raise SpecError(f"{owner}: sparse vector {name!r} needs one value per index, each index once")
            total = sum(vector.values)
        else:
            if params.kind != "dense":
                raise SpecError(f"{owner}: vector {name!r} is sparse, a dense one was given")
            if len(vector) != params.size:
                raise SpecError(f"{owner}: vector {name!r} has {len(vector)} dimensions, {params.size} are expected")
            total = sum(vector)
        if not math.isfinite(total):
            raise SpecError(f"{owner}: vector {name!r} holds a value that is not a finite number")


def grows_with_similarity(params: VectorParams) -> bool:
    """Whether Qdrant's score grows with similarity; a distance is turned to `1 / (1 + distance)`."""
    return params.kind == "sparse" or params.distance in ("cosine", "dot")


def need_index(indexes: Mapping[str, str], field_name: str, purpose: str) -> str:
    """Return the type of the payload index on a field. SpecError when there is none."""
    kind = indexes.get(field_name)
    if kind is None:
        raise SpecError(f"{purpose} by {field_name!r} needs a payload index on it; add it to payload_indexes")
    return kind


def listed(vectors: Mapping[str, VectorParams]) -> str:
    """Names of vectors for a message."""
    return ", ".join(sorted(vectors)) or "none"


def sliced(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield parts of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def path_keys(field: str) -> tuple[str, ...] | None:
    """Return the keys of a dotted path as Qdrant writes them, None when one cannot be written."""
    keys = filter_values.segments(field)
    if any(not key or '"' in key or "\\" in key for key in keys):
        return None
    return tuple(key if _PLAIN_KEY.fullmatch(key) else f'"{key}"' for key in keys)


def index_path(field_name: str) -> str:
    """Return a field as Qdrant writes it. SpecError when it cannot be written."""
    keys = path_keys(field_name)
    if keys is None:
        raise SpecError(f"a payload index cannot be made on {field_name!r}: the name holds quotes or empty parts")
    return ".".join(keys)


def root_paths(names: Iterable[str]) -> list[str] | None:
    """Return the top-level keys of dotted paths as Qdrant writes them; None where one cannot be written."""
    roots = [path_keys(name) for name in names]
    return None if None in roots else sorted({keys[0] for keys in roots if keys})


def object_arrays(payload: Any, prefix: str = "") -> set[str]:
    """Return the dotted paths in a payload where an array holds objects."""
    found: set[str] = set()
    if isinstance(payload, dict):
        for key, value in payload.items():
            if isinstance(value, dict | list):
                found |= object_arrays(value, f"{prefix}.{key}" if prefix else key)
    elif isinstance(payload, list):
        for item in payload:
            if isinstance(item, dict):
                found.add(prefix)
                found |= object_arrays(item, prefix)
    return found


def scalars(payload: Mapping[str, Any] | None, field_name: str) -> set[tuple[str, Any]]:
    """Return the distinct values of a field, each with its type, as `1` and `true` are equal in Python."""
    values = filter_values.elements(filter_values.nodes(payload or {}, field_name))
    return {(type(value).__name__, value) for value in values if isinstance(value, str | int | float)}


def rank(value: Any) -> tuple[int, Any]:
    """An order over values of different types: numbers, then strings."""
    if isinstance(value, str):
        return (1, value)
    return (0, float(value))


class Order:
    """The order of points by the values of a field; points without it have no place."""

    def __init__(self, field_name: str, direction: str) -> None:
        self.field_name = field_name
        self._falling = direction == "desc"
        self._keyed: list[tuple[Any, str]] = []

    def add(self, id: str, payload: Mapping[str, Any] | None) -> None:
        """Take in a point: by its smallest value, falling by its largest."""
        ranks = [rank(value) for _, value in scalars(payload, self.field_name)]
        if ranks:
            self._keyed.append((max(ranks) if self._falling else min(ranks), id))

    def page(self, after: str | None, limit: int) -> tuple[list[str], str | None]:
        """Return the ids of a page and what continues it. BadRequestError for a foreign `after`."""
        self._keyed.sort(key=lambda pair: pair[1])
        self._keyed.sort(key=lambda pair: pair[0], reverse=self._falling)
        start = 0
        if after is not None:
            try:
                last_rank, last_id = orjson.loads(after)
                last = (tuple(last_rank), str(last_id))
            except (orjson.JSONDecodeError, TypeError, ValueError) as error:
                raise BadRequestError(f"{after!r} does not continue a scroll in this order") from error
            # By value, not by position: points may have come and gone between two pages.
            start = sum(1 for pair in self._keyed if pair == last or self._before(pair, last))
        chosen = self._keyed[start : start + limit]
        more = start + limit < len(self._keyed)
        last_one = orjson.dumps([list(chosen[-1][0]), chosen[-1][1]]).decode() if more and chosen else None
        return [id for _, id in chosen], last_one

    def _before(self, pair: tuple[Any, str], last: tuple[Any, str]) -> bool:
        if pair[0] == last[0]:
            return pair[1] < last[1]
        return bool(pair[0] > last[0]) if self._falling else bool(pair[0] < last[0])
