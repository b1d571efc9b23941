"""Collections of a Qdrant server: what is there, and its making, rebuilding and replacing.

    ns_x       alias that reads go through
    ns_x--w    alias that writes go through; taken away while the points are copied, so that a writer waits
    ns_x--<n>  the physical collection behind both

Everything that must be known of a collection is in it: labels and the declared type of each payload index are Qdrant
collection metadata, so that several processes agree, and a snapshot holds them as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qdrant_client import models

from mixpeek_operator.adapters._qdrant_calls import Server, is_unknown_route
from mixpeek_operator.adapters._qdrant_filters import MARK, mark_path
from mixpeek_operator.adapters._vector_rules import check_index_type, check_name, check_params, index_path, listed
from mixpeek_operator.core.errors import ConflictError, InternalError, MixpeekError, NotFoundError, SpecError
from mixpeek_operator.core.errors import UnavailableError as Unavailable
from mixpeek_operator.ports.vectors import VectorParams

_OURS = re.compile(r"(?P<name>.+)--(?:\d+|w)")
_LABELS = "labels"
_INDEX = "index:"
_TENANTS = ("collection_id", "namespace_id")
"""Fields that every search asks for one value of; the server keeps points with the same value together."""
_FENCE_S = 1.0
"""Time in which a write that passed the fence reaches its collection."""
_PAGE = 256
_DISTANCES = {
    "cosine": models.Distance.COSINE,
    "dot": models.Distance.DOT,
    "euclid": models.Distance.EUCLID,
    "manhattan": models.Distance.MANHATTAN,
}
_NAMES = {distance: name for name, distance in _DISTANCES.items()}
_SCHEMAS = {
    # A number index of Qdrant holds either integers or floats; the float one finds both.
    "integer": models.PayloadSchemaType.FLOAT,
    "float": models.PayloadSchemaType.FLOAT,
    "bool": models.PayloadSchemaType.BOOL,
    "datetime": models.PayloadSchemaType.DATETIME,
    "geo": models.PayloadSchemaType.GEO,
    "text": models.PayloadSchemaType.TEXT,
    "keyword": models.PayloadSchemaType.KEYWORD,
    # UUIDs are compared as the strings they are, so their spelling matters as everywhere else.
    "uuid": models.PayloadSchemaType.KEYWORD,
}


@dataclass(frozen=True, slots=True)
class Facts:
    """A collection as the server has it."""

    physical: str
    writes: str
    """Where writes go: the write alias, or the collection itself when it was not made by us."""
    vectors: Mapping[str, VectorParams]
    indexes: Mapping[str, str]
    labels: Mapping[str, str]
    empty: bool
    """Whether the server says that there is no point; its other numbers are approximate."""
    read_at: float
    """Monotonic seconds."""


class Collections:
    """The collections of one server."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def read(self, collection: str) -> Facts | None:
        """What is there under a name, None when nothing is."""
        client = self._server.client
        try:
            info = await self._server.call(client.get_collection, check_name(collection))
        except NotFoundError:
            return None
        metadata = info.config.metadata or {}
        physical = metadata.get("physical")
        return Facts(
            physical=physical or collection,
            writes=write_alias(collection) if physical else collection,
            vectors=_vectors(info.config.params),
            indexes=_indexes(info.payload_schema or {}, metadata),
            labels=dict(metadata.get(_LABELS) or {}),
            empty=info.points_count == 0,
            read_at=time.monotonic(),
        )

    async def names(self) -> list[str]:
        """Every collection, by the name that its users know."""
        client = self._server.client
        aliases = (await self._server.call(client.get_aliases)).aliases
        physical = (await self._server.call(client.get_collections)).collections
        found = {alias.alias_name for alias in aliases} | {one.name for one in physical}
        return sorted(name for name in found if not _OURS.fullmatch(name))

    async def create(self, collection: str, vectors: Mapping[str, VectorParams], labels: Mapping[str, str]) -> None:
        """Make it; ConflictError when it exists with other vectors."""
        if _OURS.fullmatch(check_name(collection)):
            raise SpecError(f"{collection!r} cannot name a collection; names that end so are the vector store's own")
        for name, params in vectors.items():
            check_params(name, params)
        found = await self.read(collection)
        if found is None:
            made = await self._left(collection)
            if made is None:
                made = _physical_name(collection, 1)
                with contextlib.suppress(ConflictError):  # another process makes the same one at this moment
                    await self._make(made, vectors, {"physical": made, _LABELS: dict(labels)})
            await self._point(collection, made)
            found = await self.read(collection)
        if found is None:
            raise Unavailable(f"collection {collection!r} was deleted by another process while it was made; try again")
        if found.vectors != {name: canonical(params) for name, params in vectors.items()}:
            raise ConflictError(
                f"collection {collection!r} exists with the vectors {listed(found.vectors)}, not {listed(vectors)}"
            )

    async def delete(self, collection: str) -> None:
        """Delete it and everything that was ever made for it."""
        client = self._server.client
        found = await self.read(collection)
        # The one that is in use goes last: while it is there the deletion can be seen to be unfinished.
        physical = [name for name in await self._physical(collection) if found is None or name != found.physical]
        await self._drop_all(physical)
        if found is not None:
            await self._server.call(client.delete_collection, found.physical)

    async def add_vector(self, collection: str, facts: Facts, name: str, params: VectorParams) -> None:
        """Add a vector in place, or where the server is too old for that, by a rebuild."""
        client = self._server.client
        config: models.DenseVectorNameConfig | models.SparseVectorNameConfig
        if params.kind == "sparse":
            config = models.SparseVectorNameConfig(sparse=models.SparseVectorConfig(modifier=_modifier(params)))
        else:
            dense = models.DenseVectorConfig(size=params.size or 0, distance=_DISTANCES[params.distance])
            config = models.DenseVectorNameConfig(dense=dense)
        try:
            await self._server.call(client.create_vector_name, facts.physical, name, config)
        except MixpeekError as error:
            if not is_unknown_route(error.__cause__):
                raise
            await self.rebuild(collection, {**facts.vectors, name: params})

    async def delete_vector(self, collection: str, facts: Facts, name: str) -> None:
        """Delete a vector in place, or by a rebuild."""
        client = self._server.client
        try:
            await self._server.call(client.delete_vector_name, facts.physical, name)
        except MixpeekError as error:
            if not is_unknown_route(error.__cause__):
                raise
            await self.rebuild(collection, {key: params for key, params in facts.vectors.items() if key != name})

    async def create_index(self, facts: Facts, field_name: str, type: str) -> None:
        """Index a field, and the marks that say how it is read."""
        check_index_type(type)
        if facts.indexes.get(field_name) == type:
            return
        client, path = self._server.client, index_path(field_name)
        if field_name in facts.indexes:
            await self._server.call(client.delete_payload_index, facts.physical, path)
        await self._note(facts.physical, {f"{_INDEX}{field_name}": type})
        schema: Any = _SCHEMAS[type]
        if field_name in _TENANTS and schema is models.PayloadSchemaType.KEYWORD:
            schema = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
        await self._server.call(client.create_payload_index, facts.physical, path, schema)
        marks = mark_path(field_name)
        if marks is not None:
            keyword = models.PayloadSchemaType.KEYWORD
            await self._server.call(client.create_payload_index, facts.physical, marks, keyword)

    async def delete_index(self, facts: Facts, field_name: str) -> None:
        """Drop the index on a field."""
        if field_name in facts.indexes:
            client, path = self._server.client, index_path(field_name)
            await self._server.call(client.delete_payload_index, facts.physical, path)
            await self._note(facts.physical, {f"{_INDEX}{field_name}": None})

    async def rebuild(self, collection: str, vectors: Mapping[str, VectorParams]) -> None:
        """Copy the points into a new physical collection with `vectors`, and swap.

        Reads go on all the time; writes wait until the swap. A process that dies on the way leaves writes waiting
        until the rebuild is asked for again. ConflictError for a collection that is behind no alias.
        """
        client, facts = self._server.client, await self.read(collection)
        if facts is None:
            raise NotFoundError(f"there is no vector collection {collection!r}")
        if facts.writes == collection:
            raise ConflictError(
                f"collection {collection!r} was not made by us and is behind no alias: its vectors can only be changed "
                "in place, which needs Qdrant 1.18 or newer"
            )
        fence = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=facts.writes))
        await self._server.call(client.update_collection_aliases, [fence])
        await asyncio.sleep(_FENCE_S)
        others = [name for name in await self._physical(collection) if name != facts.physical]
        await self._drop_all(others)
        target = _next_name(collection, facts.physical)
        info = await self._server.call(client.get_collection, facts.physical)
        await self._make(target, vectors, {**(info.config.metadata or {}), "physical": target})
        for path, index in (info.payload_schema or {}).items():
            schema: Any = index.params or index.data_type
            await self._server.call(client.create_payload_index, target, path, schema)
        await self._copy(facts.physical, target, set(facts.vectors) & set(vectors))
        await self._point(collection, target)
        await self._server.call(client.delete_collection, facts.physical)

    async def replace(self, collection: str, found: Facts | None, made: str) -> None:
        """Put a physical collection that a snapshot filled behind the aliases; what was there goes."""
        await self._note(made, {"physical": made})
        if found is not None and found.writes == collection:
            await self._server.call(self._server.client.delete_collection, collection)
        await self._point(collection, made)
        await self._drop_all([name for name in await self._physical(collection) if name != made])

    async def unused_name(self, collection: str) -> str:
        """Return a physical name that nothing has."""
        taken = await self._physical(collection)
        return _physical_name(collection, 1 + max((int(name.rpartition("--")[2]) for name in taken), default=0))

    async def _copy(self, source: str, target: str, vectors: set[str]) -> None:
        client = self._server.client
        offset: Any = None
        while True:
            records, offset = await self._server.call(
                client.scroll,
                source,
                limit=_PAGE,
                offset=offset,
                with_payload=True,
                with_vectors=sorted(vectors) if vectors else False,
            )
            points = [
                models.PointStruct(id=record.id, vector=record.vector or {}, payload=record.payload)
                for record in records
            ]
            if points:
                await self._server.call(client.upsert, target, points, wait=True)
            if offset is None:
                break
        counts = [(await self._server.call(client.count, name, exact=True)).count for name in (source, target)]
        if counts[0] != counts[1]:
            raise InternalError(f"a rebuild copied {counts[1]} of {counts[0]} points; the old collection stays in use")

    async def _make(self, physical: str, vectors: Mapping[str, VectorParams], metadata: Mapping[str, Any]) -> None:
        client = self._server.client
        dense = {
            name: models.VectorParams(size=params.size or 0, distance=_DISTANCES[params.distance])
            for name, params in vectors.items()
            if params.kind == "dense"
        }
        sparse = {
            name: models.SparseVectorParams(modifier=_modifier(params))
            for name, params in vectors.items()
            if params.kind == "sparse"
        }
        await self._server.call(
            client.create_collection,
            physical,
            vectors_config=dense,
            sparse_vectors_config=sparse,
            metadata=dict(metadata),
        )
        info = await self._server.call(client.get_collection, physical)
        if info.config.metadata != dict(metadata):
            await self._server.call(client.delete_collection, physical)
            raise Unavailable(f"the vector store at {self._server.host} keeps no labels: it needs Qdrant 1.16 or newer")

    async def _point(self, collection: str, physical: str) -> None:
        """Put a physical collection behind both aliases, in one step."""
        client = self._server.client
        operations = [
            models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=physical, alias_name=alias))
            for alias in (collection, write_alias(collection))
        ]
        await self._server.call(client.update_collection_aliases, operations)

    async def _note(self, physical: str, metadata: Mapping[str, Any]) -> None:
        """Merge into the metadata; None takes a key away."""
        client = self._server.client
        await self._server.call(client.update_collection, physical, metadata=dict(metadata))

    async def _physical(self, collection: str) -> list[str]:
        pattern = re.compile(rf"{re.escape(collection)}--\d+")
        client = self._server.client
        found = (await self._server.call(client.get_collections)).collections
        return sorted(one.name for one in found if pattern.fullmatch(one.name))

    async def _left(self, collection: str) -> str | None:
        """Return the physical collection that lies under a name without its alias: one whose making was cut short,
        or whose alias somebody took away. With several, the one that holds most is what was in use."""
        client = self._server.client
        names = await self._physical(collection)
        counts = [(await self._server.call(client.count, name, exact=True)).count for name in names]
        return max(zip(counts, names, strict=True))[1] if names else None

    async def _drop_all(self, physical: list[str]) -> None:
        client = self._server.client
        for name in physical:
            await self._server.call(client.delete_collection, name)


def canonical(params: VectorParams) -> VectorParams:
    """Return the parameters as a server tells them: a sparse vector has neither size nor distance."""
    return VectorParams("sparse", modifier=params.modifier) if params.kind == "sparse" else params


def write_alias(collection: str) -> str:
    """Return the alias that writes go through."""
    return f"{collection}--w"


def _physical_name(collection: str, number: int) -> str:
    return f"{collection}--{number}"


def _next_name(collection: str, physical: str) -> str:
    return _physical_name(collection, int(physical.rpartition("--")[2]) + 1)


def _modifier(params: VectorParams) -> models.Modifier | None:
    return models.Modifier.IDF if params.modifier == "idf" else None


def _vectors(params: models.CollectionParams) -> dict[str, VectorParams]:
    found: dict[str, VectorParams] = {}
    dense = params.vectors
    named = dense if isinstance(dense, Mapping) else {"": dense} if dense is not None else {}
    for name, one in named.items():
        found[name] = VectorParams("dense", one.size, _NAMES[one.distance])
    for name, sparse in (params.sparse_vectors or {}).items():
        found[name] = VectorParams("sparse", modifier="idf" if sparse.modifier is models.Modifier.IDF else None)
    return found


def _indexes(schema: Mapping[str, models.PayloadIndexInfo], metadata: Mapping[str, Any]) -> dict[str, str]:
    """Field → declared type. Both must agree: the index that exists, and the note of what it was declared to be."""
    declared = {
        index_path(key.removeprefix(_INDEX)): (key.removeprefix(_INDEX), str(type))
        for key, type in metadata.items()
        if key.startswith(_INDEX)
    }
    found: dict[str, str] = {}
    for path, index in schema.items():
        if path.startswith(f'"{MARK}'):
            continue
        name, type = declared.get(path, (path, index.data_type.value))
        found[name] = type if _SCHEMAS.get(type) == index.data_type else index.data_type.value
    return found
