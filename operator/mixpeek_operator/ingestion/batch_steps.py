"""Where a batch's walk stands: its steps and tiers begin, end and fail, and the batch ends as what they make it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import structlog

from mixpeek_operator.core.errors import ConflictError
from mixpeek_operator.ingestion.batch_records import COUNTERS, ITEMS, ITEMS_PER_RECORD, failures_of, item_id
from mixpeek_operator.ingestion.lease import HeldBatch
from mixpeek_operator.ingestion.records import scan
from mixpeek_operator.ingestion.sources import OBJECTS
from mixpeek_operator.ports.metadata import MetadataStore, Write

_log = structlog.get_logger(__name__)
_LOG_LINES = 200
_MARKED_AT_ONCE = 1000


class Steps:
    """Keeps the account of one held batch; only `finish` and `abandon` save it."""

    def __init__(self, held: HeldBatch, metadata: MetadataStore) -> None:
        self._held = held
        self._metadata = metadata

    def start(self, step: dict[str, Any]) -> None:
        """Begin a step, or go on with it."""
        batch, now = self._held.body, self._held.now()
        batch |= {"status": "IN_PROGRESS", "state": "IN_PROGRESS", "current_tier": step["tier"], "released": False}
        tier = batch["tier_tasks"][step["tier"]]
        tier |= {"status": "IN_PROGRESS", "started_at": tier["started_at"] or now}
        if step["status"] == "PENDING":
            self._note(step["tier"], f"{step['collection_id']}: started ({step['extractor_id']})")
        step["status"] = "IN_PROGRESS"

    def broke(self, step: dict[str, Any], message: str, category: str) -> None:
        """Note that a step cannot go on."""
        step |= {"status": "FAILED", "error": message, "error_type": category}

    def end(self, number: int, step: dict[str, Any]) -> None:
        """Close a step, and with the last of its tier the tier."""
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

    async def abandon(self, reason: str, category: str) -> None:
        """End the batch as FAILED."""
        batch = self._held.body
        batch |= {"failure_reason": reason, "failure_category": category}
        for step in batch["steps"]:
            if step["status"] in ("PENDING", "IN_PROGRESS"):
                step["status"] = "FAILED"
        for tier in batch["tier_tasks"]:
            if tier["status"] in ("PENDING", "IN_PROGRESS"):
                tier |= {"status": "FAILED", "completed_at": self._held.now()}
        await self.finish()

    async def finish(self) -> None:
        """Give the batch its final status and let it go."""
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
        if batch["type"] == "BUCKET":
            await self._mark_objects(failed, broken=status == "FAILED")
        batch["counters"]["failed"] = records
        batch |= {
            "status": status,
            "state": status,
            "failed_object_count": len(failed),
            "completed_at": self._held.now(),
        }
        await self._held.save(release=True)
        _log.info("batch ended", batch_id=self._held.id, status=status, **batch["counters"])

    async def _mark_objects(self, failed: set[str], *, broken: bool) -> None:
        """Give the objects of this pass the status they ended with; one changed since it began stays PENDING."""
        batch, namespace_id = self._held.body, self._held.namespace_id
        began = batch["tier_tasks"][0]["started_at"] if batch["tier_tasks"] else None
        for index in range(-(-int(batch["pass_items"]) // ITEMS_PER_RECORD)):
            items = await self._metadata.get(ITEMS, namespace_id, item_id(self._held.id, batch["pass"], index))
            ids = [str(id) for id in items.body["ids"]] if items is not None else []
            for start in range(0, len(ids), _MARKED_AT_ONCE):
                await self._held.check()
                records = await self._metadata.get_many(OBJECTS, namespace_id, ids[start : start + _MARKED_AT_ONCE])
                writes = []
                for record in records:
                    status = "FAILED" if broken or record.id in failed else "COMPLETED"
                    changed_since = began is not None and str(record.body["updated_at"]) > began
                    if record.body["status"] != status and not changed_since:
                        body = {**record.body, "status": status}
                        writes.append(Write(OBJECTS, namespace_id, record.id, body, record.version))
                await self._written(writes)

    async def _written(self, writes: Sequence[Write]) -> None:
        """Write all at once; when somebody changed one meanwhile, the others one by one: that one is not done yet."""
        if not writes:
            return
        try:
            await self._metadata.transact(writes)
        except ConflictError:
            for write in writes:
                with contextlib.suppress(ConflictError):
                    await self._metadata.transact([write])

    def _note(self, tier: int, message: str) -> None:
        line = {"timestamp": self._held.now(), "tier_num": tier, "message": message}
        self._held.body["log"] = [*self._held.body["log"][-_LOG_LINES:], line]


def _worst(statuses: Sequence[str]) -> str:
    for status in ("FAILED", "COMPLETED_WITH_ERRORS", "SKIPPED"):
        if status in statuses:
            return status
    return "COMPLETED"
