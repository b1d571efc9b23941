"""One vector collection on disk: an Edge shard and the facts beside it, swapped as a whole.

    <root>/<collection>/meta.json     labels, vectors, indexes, and which shard directory is current
    <root>/<collection>/shard-<n>/    the Edge shard

A collection appears and vanishes by one rename, and a restored shard becomes current by replacing `meta.json`, so
a process that is killed never leaves half of either.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
import qdrant_edge as edge

from mixpeek_operator.adapters._vector_rules import check_index_type, check_params
from mixpeek_operator.core.errors import (
    ConflictError,
    InternalError,
    MixpeekError,
    NotFoundError,
    SpecError,
    UnavailableError,
)
from mixpeek_operator.ports.vectors import VectorParams

_META = "meta.json"
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
"""A top-level field whose Edge path is its name."""
_HIDDEN = "~"
"""Sparse vector that every shard has, as Edge wants at least one vector at creation."""

_DISTANCES = {
    "cosine": edge.Distance.Cosine,
    "dot": edge.Distance.Dot,
    "euclid": edge.Distance.Euclid,
    "manhattan": edge.Distance.Manhattan,
}
_MESSAGES: tuple[tuple[str, type[MixpeekError]], ...] = (
    ("dimension", SpecError),
    ("vector name", SpecError),
    ("sparse vectors", SpecError),
    ("already exists with different parameters", ConflictError),
    ("No appropriate index", SpecError),
    ("JSON path", SpecError),
    ("No point with id", NotFoundError),
    ("No space", UnavailableError),
    ("os error", UnavailableError),
    ("runtime error", UnavailableError),
)
_INDEXES = {
    # A number index of Edge holds either integers or floats; the float one finds both.
    "integer": edge.PayloadSchemaType.Float,
    "float": edge.PayloadSchemaType.Float,
    "bool": edge.PayloadSchemaType.Bool,
    "datetime": edge.PayloadSchemaType.Datetime,
    "geo": edge.PayloadSchemaType.Geo,
    "text": edge.PayloadSchemaType.Text,
    "keyword": edge.PayloadSchemaType.Keyword,
    # UUIDs are compared as the strings they are, so their spelling matters as everywhere else.
    "uuid": edge.PayloadSchemaType.Keyword,
}


def translate(error: BaseException) -> MixpeekError:
    """Return our error for one that the Edge binding raised (it knows ValueError, TypeError and Exception)."""
    if isinstance(error, MixpeekError):
        return error
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, OSError):
        return UnavailableError(f"vector store: {text}")
    if isinstance(error, ValueError | TypeError | OverflowError):
        return SpecError(f"the vector store cannot take this: {text}")
    for part, ours in _MESSAGES:
        if part in text:
            return ours(f"vector store: {text}")
    return InternalError(f"vector store: {text}")


@dataclass(slots=True)
class Meta:
    """The facts beside a shard."""

    shard: str
    labels: dict[str, str]
    vectors: dict[str, VectorParams] = field(default_factory=dict)
    indexes: dict[str, str] = field(default_factory=dict)
    arrays: set[str] = field(default_factory=set)
    """Dotted paths where some point holds an array of objects."""

    def dump(self) -> bytes:
        return orjson.dumps({**asdict(self), "arrays": sorted(self.arrays)})

    @classmethod
    def parse(cls, data: bytes) -> Meta:
        body = orjson.loads(data)
        return cls(
            shard=body["shard"],
            labels=body["labels"],
            vectors={name: VectorParams(**params) for name, params in body["vectors"].items()},
            indexes=body["indexes"],
            arrays=set(body["arrays"]),
        )


class Shard:
    """An open collection. Every method blocks; errors are ours."""

    def __init__(self, directory: Path, meta: Meta, opened: Any) -> None:
        self.directory = directory
        self.meta = meta
        self.edge = opened
        self._only: dict[str, str | None] = {}

    @classmethod
    def create(cls, directory: Path, vectors: Mapping[str, VectorParams], labels: Mapping[str, str]) -> Shard:
        """Make a collection in `directory`, which must not exist."""
        making = directory.with_name(f".new-{uuid.uuid4().hex}")
        meta = Meta("shard-1", dict(labels), dict(vectors))
        try:
            (making / meta.shard).mkdir(parents=True)
            made = edge.EdgeShard.create(str(making / meta.shard), _config())
            for name, params in vectors.items():
                made.update(_create_vector(name, params))
            made.flush()
            made.close()
            _write_durably(making / _META, meta.dump())
            making.rename(directory)
        except Exception as error:
            shutil.rmtree(making, ignore_errors=True)
            raise translate(error) from error
        return cls.load(directory)

    @classmethod
    def load(cls, directory: Path) -> Shard:
        """Open the collection in `directory`; shards that are not current are left-overs and go."""
        try:
            meta = Meta.parse((directory / _META).read_bytes())
            for left in directory.iterdir():
                if left.name not in (meta.shard, _META):
                    shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
            return cls(directory, meta, edge.EdgeShard.load(str(directory / meta.shard)))
        except Exception as error:
            raise translate(error) from error

    def update(self, operation: Any) -> None:
        try:
            self.edge.update(operation)
        except Exception as error:
            raise translate(error) from error

    def save(self) -> None:
        """Replace `meta.json`."""
        try:
            _write_durably(self.directory / _META, self.meta.dump())
        except OSError as error:
            raise translate(error) from error

    def add_vector(self, name: str, params: VectorParams) -> None:
        check_params(name, params)
        self.update(_create_vector(name, params))
        self.meta.vectors[name] = params
        self.save()

    def delete_vector(self, name: str) -> None:
        self.meta.vectors.pop(name, None)
        self.save()
        self.update(edge.UpdateOperation.delete_vector_name(name))

    def create_index(self, field_name: str, path: str, type: str) -> None:
        check_index_type(type)
        self.update(edge.UpdateOperation.create_field_index(path, _INDEXES[type]))
        self.meta.indexes[field_name] = type
        self.save()

    def delete_index(self, field_name: str, path: str) -> None:
        self.meta.indexes.pop(field_name, None)
        self.save()
        self.update(edge.UpdateOperation.delete_field_index(path))

    def learn_arrays(self, found: set[str]) -> None:
        """Remember, before such points are written, where arrays hold objects."""
        if not found <= self.meta.arrays:
            self.meta.arrays |= found
            self.save()

    def learn_values(self, payloads: Iterable[Mapping[str, Any]], *, whole: bool) -> None:
        """Remember, before it is written, that a field has another value now; a part of a payload keeps the rest."""
        for name, value in self._only.items():
            if value is not None and any(
                payload.get(name) != value for payload in payloads if whole or name in payload
            ):
                self._only[name] = None

    def only_value(self, field_name: str) -> str | None:
        """Return the value that every point has in an indexed field of keywords; None when that is not known.

        Found out by the first question, and kept true by `learn_values`.
        """
        if field_name not in self._only:
            if self.meta.indexes.get(field_name) != "keyword" or not _PLAIN.fullmatch(field_name):
                return None
            try:
                counted = list(self.edge.facet(edge.FacetRequest(field_name, limit=1, exact=True)))
                if not counted:
                    return None
                value = counted[0].value
                others = edge.Filter(must_not=[edge.FieldCondition(field_name, match=edge.MatchValue(value))])
                alone = self.edge.count(edge.CountRequest(exact=True, filter=others)) == 0
            except Exception as error:
                raise translate(error) from error
            self._only[field_name] = value if alone else None
        return self._only[field_name]

    def flush(self) -> None:
        try:
            self.edge.flush()
        except Exception as error:
            raise translate(error) from error

    def snapshot(self, target: Path) -> None:
        """Write the collection to one archive; nothing may write meanwhile."""
        self.flush()
        making = target.with_name(f".{target.name}-{uuid.uuid4().hex}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tarfile.open(making, "w") as archive:
                archive.add(self.directory / _META, _META)
                archive.add(self.directory / self.meta.shard, "shard")
            making.replace(target)
        except OSError as error:
            raise translate(error) from error
        finally:
            making.unlink(missing_ok=True)

    def close(self) -> None:
        try:
            self.edge.flush()
            self.edge.close()
        except Exception as error:
            raise translate(error) from error


def restore(directory: Path, source: Path) -> None:
    """Make the collection in `directory` what the archive holds. Raises SpecError for another kind of file."""
    making = directory.with_name(f".new-{uuid.uuid4().hex}")
    try:
        making.mkdir(parents=True)
        with tarfile.open(source) as archive:
            archive.extractall(making, filter="data")
        meta = Meta.parse((making / _META).read_bytes())
        edge.EdgeShard.load(str(making / "shard")).close()
        meta.shard = f"shard-{uuid.uuid4().hex[:8]}"
        (making / "shard").rename(making / meta.shard)
        _write_durably(making / _META, meta.dump())
        if directory.exists():
            (making / meta.shard).rename(directory / meta.shard)
            _write_durably(directory / _META, meta.dump())
        else:
            making.rename(directory)
    except FileNotFoundError as error:
        raise NotFoundError(f"the snapshot {source.name} does not exist or is incomplete") from error
    except (tarfile.TarError, orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise SpecError(f"{source.name} is no snapshot of a vector collection") from error
    except Exception as error:
        raise translate(error) from error
    finally:
        shutil.rmtree(making, ignore_errors=True)


def drop(directory: Path) -> None:
    """Delete the collection; it is gone with the rename, whatever happens next."""
    leaving = directory.with_name(f".gone-{uuid.uuid4().hex}")
    try:
        directory.rename(leaving)
    except FileNotFoundError:
        return
    except OSError as error:
        raise translate(error) from error
    shutil.rmtree(leaving, ignore_errors=True)


def sweep(root: Path) -> None:
    """Remove what a killed process left half made or half deleted."""
    for left in root.glob(".*-*"):
        if left.is_dir() and left.name.startswith((".new-", ".gone-")):
            shutil.rmtree(left, ignore_errors=True)


def exists(directory: Path) -> bool:
    """Whether a collection is there."""
    return (directory / _META).is_file()


def _config() -> Any:
    return edge.EdgeConfig(sparse_vectors={_HIDDEN: edge.EdgeSparseVectorParams()})


def _create_vector(name: str, params: VectorParams) -> Any:
    check_params(name, params)
    if params.kind == "sparse":
        modifier = edge.Modifier.Idf if params.modifier == "idf" else None
        return edge.UpdateOperation.create_sparse_vector(name, modifier)
    return edge.UpdateOperation.create_dense_vector(name, params.size or 0, _DISTANCES[params.distance])


def _write_durably(path: Path, data: bytes) -> None:
    making = path.with_name(f"{path.name}.new")
    with making.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    making.replace(path)
