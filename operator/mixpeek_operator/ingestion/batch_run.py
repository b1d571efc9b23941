"""One walk over a batch: tier by tier, collection by collection, block by block, in bounded memory.

After each block its documents are written, then one transaction stores the position, the counters, the failures
and the changed index signatures. A walk that is cut off anywhere goes on from the last such position; what the
block had already written is written again under the same ids.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from mixpeek_operator.core.directory import CollectionInfo, Directory
from mixpeek_operator.core.errors import MixpeekError
from mixpeek_operator.core.ids import document_id, point_id, random
from mixpeek_operator.ingestion.batch_records import COUNTERS, failure_write
from mixpeek_operator.ingestion.batch_steps import Steps
from mixpeek_operator.ingestion.batch_units import Unit, UnitReader
from mixpeek_operator.ingestion.lease import HeldBatch
from mixpeek_operator.ingestion.lineage import fingerprint, payload
from mixpeek_operator.ingestion.signatures import Signatures
from mixpeek_operator.ingestion.sources import SourceReader
from mixpeek_operator.ports.compute import RowFailure, Runner, Segment, SourceRow
from mixpeek_operator.ports.metadata import MetadataStore, Write
from mixpeek_operator.ports.vectors import Point, VectorStore

_UPSERT = 1000
_STEPS_SHOWN = 20
_TRANSIENT = frozenset({"UnavailableError", "TimeoutError", "ConnectionError", "OSError", "RateLimitedError"})


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
        self._vectors = vectors
        self._directory = directory
        self._runner = runner
        self._reader = reader
        self._signatures = signatures
        self._block_rows = block_rows
        self._units = UnitReader(held, metadata, directory, reader, block_rows=block_rows)
        self._steps = Steps(held, metadata)
        self._in_flight = 0
        self._uncounted = dict.fromkeys(COUNTERS, 0)

    async def walk(self) -> None:
        """Process every step that is left and store the batch's final status."""
        batch = self._held.body
        while batch["cursor"]["step"] < len(batch["steps"]):
            number = batch["cursor"]["step"]
            step = batch["steps"][number]
            self._steps.start(step)
            await self._held.save()
            try:
                await self._step(step)
            except MixpeekError as error:
                if error.retryable:
                    raise
                self._steps.broke(step, error.message, error.type)
            self._steps.end(number, step)
            await self._held.save()
        await self._steps.finish()

    async def fail(self, reason: str, category: str) -> None:
        """End the batch as FAILED."""
        await self._steps.abandon(reason, category)

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
        collection = await self._units.collection(step["collection_id"])
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
        waiting: deque[Unit] = deque()
        self._in_flight = 0
        self._uncounted = dict.fromkeys(COUNTERS, 0)
        rows = self._rows(step, collection, waiting)
        results = self._runner.run(
            extractor=collection.extractor,
            version=collection.version,
            parameters=collection.parameters,
            namespace_id=collection.namespace_id,
            rows=rows,
            run_id=f"{self._held.id}-{collection.id}",
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
        self, step: dict[str, Any], collection: CollectionInfo, waiting: deque[Unit]
    ) -> AsyncIterator[Sequence[SourceRow]]:
        batch = self._held.body
        total = int(batch["pass_items"])
        size = min(self._block_rows, max(16, total // _STEPS_SHOWN))
        position = int(batch["cursor"]["position"])
        while position < total:
            items = await self._units.items(position, min(position + size, total))
            async for unit in self._units.units(step, collection, items):
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

    async def _land(
        self,
        step: dict[str, Any],
        collection: CollectionInfo,
        units: Sequence[Unit],
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
        await self._units.collection(collection.id, fresh=True)  # one deleted in the meantime gets no more documents
        made_by = {name: by for made in segments.values() for segment in made for name, by in segment.embedders.items()}
        await self._signatures.claim(collection, made_by)
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

        async with self._signatures.unfinished(collection):
            await self._write(collection, points, stale)
            await self._held.save(extra, change=advance)

    async def _write(self, collection: CollectionInfo, points: Sequence[Point], stale: Sequence[str]) -> None:
        if stale:
            await self._delete_below(collection, stale)
            ids = [point_id(collection.namespace_id, id) for id in stale]
            await self._vectors.delete_points(collection.vector_collection, ids)
        for start in range(0, len(points), _UPSERT):
            await self._vectors.upsert(collection.vector_collection, points[start : start + _UPSERT])

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
                async with self._signatures.changing(below):
                    await self._vectors.delete_points(below.vector_collection, points)

    def _documents(
        self,
        collection: CollectionInfo,
        unit: Unit,
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
                "attempt": self._units.attempt,
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

    def _failure(self, step: Mapping[str, Any], failure: RowFailure, unit: Unit) -> Write:
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


def log_id() -> str:
    """Return an id that ties an error shown to a user to the log line with its traceback."""
    return random("log", 10)
