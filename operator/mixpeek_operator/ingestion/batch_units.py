"""What a batch's walk reads: items become sources, sources become blocks of rows for the extractor."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mixpeek_operator.core.directory import CollectionInfo, Directory
from mixpeek_operator.core.errors import InternalError, MixpeekError, NotFoundError
from mixpeek_operator.ingestion.batch_records import ITEMS, ITEMS_PER_RECORD, item_id
from mixpeek_operator.ingestion.lease import HeldBatch
from mixpeek_operator.ingestion.lineage import Source, fingerprint
from mixpeek_operator.ingestion.sources import SourceReader
from mixpeek_operator.ports.compute import RowFailure, SourceRow
from mixpeek_operator.ports.metadata import MetadataStore

_BLOCK_BYTES = 8 * 1024 * 1024


@dataclass(slots=True)
class Unit:
    """A block of rows on its way through the extractor."""

    sources: dict[str, Source] = field(default_factory=dict)
    roots: dict[str, str] = field(default_factory=dict)
    extras: dict[str, tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=dict)
    old: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    failures: list[RowFailure] = field(default_factory=list)
    rows: list[SourceRow] = field(default_factory=list)
    size: int = 0
    read: int = 0
    skipped: int = 0
    position: int | None = None
    """Where the walk goes on after this unit; None inside a chunk of items."""


class UnitReader:
    """Reads the units of one held batch."""

    def __init__(
        self, held: HeldBatch, metadata: MetadataStore, directory: Directory, reader: SourceReader, *, block_rows: int
    ) -> None:
        """`block_rows` is the most rows of one unit."""
        self._held = held
        self._metadata = metadata
        self._directory = directory
        self._reader = reader
        self._block_rows = block_rows
        self._collections: dict[str, CollectionInfo] = {}

    async def units(
        self, step: dict[str, Any], collection: CollectionInfo, items: Sequence[str]
    ) -> AsyncIterator[Unit]:
        """Yield the units of some items; the last one is complete when its position is set."""
        unit = Unit()
        sources, roots, unit.failures = await self._sources(step, collection, items)
        unit.read = len(sources) + len(unit.failures)
        unit.roots |= {failure.source_id: failure.source_id for failure in unit.failures}
        old = await self._reader.first_segments(collection, [source.id for source in sources])
        for source in sources:
            if self._done(old.get(source.id), fingerprint(source, collection)):
                unit.skipped += 1
                continue
            if len(unit.rows) >= self._block_rows or unit.size >= _BLOCK_BYTES:
                yield unit
                unit = Unit()
            unit.roots[source.id] = roots[source.id]
            try:
                inputs = await self._reader.inputs(collection, source)
                unit.extras[source.id] = await self._reader.passthrough(collection, source)
            except MixpeekError as error:
                if error.retryable:
                    raise
                unit.failures.append(RowFailure(source.id, error.type, error.message))
                continue
            unit.sources[source.id] = source
            if source.id in old:
                unit.old[source.id] = old[source.id]
            unit.rows.append(SourceRow(source.id, inputs))
            unit.size += sum(len(value) for value in inputs.values() if isinstance(value, str | bytes))
        unit.position = 0
        yield unit

    async def _sources(
        self, step: Mapping[str, Any], collection: CollectionInfo, items: Sequence[str]
    ) -> tuple[list[Source], dict[str, str], list[RowFailure]]:
        """The sources that some items of the batch are, or have become upstream; each with its item."""
        batch = self._held.body
        with_vectors = bool(collection.field_passthrough)
        sources: list[Source] = []
        failures: list[RowFailure] = []
        roots: dict[str, str] = {}
        if step["reads_root"]:
            if batch["type"] == "BUCKET":
                sources, failures = await self._reader.objects(self._held.namespace_id, items)
            else:
                sources, failures = await self._reader.documents(
                    collection.vector_collection, self._held.namespace_id, items, with_vectors=with_vectors
                )
            roots = {source.id: source.id for source in sources}
        for upstream in step["sources"]:
            for root, made in (await self._made(upstream, items, with_vectors)).items():
                sources += made
                roots |= {source.id: root for source in made}
        return sources, roots, failures

    async def _made(self, collection_id: str, items: Sequence[str], with_vectors: bool) -> dict[str, list[Source]]:
        """What a collection that this batch fed made of some items, directly or through others, per item."""
        step = next(item for item in self._held.body["steps"] if item["collection_id"] == collection_id)
        collection = await self.collection(collection_id)
        origin: dict[str, str] = {item: item for item in items} if step["reads_root"] else {}
        for upstream in step["sources"]:
            for root, made in (await self._made(upstream, items, False)).items():
                origin |= {source.id: root for source in made}
        found: dict[str, list[Source]] = {}
        made_of = await self._reader.made_of(collection, list(origin), with_vectors=with_vectors)
        for source_id, made in made_of.items():
            found.setdefault(origin[source_id], []).extend(made)
        return found

    def _done(self, old: Mapping[str, Any] | None, wanted: str) -> bool:
        """Whether the documents of a source are up to date and stay as they are."""
        if old is None:
            return False
        batch, internal = self._held.body, old["_internal"]
        if internal.get("fingerprint") != wanted or internal.get("attempt") == self.attempt:
            return False
        own_earlier_pass = bool(batch["pass"]) and internal.get("batch_id") == self._held.id
        return own_earlier_pass or bool(batch["dedup_strategy"] == "skip")

    @property
    def attempt(self) -> str:
        """What documents of this pass are marked with."""
        return f"{self._held.id}.{self._held.body['pass']}"

    async def items(self, start: int, end: int) -> Sequence[str]:
        """Return the ids of some items of the batch."""
        batch = self._held.body
        first, last = start // ITEMS_PER_RECORD, (end - 1) // ITEMS_PER_RECORD
        wanted = [item_id(self._held.id, batch["pass"], index) for index in range(first, last + 1)]
        records = await self._metadata.get_many(ITEMS, self._held.namespace_id, wanted)
        if len(records) != len(wanted):
            raise InternalError(f"items {start} to {end} of batch {self._held.id} are missing")
        ids = [str(id) for record in records for id in record.body["ids"]]
        return ids[start - first * ITEMS_PER_RECORD : end - first * ITEMS_PER_RECORD]

    async def collection(self, id: str, *, fresh: bool = False) -> CollectionInfo:
        """Return a collection, asked for once unless `fresh`. Raises NotFoundError for one that was deleted."""
        if fresh or id not in self._collections:
            try:
                self._collections[id] = await self._directory.collection(self._held.namespace_id, id)
            except NotFoundError as error:
                raise NotFoundError(f"collection {id} was deleted while the batch ran") from error
        return self._collections[id]
