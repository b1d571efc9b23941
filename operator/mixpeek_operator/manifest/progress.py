"""The task of an apply: the states that each resource of its plan went through, in order, with times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mixpeek_operator.core import ids
from mixpeek_operator.core.clock import Clock
from mixpeek_operator.core.errors import NotFoundError
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.ingestion.tasks import Tasks, TaskStatus
from mixpeek_operator.manifest import results
from mixpeek_operator.manifest.plan import Action, Plan

TASK_TYPE = "api_manifest_apply"
_DOING = {Action.CREATE: "creating", Action.UPDATE: "updating"}


@dataclass(slots=True)
class Progress:
    """One apply that is under way. `id` is its task's."""

    id: str
    scope: Scope
    rows: list[dict[str, Any]] = field(default_factory=list)
    stored: bool = False


class ApplyTasks:
    """Writes the task of each apply: before anything else is written, and when all is over."""

    def __init__(self, tasks: Tasks, clock: Clock) -> None:
        self._tasks = tasks
        self._clock = clock

    async def begin(self, organization: str, plan: Plan, mode: str) -> Progress:
        """Note what is planned. A plan that changes nothing shares one task with the same plan before it."""
        now = self._now()
        done = results.executed(plan, mode).steps
        doing = {step.entry.identity: _DOING[step.action] for step in done if step.action in _DOING}
        names = [step.entry.label for step in plan.steps]
        id = ids.random("task") if doing else ids.derived("task", organization, *names, length=16)
        progress = Progress(id, Scope(organization))
        for step in plan.steps:
            states = [{"state": "planned", "at": now}]
            entry = step.entry
            if entry.identity in doing:
                states.append({"state": doing[entry.identity], "at": now})
            row = {"resource_type": entry.kind.lower(), "name": entry.name, "namespace": entry.namespace}
            progress.rows.append({**row, "states": states})
        if doing:
            await self._store(progress, TaskStatus.IN_PROGRESS, None)
        return progress

    async def end(self, progress: Progress, answer: Mapping[str, Any]) -> str:
        """Note how each resource of an `ApplyResult` ended; returns the task's id."""
        now = self._now()
        for row, result in zip(progress.rows, answer["resources"], strict=True):
            row["resource_id"] = result["resource_id"]
            row["states"] += [{**state, "at": now} for state in _ended(result)]
        error = "; ".join(answer["errors"]) or None
        await self._store(progress, TaskStatus.COMPLETED if answer["success"] else TaskStatus.FAILED, error)
        return progress.id

    async def broke(self, progress: Progress, why: str) -> None:
        """Note that the apply was cut off; what it wrote is finished or undone at the next start."""
        await self._store(progress, TaskStatus.INTERRUPTED, why)

    async def recovered(self, organization: str, id: str, *, undone: bool) -> None:
        """Close the task of an apply whose process was killed."""
        how = "undone" if undone else "finished"
        status = TaskStatus.FAILED if undone else TaskStatus.COMPLETED
        message = f"the server ended during the apply; it was {how} at the next start"
        try:
            await self._tasks.update(
                Scope(organization),
                id,
                status,
                error=message if undone else None,
                additional_data={"recovered": message},
            )
        except NotFoundError:
            return  # an apply from before there were tasks

    async def _store(self, progress: Progress, status: TaskStatus, error: str | None) -> None:
        if progress.stored:
            await self._tasks.update(progress.scope, progress.id, status, outputs=progress.rows, error=error)
            return
        progress.stored = True
        await self._tasks.create(
            progress.scope, TASK_TYPE, task_id=progress.id, status=status.value, outputs=progress.rows, error=error
        )

    def _now(self) -> str:
        return self._clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _ended(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the states that a row of the answer tells of; a collection that was made is warming or ready."""
    status = str(result["status"])
    if status == "failed" or result["error"]:
        return [{"state": status if status != "skipped" else "undone", "finding": result["error"]}]
    if status == "pending":
        made = "updated" if result["drift"] else "created"
        waiting = {"state": "warming" if result["resource_type"] == "collection" else "pending"}
        return [{"state": made}, {**waiting, "finding": result["pending_reason"]}]
    ready = result["resource_type"] == "collection" and status in ("created", "updated")
    return [{"state": status}, *([{"state": "ready"}] if ready else [])]
