"""How a batch is kept, and how it is shown. Pure.

Three kinds of record: the batch itself (small, written once per block of objects), its items (ids, a thousand per
record, so that the batch stays small however many there are) and its failures (one per source and collection).
A pass is one walk over some items: pass 0 walks all of them, each retry adds one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mixpeek_operator.core.directory import CollectionInfo
from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.core.filters import Filter, all_of, equals
from mixpeek_operator.core.ids import random
from mixpeek_operator.ingestion.lineage import extractor_id
from mixpeek_operator.ingestion.tiers import Step
from mixpeek_operator.ports.metadata import Write

BATCHES = "batches"
ITEMS = "batch_items"
ITEMS_PER_RECORD = 1000
SHOWN_FAILURES = 1000
MAX_RESUBMITS = 100
MAX_RETRIES = 5
STRATEGIES = ("skip", "replace", "force")
COUNTERS = ("read", "processed", "skipped", "failed", "documents", "deleted")


def new_batch(
    *, organization: str, namespace_id: str, bucket_id: str, root: str, type: str, now: str
) -> dict[str, Any]:
    """Return the record of a new batch: DRAFT and empty."""
    return {
        "batch_id": random("btch", 12),
        "bucket_id": bucket_id,
        "namespace_id": namespace_id,
        "organization": organization,
        "root": root,
        "type": type,
        "batch_name": None,
        "status": "DRAFT",
        "state": "DRAFT",
        "dedup_strategy": "skip",
        "metadata": {},
        "requested_collections": [],
        "collection_ids": [],
        "dag_tiers": [],
        "tier_tasks": [],
        "steps": [],
        "current_tier": None,
        "task_id": None,
        "item_count": 0,
        "pass": 0,
        "pass_items": 0,
        "cursor": {"step": 0, "position": 0},
        "counters": dict.fromkeys(COUNTERS, 0),
        "failure_reason": None,
        "failure_category": None,
        "failed_object_count": 0,
        "retry_count": 0,
        "node_death_resubmit_count": 0,
        "deploy_resubmit_count": 0,
        "log": [],
        "created_at": now,
        "updated_at": now,
        "completed_at": None,
    }


def item_writes(
    batch: Mapping[str, Any], number: int, ids: Sequence[str], *, start: int = 0, tail: Sequence[str] = ()
) -> list[Write]:
    """Return the writes that append `ids` to pass `number`, which holds `start` items, the last `tail` of them in
    its last, unfilled record."""
    everything = [*tail, *ids]
    first = (start - len(tail)) // ITEMS_PER_RECORD
    writes = []
    for offset in range(0, len(everything), ITEMS_PER_RECORD):
        body = {
            "batch_id": batch["batch_id"],
            "bucket_id": batch["bucket_id"],
            "kind": "items",
            "pass": number,
            "ids": everything[offset : offset + ITEMS_PER_RECORD],
        }
        id = item_id(str(batch["batch_id"]), number, first + offset // ITEMS_PER_RECORD)
        writes.append(Write(ITEMS, str(batch["namespace_id"]), id, body))
    return writes


def item_id(batch_id: str, number: int, index: int) -> str:
    """Return the id of one record of items."""
    return f"{batch_id}:{number:03d}:{index:06d}"


def failure_write(batch: Mapping[str, Any], failure: Mapping[str, Any]) -> Write:
    """Return the write that records a failure; the same source fails once per collection, however often."""
    id = f"{batch['batch_id']}:f:{failure['collection_id']}:{failure['source_id']}"
    body = {
        "batch_id": batch["batch_id"],
        "bucket_id": batch["bucket_id"],
        "kind": "failure",
        "retry_count": batch["pass"],
        **failure,
    }
    return Write(ITEMS, str(batch["namespace_id"]), id, body)


def failures_of(batch_id: str, **where: Any) -> Filter:
    """Return the filter for a batch's failures; values that are None do not count."""
    parts = [equals(name, value) for name, value in where.items() if value is not None]
    found = all_of(equals("batch_id", batch_id), equals("kind", "failure"), *parts)
    assert found is not None
    return found


def with_plan(
    batch: Mapping[str, Any], tiers: Sequence[Sequence[Step]], collections: Mapping[str, CollectionInfo]
) -> dict[str, Any]:
    """Return the batch with its tiers planned and its progress at zero."""
    steps = [step for tier in tiers for step in tier]
    return {
        **batch,
        "collection_ids": [step.collection_id for step in steps],
        "dag_tiers": [[step.collection_id for step in tier] for tier in tiers],
        "steps": [
            {
                "tier": step.tier,
                "collection_id": step.collection_id,
                "sources": list(step.sources),
                "reads_root": step.reads_root,
                "status": "PENDING",
                "extractor_id": extractor_id(collections[step.collection_id]),
                "counters": dict.fromkeys(COUNTERS, 0),
                "error": None,
            }
            for step in steps
        ],
        "tier_tasks": [
            {
                "tier_num": number,
                "task_id": batch.get("task_id"),
                "status": "PENDING",
                "collection_ids": [step.collection_id for step in tier],
                "source_type": "collection" if any(step.sources for step in tier) else "bucket",
                "source_collection_ids": sorted({source for step in tier for source in step.sources}) or None,
                "started_at": None,
                "completed_at": None,
            }
            for number, tier in enumerate(tiers)
        ],
    }


def check_strategy(value: Any) -> str:
    """Return the dedup strategy, `skip` when none is given. Raises SpecError for an unknown one."""
    if value is None:
        return "skip"
    if value not in STRATEGIES:
        raise SpecError(f"unknown dedup_strategy {value!r}; use skip, replace or force", code="unknown_strategy")
    return str(value)


def progress_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return how far a batch is, over all its steps."""
    steps = len(batch["steps"]) or 1
    total = int(batch["pass_items"] or batch["item_count"])
    cursor = batch["cursor"]
    done = min(cursor["step"], steps) * total + (cursor["position"] if cursor["step"] < steps else 0)
    percent = 100.0 if batch["status"] in ("COMPLETED", "COMPLETED_WITH_ERRORS") else 0.0
    if total and percent == 0.0:
        percent = round(100.0 * done / (total * steps), 1)
    counters = batch["counters"]
    return {
        "processed": total if percent == 100.0 else int(done / steps),
        "total": total,
        "percent": percent,
        "errors": counters["failed"],
        "objects_extracted": counters["processed"],
        "objects_skipped": counters["skipped"],
        "objects_failed": batch["failed_object_count"] or counters["failed"],
        "documents_written": counters["documents"],
    }


def render_batch(
    batch: Mapping[str, Any], object_ids: Sequence[str], failures: Iterable[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Return a batch in wire shape (BatchModel)."""
    failed = []
    summary: dict[str, int] = {}
    for item in failures:
        kept = ("object_id", "error", "timestamp", "collection_id", "tier_num")
        # The wire's error_type says whether a retry may help; what failed is in `failed-documents`.
        failed.append({name: item[name] for name in kept} | {"error_type": _error_type(item)})
        summary[item["error_type"]] = summary.get(item["error_type"], 0) + 1
    return {
        "batch_id": batch["batch_id"],
        "bucket_id": batch["bucket_id"],
        "namespace_id": batch["namespace_id"],
        "batch_name": batch["batch_name"],
        "status": batch["status"],
        "type": batch["type"],
        "object_ids": list(object_ids),
        "object_count": batch["item_count"],
        "dedup_strategy": batch["dedup_strategy"],
        "effective_dedup_strategy": batch["dedup_strategy"],
        "collection_ids": batch["collection_ids"] or batch["requested_collections"],
        "metadata": batch["metadata"],
        "task_id": batch["task_id"],
        "tier_tasks": [_tier(batch, tier) for tier in batch["tier_tasks"]],
        "current_tier": batch["current_tier"],
        "total_tiers": max(1, len(batch["dag_tiers"])),
        "dag_tiers": batch["dag_tiers"],
        "progress": progress_of(batch),
        "documents_written": batch["counters"]["documents"],
        "documents_deleted": batch["counters"]["deleted"],
        "error": batch["failure_reason"],
        "failure_reason": batch["failure_reason"] or _partly(batch),
        "failure_category": batch["failure_category"],
        "error_summary": summary or None,
        "failed_objects": failed,
        "failed_object_count": batch["failed_object_count"],
        "retry_count": batch["pass"],
        "max_retries": MAX_RETRIES,
        "node_death_resubmit_count": batch["node_death_resubmit_count"],
        "max_node_death_resubmits": MAX_RESUBMITS,
        "deploy_resubmit_count": batch["deploy_resubmit_count"],
        "max_deploy_resubmits": MAX_RESUBMITS,
        "lifecycle": None,
        "lifecycle_reason": None,
        "last_activity_at": batch["updated_at"],
        "created_at": batch["created_at"],
        "updated_at": batch["updated_at"],
    }


def _partly(batch: Mapping[str, Any]) -> str | None:
    if batch["status"] != "COMPLETED_WITH_ERRORS":
        return None
    return f"{batch['failed_object_count']} of {batch['item_count']} objects failed; failed_objects says why"


def audit_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the accounts of a batch: what each collection read, and that it was processed, skipped or failed."""
    collections = []
    for step in batch["steps"]:
        counters = step["counters"]
        accounted = counters["processed"] + counters["skipped"] + counters["failed"]
        collections.append(
            {
                "collection_id": step["collection_id"],
                "tier_num": step["tier"],
                "status": step["status"],
                **counters,
                "balanced": counters["read"] == accounted,
            }
        )
    complete = batch["status"] in ("COMPLETED", "COMPLETED_WITH_ERRORS")
    expected = int(batch["pass_items"] or batch["item_count"])
    roots = [item for item in collections if item["tier_num"] == 0]
    lost = complete and any(item["read"] < expected for item in roots)
    return {
        "batch_id": batch["batch_id"],
        "status": batch["status"],
        "object_count": batch["item_count"],
        "failed_object_count": batch["failed_object_count"],
        "collections": collections,
        "all_balanced": all(item["balanced"] for item in collections),
        "has_lost_objects": lost,
    }


def _error_type(failure: Mapping[str, Any]) -> str:
    if failure["error_type"] == "MemoryError":
        return "resource"
    return "transient" if failure.get("transient") else "permanent"


def _tier(batch: Mapping[str, Any], tier: Mapping[str, Any]) -> dict[str, Any]:
    steps = [step for step in batch["steps"] if step["tier"] == tier["tier_num"]]
    errors = [
        {
            "error_type": "runtime",
            "message": step["error"],
            "component": step["extractor_id"],
            "metadata": {"collection_id": step["collection_id"]},
        }
        for step in steps
        if step["error"]
    ]
    return {
        **tier,
        "task_id": batch["task_id"],
        "errors": errors,
        "extractor_jobs": [
            {
                "extractor_type": step["extractor_id"],
                "extractor_id": step["extractor_id"],
                "collection_ids": [step["collection_id"]],
                "status": step["status"],
                "documents_written": step["counters"]["documents"],
                "documents_skipped": step["counters"]["skipped"],
                "error": step["error"],
            }
            for step in steps
        ],
        "source_documents_fetched": sum(step["counters"]["read"] for step in steps),
        "documents_submitted_to_engine": sum(
            step["counters"]["processed"] + step["counters"]["failed"] for step in steps
        ),
        "documents_written": sum(step["counters"]["documents"] for step in steps),
        "documents_deleted": sum(step["counters"]["deleted"] for step in steps),
    }
