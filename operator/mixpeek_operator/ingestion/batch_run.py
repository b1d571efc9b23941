"""One walk over a batch: tier by tier, collection by collection, block by block, in bounded memory.

After each block its documents are written, then one transaction stores the position, the counters, the failures
and the changed index signatures. A walk that is cut off anywhere goes on from the last such position; what the
block had already written is written again under the same ids.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog

from mixpeek_operator.core.directory import CollectionInfo, Directory
from mixpeek_operator.core.errors import InternalError, MixpeekError, NotFoundError
from mixpeek_operator.core.ids import document_id, point_id, random
from mixpeek_operator.ingestion.batch_records import (
    COUNTERS,
    ITEMS,
    ITEMS_PER_RECORD,
    failure_write,
    failures_of,
    item_id,
)
from mixpeek_operator.ingestion.lease import HeldBatch
from mixpeek_operator.ingestion.lineage import Source, fingerprint, payload
from mixpeek_operator.ingestion.records import scan
from mixpeek_operator.ingestion.signatures import Signatures
from mixpeek_operator.ingestion.sources import SourceReader
from mixpeek_operator.ports.compute import RowFailure, Runner, Segment, SourceRow
from mixpeek_operator.ports.metadata import MetadataStore, Write
from mixpeek_operator.ports.vectors import Point, VectorStore

_log = structlog.get_logger(__name__)
_BLOCK_BYTES = 8 * 1024 * 1024
_UPSERT = 1000
_STEPS_SHOWN = 20
_LOG_LINES = 200
_TRANSIENT = frozenset({"UnavailableError", "TimeoutError", "ConnectionError", "OSError", "RateLimitedError"})


@dataclass(slots=True)
class _Unit:
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


class BatchRun:
    """Walks one held batch to its end. Raises StoppedError when it is not this worker's any more, and a
    retryable MixpeekError when a backend is away."""

    def __init__(
        self,
        held: HeldBatch,
        *,
        metadata: MetadataStore,
        vectors: VectorStore,
        directory: Directory,
        runner: Runner,
        reader: SourceReader,
        signatures: Signatures,
        block_rows: int,
    ) -> None:
        self._held = held
        self._metadata = metadata
        self._vectors = vectors
        self._directory = directory
        self._runner = runner
        self._reader = reader
        self._signatures = signatures
        self._block_rows = block_rows
        self._collections: dict[str, CollectionInfo] = {}
        self._in_flight = 0
        self._uncounted = dict.fromkeys(COUNTERS, 0)

    async def walk(self) -> None:
        """Process every step that is left and store the batch's final status."""
        batch = self._held.body
        while batch["cursor"]["step"] < len(batch["steps"]):
            number = batch["cursor"]["step"]
            step = batch["steps"][number]
            self._start(step)
            await self._held.save()
            try:
                await self._step(step)
            except MixpeekError as error:
                if error.retryable:
                    raise
                self._fail(step, error.message, error.type)
            self._end(number, step)
            await self._held.save()
        await self._finish()

    async def fail(self, reason: str, category: str) -> None:
        """End the batch as FAILED."""
        batch = self._held.body
        batch |= {"failure_reason": reason, "failure_category": category}
        for step in batch["steps"]:
            if step["status"] in ("PENDING", "IN_PROGRESS"):
                step["status"] = "FAILED"
        for tier in batch["tier_tasks"]:
            if tier["status"] in ("PENDING", "IN_PROGRESS"):
                tier |= {"status": "FAILED", "completed_at": self._held.now()}
        await self._finish()

    async def _step(self, step: dict[str, Any]) -> None:
        batch = self._held.body
        broken = [
            item["collection_id"]
            for item in batch["steps"]
            if item["collection_id"] in step["sources"] and item["status"] in ("FAILED", "SKIPPED")
        ]
        if broken and not step["reads_root"]:
            step |= {"status": "SKIPPED", "error": f"what feeds it failed: {', '.join(broken)}"}
            return
        collection = await self._collection(step["collection_id"])
        if not collection.enabled:
            step |= {"status": "SKIPPED", "error": f"collection {collection.name!r} was disabled"}
            return
        before = step["counters"]["documents"] + step["counters"]["deleted"]
        await self._feed(step, collection)
        if step["counters"]["documents"] + step["counters"]["deleted"] != before:
            await self._signatures.touch(collection)
        step["status"] = "COMPLETED_WITH_ERRORS" if step["counters"]["failed"] else "COMPLETED"

    async def _feed(self, step: dict[str, Any], collection: CollectionInfo) -> None:
        """Stream blocks through the extractor; while one is computed the one before is being written."""
        waiting: deque[_Unit] = deque()
        self._in_flight = 0
        self._uncounted = dict.fromkeys(COUNTERS, 0)
        rows = self._rows(step, collection, waiting)
        results = self._runner.run(
            extractor=collection.extractor,
            version=collection.version,
            parameters=collection.parameters,
            namespace_id=collection.namespace_id,
            rows=rows,
        )
        writing: asyncio.Task[None] | None = None
        try:
            async for block in results:
                if writing is not None:
                    await writing
                units = [waiting.popleft()]
                while not units[-1].rows:
                    units.append(waiting.popleft())
                writing = asyncio.create_task(self._land(step, collection, units, block))
            if writing is not None:
                await writing
            writing = None
            await self._land(step, collection, list(waiting), ())
        finally:
            if writing is not None:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
            for generator in (results, rows):
                if close := getattr(generator, "aclose", None):
                    await close()

    async def _rows(
        self, step: dict[str, Any], collection: CollectionInfo, waiting: deque[_Unit]
    ) -> AsyncIterator[Sequence[SourceRow]]:
        batch = self._held.body
        total = int(batch["pass_items"])
        size = min(self._block_rows, max(16, total // _STEPS_SHOWN))
        position = int(batch["cursor"]["position"])
        while position < total:
            items = await self._items(position, min(position + size, total))
            async for unit in self._units(step, collection, items):
                if unit.position is not None:
                    unit.position = position + len(items)
                self._in_flight += 1
                if not unit.rows and self._in_flight == 1:
                    # Nothing before it is on its way, so it may move the position itself.
                    await self._land(step, collection, [unit], ())
                    continue
                waiting.append(unit)
                if unit.rows:
                    yield unit.rows
            position += len(items)

    async def _units(
        self, step: dict[str, Any], collection: CollectionInfo, items: Sequence[str]
    ) -> AsyncIterator[_Unit]:
        unit = _Unit()
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
                unit = _Unit()
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
        collection = await self._collection(collection_id)
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
        if internal.get("fingerprint") != wanted or internal.get("attempt") == self._attempt:
            return False
        own_earlier_pass = bool(batch["pass"]) and internal.get("batch_id") == self._held.id
        return own_earlier_pass or bool(batch["dedup_strategy"] == "skip")

    @property
    def _attempt(self) -> str:
        return f"{self._held.id}.{self._held.body['pass']}"

    async def _land(
        self,
        step: dict[str, Any],
        collection: CollectionInfo,
        units: Sequence[_Unit],
        results: Sequence[Segment | RowFailure],
    ) -> None:
        """Write the results of one block, and of the units without rows before it, and move the position."""
        if not units:
            return
        batch = self._held.body
        segments: dict[str, list[Segment]] = {}
        failures = [(failure, unit) for unit in units for failure in unit.failures]
        last = units[-1]
        for result in results:
            if isinstance(result, RowFailure):
                failures.append((result, last))
            else:
                segments.setdefault(result.source_id, []).append(result)
        failed = {failure.source_id for failure, _ in failures}
        points, stale = self._documents(collection, last, segments, failed)
        await self._held.check()
        self._collections.pop(collection.id, None)
        await self._collection(collection.id)  # one deleted in the meantime gets no more documents
        if stale:
            await self._delete_below(collection, stale)
            ids = [point_id(collection.namespace_id, id) for id in stale]
            await self._vectors.delete_points(collection.vector_collection, ids)
        for start in range(0, len(points), _UPSERT):
            await self._vectors.upsert(collection.vector_collection, points[start : start + _UPSERT])
        counted = {
            "read": sum(unit.read for unit in units),
            "skipped": sum(unit.skipped for unit in units),
            "processed": len(set(last.sources) - failed),
            "failed": len(failed),
            "documents": len(points),
            "deleted": len(stale),
        }
        extra = [self._failure(step, failure, unit) for failure, unit in failures]
        if points or stale:
            extra.append(self._signatures.mark(collection.namespace_id, collection.id))
        positions = [unit.position for unit in units if unit.position is not None]

        def advance() -> None:
            for name in COUNTERS:
                self._uncounted[name] += counted[name]
            if positions:
                # Only together with the position, so that what is done again is not counted again.
                for name in COUNTERS:
                    step["counters"][name] += self._uncounted[name]
                    batch["counters"][name] += self._uncounted[name]
                self._uncounted = dict.fromkeys(COUNTERS, 0)
                batch["cursor"] = {"step": batch["cursor"]["step"], "position": max(positions)}
                batch["node_death_resubmit_count"] = 0
            self._in_flight -= len(units)

        await self._held.save(extra, change=advance)

    async def _delete_below(self, collection: CollectionInfo, ids: Sequence[str]) -> None:
        """Delete what downstream collections made of documents that are about to go."""
        for below in await self._directory.collections(self._held.namespace_id):
            if collection.id not in below.source_ids:
                continue
            made = await self._reader.made_of(below, ids)
            gone = [source.id for sources in made.values() for source in sources]
            if gone:
                await self._delete_below(below, gone)
                points = [point_id(below.namespace_id, id) for id in gone]
                await self._vectors.delete_points(below.vector_collection, points)
                await self._signatures.touch(below)

    def _documents(
        self,
        collection: CollectionInfo,
        unit: _Unit,
        segments: Mapping[str, Sequence[Segment]],
        failed: set[str],
    ) -> tuple[list[Point], list[str]]:
        """Points to write, and ids of documents that a source no longer has.

        Segment 0 of every source comes last: where it stands, the others stand too, however a write ended.
        """
        now = self._held.now()
        points: list[tuple[int, Point]] = []
        stale: list[str] = []
        for source_id, source in unit.sources.items():
            if source_id in failed:
                continue
            made = segments.get(source_id, ())
            count = max((segment.index for segment in made), default=-1) + 1
            old = unit.old.get(source_id, {}).get("_internal", {})
            stale += [
                document_id(collection.id, source_id, index) for index in range(count, int(old.get("segments", 0)))
            ]
            fields, vectors = unit.extras[source_id]
            internal = {
                "created_at": old.get("created_at", now),
                "updated_at": now,
                "batch_id": self._held.id,
                "attempt": self._attempt,
                "fingerprint": fingerprint(source, collection),
                "segments": count,
            }
            for segment in made:
                id = document_id(collection.id, source_id, segment.index)
                body = payload(
                    collection, source, id, {**fields, **segment.fields}, {**internal, "segment": segment.index}
                )
                point = Point(point_id(collection.namespace_id, id), {**vectors, **segment.vectors}, body)
                points.append((segment.index, point))
        points.sort(key=lambda item: -item[0])
        return [point for _, point in points], stale

    def _failure(self, step: Mapping[str, Any], failure: RowFailure, unit: _Unit) -> Write:
        root = unit.roots.get(failure.source_id, failure.source_id)
        source = unit.sources.get(failure.source_id)
        return failure_write(
            self._held.body,
            {
                "tier_num": step["tier"],
                "collection_id": step["collection_id"],
                "source_id": failure.source_id,
                "object_id": (source.root_object_id if source else None) or root,
                "root_id": root,
                "error": failure.message,
                "error_type": failure.error_type,
                "transient": failure.error_type in _TRANSIENT,
                "timestamp": self._held.now(),
            },
        )

    async def _items(self, start: int, end: int) -> Sequence[str]:
        batch = self._held.body
        first, last = start // ITEMS_PER_RECORD, (end - 1) // ITEMS_PER_RECORD
        wanted = [item_id(self._held.id, batch["pass"], index) for index in range(first, last + 1)]
        records = await self._metadata.get_many(ITEMS, self._held.namespace_id, wanted)
        if len(records) != len(wanted):
            raise InternalError(f"items {start} to {end} of batch {self._held.id} are missing")
        ids = [str(id) for record in records for id in record.body["ids"]]
        return ids[start - first * ITEMS_PER_RECORD : end - first * ITEMS_PER_RECORD]

    async def _collection(self, id: str) -> CollectionInfo:
        if id not in self._collections:
            try:
                self._collections[id] = await self._directory.collection(self._held.namespace_id, id)
            except NotFoundError as error:
                raise NotFoundError(f"collection {id} was deleted while the batch ran") from error
        return self._collections[id]

    def _start(self, step: dict[str, Any]) -> None:
        batch, now = self._held.body, self._held.now()
        batch |= {"status": "IN_PROGRESS", "state": "IN_PROGRESS", "current_tier": step["tier"], "released": False}
        tier = batch["tier_tasks"][step["tier"]]
        tier |= {"status": "IN_PROGRESS", "started_at": tier["started_at"] or now}
        if step["status"] == "PENDING":
            self._note(step["tier"], f"{step['collection_id']}: started ({step['extractor_id']})")
        step["status"] = "IN_PROGRESS"

    def _fail(self, step: dict[str, Any], message: str, category: str) -> None:
        step |= {"status": "FAILED", "error": message, "error_type": category}

    def _end(self, number: int, step: dict[str, Any]) -> None:
        batch, counters = self._held.body, step["counters"]
        ended = ", ".join(f"{counters[name]} {name}" for name in COUNTERS if counters[name])
        why = f": {step['error']}" if step["error"] else ""
        self._note(step["tier"], f"{step['collection_id']}: {step['status']} ({ended or 'nothing to do'}){why}")
        batch["cursor"] = {"step": number + 1, "position": 0}
        inside = [item for item in batch["steps"] if item["tier"] == step["tier"]]
        if number + 1 < len(batch["steps"]) and batch["steps"][number + 1]["tier"] == step["tier"]:
            return
        tier, now = batch["tier_tasks"][step["tier"]], self._held.now()
        took = datetime.fromisoformat(now) - datetime.fromisoformat(tier["started_at"])
        status = _worst([item["status"] for item in inside])
        tier |= {"status": status, "completed_at": now, "duration_ms": took.total_seconds() * 1000}

    def _note(self, tier: int, message: str) -> None:
        line = {"timestamp": self._held.now(), "tier_num": tier, "message": message}
        self._held.body["log"] = [*self._held.body["log"][-_LOG_LINES:], line]

    async def _finish(self) -> None:
        batch = self._held.body
        failed: set[str] = set()
        records = 0
        async for record in scan(self._metadata, ITEMS, self._held.namespace_id, failures_of(self._held.id)):
            failed.add(str(record.body["object_id"]))
            records += 1
        broken = [step for step in batch["steps"] if step["status"] in ("FAILED", "SKIPPED")]
        done = batch["counters"]["processed"] + batch["counters"]["skipped"]
        if batch["failure_reason"] or any(step["status"] == "FAILED" for step in broken) or (failed and not done):
            status = "FAILED"
        else:
            status = "COMPLETED_WITH_ERRORS" if failed or broken else "COMPLETED"
        if status == "FAILED" and not batch["failure_reason"]:
            first = next((step for step in broken if step["error"]), None)
            batch["failure_reason"] = first["error"] if first else f"all {len(failed)} objects failed"
            batch["failure_category"] = "pipeline" if first else "validation"
        batch["counters"]["failed"] = records
        batch |= {
            "status": status,
            "state": status,
            "failed_object_count": len(failed),
            "completed_at": self._held.now(),
        }
        await self._held.save(release=True)
        _log.info("batch ended", batch_id=self._held.id, status=status, **batch["counters"])


def _worst(statuses: Sequence[str]) -> str:
    for status in ("FAILED", "COMPLETED_WITH_ERRORS", "SKIPPED"):
        if status in statuses:
            return status
    return "COMPLETED"


def log_id() -> str:
    """Return an id that ties an error shown to a user to the log line with its traceback."""
    return random("log", 10)
