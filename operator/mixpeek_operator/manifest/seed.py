"""`seed` objects of a manifest: ingested once after an apply, as one batch per entry."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mixpeek_operator.core.clock import Clock
from mixpeek_operator.core.errors import MixpeekError
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.manifest.model import SeedSpec

_TERMINAL = ("COMPLETED", "COMPLETED_WITH_ERRORS", "FAILED", "CANCELED")
_USABLE = ("COMPLETED", "COMPLETED_WITH_ERRORS")
_TABLE = "seeds"
_POLL_S = 0.2


class SeedObjects(Protocol):
    """Objects of a bucket; the same `idempotency_key` is the same object."""

    async def create_many(
        self, scope: Scope, bucket: str, bodies: Sequence[Any], *, policy: str | None = None
    ) -> dict[str, Any]: ...


class SeedBatches(Protocol):
    """Batches of a bucket."""

    async def create(self, scope: Scope, bucket: str, body: Mapping[str, Any]) -> dict[str, Any]: ...

    async def submit(
        self, scope: Scope, bucket: str | None, batch_id: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]: ...

    async def get(self, scope: Scope, bucket: str | None, batch_id: str) -> dict[str, Any]: ...


class SeedRecords(Protocol):
    """Where it is written down which seed was ingested: ports.metadata.MetadataStore."""

    async def get(self, table: str, namespace_id: str, id: str) -> Any: ...

    async def put(self, table: str, namespace_id: str, id: str, body: Mapping[str, Any]) -> Any: ...


@dataclass(frozen=True, slots=True)
class Seeded:
    """One seed and the batch that ingests it; `batch_id` is "" when there is none."""

    spec: SeedSpec
    scope: Scope
    batch_id: str = ""
    failed_objects: int = 0
    error: str | None = None


class Seeds:
    """Ingests seeds. The same seed into the same bucket again makes nothing new and waits for the same batch."""

    def __init__(self, *, objects: SeedObjects, batches: SeedBatches, records: SeedRecords, clock: Clock) -> None:
        self._objects = objects
        self._batches = batches
        self._records = records
        self._clock = clock

    async def start(self, scope: Scope, spec: SeedSpec, bucket_uid: str) -> Seeded:
        """Store the objects and submit their batch; never raises for what is wrong with the seed."""
        digest = _digest(spec, bucket_uid)
        namespace_id = scope.namespace_id or ""
        known = await self._records.get(_TABLE, namespace_id, digest)
        if known is not None:
            return Seeded(spec, scope, str(known.body["batch_id"]), int(known.body["failed_objects"]))
        try:
            bodies = [{"idempotency_key": f"{digest}-{index}", **body} for index, body in enumerate(spec.objects)]
            stored = await self._objects.create_many(scope, spec.bucket, bodies)
            failed = stored["failed"]
            if not stored["succeeded"]:
                return Seeded(spec, scope, "", len(failed), f"no object could be stored: {failed[0]['error']}")
            request: dict[str, Any] = {"object_ids": [item["object_id"] for item in stored["succeeded"]]}
            if spec.collections:
                request["collection_ids"] = spec.collections
            batch_id = str((await self._batches.create(scope, spec.bucket, request))["batch_id"])
            await self._batches.submit(scope, spec.bucket, batch_id)
        except MixpeekError as error:
            return Seeded(spec, scope, "", len(spec.objects), str(error))
        await self._records.put(_TABLE, namespace_id, digest, {"batch_id": batch_id, "failed_objects": len(failed)})
        why = f"object {failed[0]['object_index']}: {failed[0]['error']}" if failed else None
        return Seeded(spec, scope, batch_id, len(failed), why)

    async def wait(self, seeds: Sequence[Seeded], *, timeout_s: float) -> list[dict[str, Any]]:
        """Return the wire's `SeedBatchStatus` of each seed when all are done or the time is over."""
        end = self._clock.monotonic() + timeout_s
        while True:
            statuses = [await self._status(item) for item in seeds]
            if all(item["terminal"] for item in statuses) or self._clock.monotonic() >= end:
                return statuses
            await asyncio.sleep(_POLL_S)

    async def _status(self, seed: Seeded) -> dict[str, Any]:
        status: dict[str, Any] = {
            "bucket": seed.spec.bucket,
            "batch_id": seed.batch_id,
            "status": "FAILED",
            "terminal": True,
            "usable": False,
            "documents_written": None,
            "failed_objects": seed.failed_objects,
            "error": seed.error,
        }
        if not seed.batch_id:
            return status
        try:
            batch = await self._batches.get(seed.scope, seed.spec.bucket, seed.batch_id)
        except MixpeekError as error:
            return status | {"status": "UNKNOWN", "error": str(error)}
        state = str(batch.get("status"))
        return status | {
            "status": state,
            "terminal": state in _TERMINAL,
            "usable": state in _USABLE,
            "documents_written": _count(batch, "documents_written", "document_count", "documents_created"),
            "failed_objects": seed.failed_objects + (_count(batch, "failed_object_count") or 0),
            "error": seed.error or (batch.get("failure_reason") if state == "FAILED" else None),
        }


def _count(batch: Mapping[str, Any], *names: str) -> int | None:
    return next((value for name in names if isinstance(value := batch.get(name), int)), None)


def _digest(spec: SeedSpec, bucket_uid: str) -> str:
    text = json.dumps([bucket_uid, spec.objects, spec.collections], sort_keys=True, default=str)
    return f"seed_{hashlib.sha256(text.encode()).hexdigest()[:24]}"
