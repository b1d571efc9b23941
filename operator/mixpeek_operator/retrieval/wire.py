"""Executions in wire shape: their answers, their places in the history, and what declares one ad hoc. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from mixpeek_operator.core.clock import timestamp
from mixpeek_operator.core.directory import NamespaceInfo, RetrieverInfo
from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.retrieval.execute import Execution
from mixpeek_operator.retrieval.inputs import fields_of
from mixpeek_operator.retrieval.query import Query
from mixpeek_operator.retrieval.stage import Documents

_MAX_INPUTS: Final = 4096
"""Bytes of inputs, as JSON, that the history keeps."""
_OPTIONS: Final = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as its bytes, and what HTTP tells of it."""

    execution_id: str
    body: bytes
    etag: str | None = None
    """None: nothing of it is kept."""
    ttl_s: float = 0.0
    cached_at: float | None = None
    """Unix time at which it was made, when it was found."""
    age_s: float = 0.0


def answer_of(execution: Execution, documents: Documents, info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer of an execution that has just run."""
    pipeline, told = execution.pipeline, execution.told
    answer: dict[str, Any] = {
        "execution_id": execution.id,
        "retriever_id": pipeline.retriever.id,
        "status": execution.status,
        "documents": documents,
        "pagination": info,
        **_account(execution, round(execution.elapsed_ms(), 3)),
    }
    more = {
        "degraded": execution.degraded,
        "facets": told.facets,
        "aggregations": told.aggregations,
        "warnings": told.warnings,
        "limits": told.limits,
    }
    return {**answer, **{name: value for name, value in more.items() if value}, "cached_at": None}


def members(answer: Mapping[str, Any]) -> bytes:
    """Return the JSON of an answer between its execution's id and `cached_at`, to be completed by `whole`."""
    rest = {name: value for name, value in answer.items() if name not in ("execution_id", "cached_at")}
    return orjson.dumps(rest, option=_OPTIONS)[1:-1]


def whole(execution_id: str, body: bytes, cached_at: float | None) -> bytes:
    """Return the JSON of an answer; what is kept of it is not encoded again."""
    at = b"null" if cached_at is None else orjson.dumps(cached_at)
    return b'{"execution_id":"%b",%b,"cached_at":%b}' % (execution_id.encode(), body, at)


def record_of(
    execution: Execution, query: Query, status: str, returned: int, error: str | None, now: datetime, elapsed_ms: float
) -> dict[str, Any]:
    """Return an execution as the history keeps it; `now` is its end."""
    elapsed_ms = round(elapsed_ms, 3)
    stages = execution.statistics
    hits = sum(entry["cache_hit"] for entry in stages.values())
    record: dict[str, Any] = {
        "execution_id": execution.id,
        "retriever_id": execution.pipeline.retriever.id,
        "retriever_name": execution.pipeline.retriever.name,
        "status": status,
        **_times(now, elapsed_ms),
        "credits_used": execution.credits,
        "total_processed": execution.processed,
        "total_returned": returned,
        "cache_hit_rate": round(hits / len(stages), 6) if stages else 0.0,
        "query_summary": _summary(query.inputs),
        "documents": [],
        "documents_retained": False,
        "stages_completed": len(stages),
        "total_stages": execution.pipeline.stage_count,
        **_account(execution, elapsed_ms),
        **asked_of(query),
        "signals": execution.told.signals,
    }
    if error is not None:
        record["error"] = error
    return record


def record_of_hit(
    execution_id: str, retriever: RetrieverInfo, facts: Mapping[str, Any], query: Query, now: datetime,
    elapsed_ms: float,
) -> dict[str, Any]:  # fmt: skip
    """Return an execution that found its answer kept, as the history keeps it."""
    elapsed_ms = round(elapsed_ms, 3)
    return {
        "execution_id": execution_id,
        "retriever_id": retriever.id,
        "retriever_name": retriever.name,
        "status": "completed",
        **_times(now, elapsed_ms),
        "credits_used": 0.0,
        "total_processed": 0,
        **facts,
        "cache_hit_rate": 1.0,
        "documents": [],
        "documents_retained": False,
        "stages_completed": 0,
        "stage_statistics": {"stages": {}, "total_time_ms": elapsed_ms, "credits_used": 0.0},
        "budget": {"credits_used": 0.0, "time_elapsed_ms": elapsed_ms},
        **asked_of(query),
        "answer_cache": "hit",
        "signals": [],
    }


def facts_of(execution: Execution, inputs: Mapping[str, Any], returned: int) -> dict[str, Any]:
    """Return what the history of a hit tells of the answer."""
    return {
        "total_returned": returned,
        "query_summary": _summary(inputs),
        "total_stages": execution.pipeline.stage_count,
        "made_by": execution.id,
    }


def asked_of(query: Query) -> dict[str, Any]:
    """What a replay of the query needs: who asked, and the inputs unless they are large (vectors, files)."""
    request = query.request
    asked = {name: request[name] for name in ("session_id", "user_id") if isinstance(request.get(name), str)}
    if len(query.encoded) <= _MAX_INPUTS:
        asked["inputs"] = dict(query.inputs)
    return asked


def adhoc(namespace: NamespaceInfo, body: Mapping[str, Any]) -> RetrieverInfo:
    """The declaration of an ad hoc execution. Raises SpecError when it is none."""
    stages = body.get("stages")
    if not isinstance(stages, list):
        raise SpecError("stages must be a list", code="stages_invalid")
    identifiers = body.get("collection_identifiers") or body.get("collection_ids") or []
    if not isinstance(identifiers, list) or not all(isinstance(item, str) for item in identifiers):
        raise SpecError("collection_identifiers must be a list of names or ids", code="collections_invalid")
    schema = body.get("input_schema") or {}
    if not isinstance(schema, Mapping):
        raise SpecError("input_schema must be an object", code="input_schema_invalid")
    return RetrieverInfo(
        id="",
        name=str(body.get("retriever_name") or "ad hoc"),
        namespace_id=namespace.id,
        description=None,
        collection_ids=tuple(identifiers),
        stages=tuple(stages),
        input_schema=fields_of(schema),
        cache_config={},
        budget_limits=body.get("budget_limits") or {},
        version="",
    )


def _account(execution: Execution, elapsed_ms: float) -> dict[str, Any]:
    """What an execution took, as its answer and its history show it."""
    pipeline = execution.pipeline
    return {
        "stage_statistics": {
            "stages": execution.statistics,
            "total_time_ms": elapsed_ms,
            "credits_used": execution.credits,
        },
        "budget": {
            "credits_used": execution.credits,
            "credits_limit": pipeline.max_credits,
            "time_elapsed_ms": elapsed_ms,
            "time_limit_ms": pipeline.max_time_ms,
        },
    }


def _summary(inputs: Mapping[str, Any]) -> str | None:
    text = inputs.get("query") or inputs.get("query_text")
    return text[:200] if isinstance(text, str) else None


def _times(now: datetime, elapsed_ms: float) -> dict[str, Any]:
    ended = now.astimezone(UTC)
    started = datetime.fromtimestamp(ended.timestamp() - elapsed_ms / 1000, UTC)
    return {"created_at": timestamp(started), "completed_at": timestamp(ended), "duration_ms": elapsed_ms}
