"""The plan of a pipeline with rough estimates, for `explain`. Pure."""

from __future__ import annotations

from typing import Any

from mixpeek_operator.retrieval.compile import Pipeline, Step
from mixpeek_operator.retrieval.declaration import Declared


def plan_of(pipeline: Pipeline, documents: int) -> dict[str, Any]:
    """Return the plan in wire shape, for collections that hold so many documents."""
    rows: list[dict[str, Any]] = []
    count = documents
    for step in pipeline.steps:
        count = _add(rows, step, count)
    durations = [row["estimated_duration_ms"] for row in rows]
    slowest = max(durations, default=0.0)
    moved = sum(len(step.before) + len(step.after) for step in pipeline.steps)
    plan: dict[str, Any] = {
        "retriever_id": pipeline.retriever.id,
        "retriever_name": pipeline.retriever.name,
        "estimated_cost": {
            "total_credits": sum(row["estimated_cost_credits"] for row in rows),
            "total_duration_ms": sum(durations),
        },
        "total_estimated_stages": len(rows),
        "execution_plan": rows,
        "optimization_suggestions": [],
        "bottleneck_stages": [
            row["stage_name"] for row in rows if slowest > 0 and row["estimated_duration_ms"] >= 0.8 * slowest
        ],
        "optimization_level": "mvp",
        "optimization_applied": moved > 0,
    }
    if moved:
        plan["optimization_details"] = {
            "original_stage_count": pipeline.stage_count,
            "optimized_stage_count": len(pipeline.steps),
        }
    return plan


def _add(rows: list[dict[str, Any]], step: Step, documents: int) -> int:
    name = step.stage.name
    for item in step.before:
        rows.append(_row(len(rows), item, documents, documents, 0.0, 0.0, [f"Pushed down into {name}"]))
    estimate = step.stage.stage.estimate
    out, credits, milliseconds = (documents, 0.0, 0.1) if estimate is None else estimate(step.stage.params, documents)
    rows.append(_row(len(rows), step.stage, documents, out, credits, milliseconds, []))
    for item in step.after:
        rows.append(_row(len(rows), item, out, out, 0.0, 0.0, [f"Pushed down into {name}"]))
    return out


def _row(
    index: int, item: Declared, given: int, out: int, credits: float, milliseconds: float, notes: list[str]
) -> dict[str, Any]:
    return {
        "stage_index": index,
        "stage_name": item.name,
        "stage_type": item.type,
        "estimated_input": given,
        "estimated_output": out,
        "estimated_efficiency": round(out / given, 6) if given else 0.0,
        "estimated_cost_credits": credits,
        "estimated_duration_ms": round(milliseconds, 3),
        "cache_likely": False,
        "optimization_notes": notes,
        "warnings": [],
    }
