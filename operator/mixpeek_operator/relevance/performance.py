"""How fast a retriever answers, where its time goes, and what its cache saves: figures from its history."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from mixpeek_operator.core.clock import Clock, timestamp
from mixpeek_operator.core.directory import Directory
from mixpeek_operator.core.errors import BadRequestError
from mixpeek_operator.core.filters import Compare, Operator, all_of, equals
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.ingestion.records import namespace_of
from mixpeek_operator.ports.metadata import MetadataStore
from mixpeek_operator.relevance.metrics import mean
from mixpeek_operator.relevance.statistics import percentile
from mixpeek_operator.retrieval.history import TABLE, History
from mixpeek_operator.retrieval.registry import StageRegistry

MAX_RECORDS: Final = 20_000
"""Newest executions that a figure is made of."""
DEFAULT_SPAN: Final = timedelta(hours=24)

Group = Literal["hour", "day", "week"]
Record = Mapping[str, Any]


class Performance:
    """Reads the executions of a retriever. Every method raises NotFoundError for an unknown one."""

    def __init__(
        self, metadata: MetadataStore, directory: Directory, history: History, registry: StageRegistry, clock: Clock
    ) -> None:
        self._metadata = metadata
        self._directory = directory
        self._history = history
        self._registry = registry
        self._clock = clock

    async def latencies(
        self, scope: Scope, retriever: str, *, start: datetime | None, end: datetime | None, group: Group
    ) -> dict[str, Any]:
        """Return latencies and counts by hour, day or week, times in milliseconds; the last day unless said.

        Raises BadRequestError for a start behind the end.
        """
        last = self._clock.now() if end is None else _utc(end)
        first = last - DEFAULT_SPAN if start is None else _utc(start)
        if first > last:
            raise BadRequestError("start_date is behind end_date", code="time_range_invalid")
        id, records = await self._records(scope, retriever, first, last)
        metrics = [
            {"time_bucket": bucket, **_figures(inside)}
            for bucket, inside in _grouped(records, lambda record: _bucket(record["created_at"], group))
        ]
        summary = {**_figures(records), "failed_count": sum(record["status"] == "failed" for record in records)}
        return {"retriever_id": id, "time_range": _range(first, last), "metrics": metrics, "summary": summary}

    async def cache(self, scope: Scope, retriever: str, *, hours: int) -> dict[str, Any]:
        """Return how often an answer was kept, and how much sooner it came then; requests to skip it do not count."""
        first, last = self._since(hours)
        id, records = await self._records(scope, retriever, first, last)
        asked = [record for record in records if record.get("answer_cache") in ("hit", "miss")]
        hourly = [
            {"time_bucket": bucket, **_hits(inside)}
            for bucket, inside in _grouped(asked, lambda record: _bucket(record["created_at"], "hour"))
        ]
        found = _hits(asked)
        return {
            "retriever_id": id,
            "time_range": _range(first, last),
            "cache_hit_rate": found["cache_hit_rate"],
            "total_cache_hits": found["cache_hits"],
            "total_cache_misses": found["cache_misses"],
            "avg_cache_hit_latency_ms": found["avg_cache_hit_latency_ms"],
            "avg_cache_miss_latency_ms": found["avg_cache_miss_latency_ms"],
            "hourly_breakdown": hourly,
        }

    async def stages(self, scope: Scope, retriever: str, *, hours: int) -> dict[str, Any]:
        """Return times and numbers of documents by stage, in the order they run in."""
        info = await self._directory.retriever(namespace_of(scope), retriever)
        types = {stage.name: stage.type for stage in self._registry.declare(info.stages)[0]}
        first, last = self._since(hours)
        id, records = await self._records(scope, retriever, first, last)
        ran: dict[str, list[Record]] = {name: [] for name in types}
        for record in records:
            for name, entry in record["stage_statistics"]["stages"].items():
                ran.setdefault(name, []).append(entry)
        rows = [
            {
                "stage_name": name,
                "stage_type": types.get(name, ""),
                "execution_count": len(entries),
                "avg_latency_ms": mean([entry["duration_ms"] for entry in entries]),
                "p95_latency_ms": percentile([entry["duration_ms"] for entry in entries], 0.95),
                "avg_documents_in": mean([entry["input_count"] for entry in entries]),
                "avg_documents_out": mean([entry["output_count"] for entry in entries]),
                "cache_hit_rate": mean([float(entry["cache_hit"]) for entry in entries]),
            }
            for name, entries in ran.items()
            if entries
        ]
        return {"retriever_id": id, "stages": rows, "total_latency_ms": sum(row["avg_latency_ms"] for row in rows)}

    async def slowest(self, scope: Scope, retriever: str, *, limit: int, hours: int) -> list[dict[str, Any]]:
        """Return the executions that took longest, with their inputs and the time of each stage."""
        _, records = await self._records(scope, retriever, *self._since(hours))
        slowest = sorted(records, key=lambda record: -float(record["duration_ms"]))[:limit]
        return [
            {
                "execution_id": record["execution_id"],
                "retriever_id": record["retriever_id"],
                "timestamp": record["created_at"],
                "query": record.get("query_summary"),
                "inputs": record.get("inputs"),
                "status": record["status"],
                "latency_ms": record["duration_ms"],
                "results_count": record["total_returned"],
                "stage_breakdown": {
                    name: entry["duration_ms"] for name, entry in record["stage_statistics"]["stages"].items()
                },
            }
            for record in slowest
        ]

    def _since(self, hours: int) -> tuple[datetime, datetime]:
        now = self._clock.now()
        return now - timedelta(hours=hours), now

    async def _records(self, scope: Scope, retriever: str, first: datetime, last: datetime) -> tuple[str, list[Record]]:
        """Return the retriever's id and its executions in that time, newest first."""
        namespace_id = namespace_of(scope)
        id = (await self._directory.retriever(namespace_id, retriever)).id
        await self._history.flush()
        wanted = all_of(
            equals("retriever_id", id),
            Compare("created_at", Operator.GTE, timestamp(first)),
            Compare("created_at", Operator.LTE, timestamp(last)),
        )
        found = await self._metadata.find(
            TABLE, namespace_id, filter=wanted, sort=(("created_at", "desc"),), limit=MAX_RECORDS
        )
        return id, [record.body for record in found]


def _grouped(records: Iterable[Record], key: Callable[[Record], str]) -> list[tuple[str, list[Record]]]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return sorted(groups.items())


def _figures(records: Sequence[Record]) -> dict[str, Any]:
    durations = [float(record["duration_ms"]) for record in records]
    return {
        "execution_count": len(records),
        "avg_latency_ms": mean(durations),
        "p50_latency_ms": percentile(durations, 0.5),
        "p95_latency_ms": percentile(durations, 0.95),
        "p99_latency_ms": percentile(durations, 0.99),
        "max_latency_ms": max(durations, default=0.0),
        "avg_results": mean([float(record["total_returned"]) for record in records]),
    }


def _hits(records: Sequence[Record]) -> dict[str, Any]:
    hits = [float(record["duration_ms"]) for record in records if record["answer_cache"] == "hit"]
    misses = [float(record["duration_ms"]) for record in records if record["answer_cache"] == "miss"]
    return {
        "cache_hits": len(hits),
        "cache_misses": len(misses),
        "cache_hit_rate": len(hits) / len(records) if records else 0.0,
        "avg_cache_hit_latency_ms": mean(hits),
        "avg_cache_miss_latency_ms": mean(misses),
    }


def _bucket(created_at: str, group: Group) -> str:
    """The start of the hour, day or week (from Monday) that a moment is in."""
    moment = datetime.fromisoformat(created_at).astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if group != "hour":
        moment = moment.replace(hour=0)
    if group == "week":
        moment -= timedelta(days=moment.weekday())
    return timestamp(moment)


def _range(first: datetime, last: datetime) -> dict[str, str]:
    return {"start": timestamp(first), "end": timestamp(last)}


def _utc(moment: datetime) -> datetime:
    """A moment without a zone is one of UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
