"""The plan of a pipeline with rough estimates, for `explain`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mixpeek_operator.retrieval.compile import Pipeline, Step
from mixpeek_operator.retrieval.declaration import Declared

_MANY: Final = 1000
"""Documents from which a stage that costs credits for each of them deserves a warning."""


@dataclass(frozen=True, slots=True)
class Caching:
    """What is kept for the request that is explained."""

    answer_kept: bool = False
    stages_kept: frozenset[str] = field(default_factory=frozenset)


def plan_of(pipeline: Pipeline, documents: int, caching: Caching) -> dict[str, Any]:
    """Return the plan in wire shape, for collections that hold so many documents."""
    rows: list[dict[str, Any]] = []
    count = documents
    for step in pipeline.steps:
        count = _add(rows, step, count, caching)
    durations = [row["estimated_duration_ms"] for row in rows]
    credits = sum(row["estimated_cost_credits"] for row in rows)
    slowest = max(durations, default=0.0)
    moved = sum(len(step.before) + len(step.after) for step in pipeline.steps)
    plan: dict[str, Any] = {
        "retriever_id": pipeline.retriever.id,
        "retriever_name": pipeline.retriever.name,
        "estimated_cost": {"total_credits": credits, "total_duration_ms": sum(durations)},
        "total_estimated_stages": len(rows),
        "execution_plan": rows,
        "optimization_suggestions": _suggestions(pipeline),
        "bottleneck_stages": [
            row["stage_name"] for row in rows if slowest > 0 and row["estimated_duration_ms"] >= 0.8 * slowest
        ],
        "optimization_level": "mvp",
        "optimization_applied": moved > 0 or any(step.beside for step in pipeline.steps),
        "cache": {
            "answers_kept": pipeline.answers.ttl_s > 0,
            "ttl_seconds": pipeline.answers.ttl_s,
            "state": "hit" if caching.answer_kept else "miss" if pipeline.answers.ttl_s > 0 else "off",
            "reason": pipeline.answers.reason,
        },
        "warnings": _warnings(pipeline, credits, sum(durations)),
    }
    if plan["optimization_applied"]:
        plan["optimization_details"] = {
            "original_stage_count": pipeline.stage_count,
            "optimized_stage_count": len(pipeline.steps),
            "stage_reduction_pct": round(100 * moved / pipeline.stage_count, 1),
            "decisions": list(_decisions(pipeline.steps)),
        }
    return plan


def _add(rows: list[dict[str, Any]], step: Step, documents: int, caching: Caching) -> int:
    name = step.stage.name
    for item in step.before:
        rows.append(_row(len(rows), item, documents, documents, 0.0, 0.0, [f"Pushed down into {name}"]))
    estimate = step.stage.stage.estimate
    out, credits, milliseconds = (documents, 0.0, 0.1) if estimate is None else estimate(step.stage.params, documents)
    notes = ["Runs beside the stage before it"] if step.beside else []
    row = _row(len(rows), step.stage, documents, out, credits, milliseconds, notes)
    row["cache_likely"] = caching.answer_kept or name in caching.stages_kept
    if credits > 0 and documents >= _MANY and credits >= documents / 100:
        row["warnings"].append(f"costs credits for each of about {documents} documents; put a limit before it")
    rows.append(row)
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


def _decisions(steps: Sequence[Step]) -> list[dict[str, Any]]:
    made = [
        {
            "rule_type": "push_down_filters",
            "applied": True,
            "reason": f"{item.name} narrows what {step.stage.name} searches, instead of what it has found",
        }
        for step in steps
        for item in (*step.before, *step.after)
    ]
    made += [
        {
            "rule_type": "run_together",
            "applied": True,
            "reason": f"{step.stage.name} neither reads nor writes what the stage before it writes",
        }
        for step in steps
        if step.beside
    ]
    return made


def _suggestions(pipeline: Pipeline) -> list[dict[str, Any]]:
    if pipeline.answers.ttl_s > 0 or not pipeline.retriever.id or pipeline.answers.repeatable:
        return []
    return [{"type": "enable_cache", "stage": None, "message": pipeline.answers.reason}]


def _warnings(pipeline: Pipeline, credits: float, milliseconds: float) -> list[str]:
    found = []
    if pipeline.max_credits is not None and credits > pipeline.max_credits:
        found.append(f"it may cost {credits:g} credits and stops at {pipeline.max_credits:g}")
    if pipeline.max_time_ms is not None and milliseconds > pipeline.max_time_ms:
        found.append(f"it may take {milliseconds:.0f} ms and stops after {pipeline.max_time_ms:g} ms")
    return found
