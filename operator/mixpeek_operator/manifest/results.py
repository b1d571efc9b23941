"""Plans and what became of them in the shapes of the wire (`ApplyResult`, `DiffResult`, `ValidateResult`). Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mixpeek_operator.core import conditions
from mixpeek_operator.core.errors import Problem
from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.core.resource import Resource, ResourceKey
from mixpeek_operator.core.rest import extractor_id
from mixpeek_operator.manifest.apply import Applied
from mixpeek_operator.manifest.model import Manifest
from mixpeek_operator.manifest.plan import Action, Plan, Step

UPSERT, CREATE_MISSING, CREATE_ONLY = "upsert", "create_missing", "create_only"
MODES = (UPSERT, CREATE_MISSING, CREATE_ONLY)

_SKIPPED = ("skipped", "exists")


def refusals(plan: Plan, mode: str) -> list[str]:
    """Return why the plan cannot be carried out in this mode, [] when it can."""
    errors = [str(problem) for problem in plan.problems if mode == UPSERT or problem.code != "immutable_field"]
    if mode == CREATE_ONLY:
        errors += [
            f"{step.entry.label} exists already, and mode create_only only creates; use mode upsert or create_missing"
            for step in plan.steps
            if step.action is not Action.CREATE
        ]
    return errors


def executed(plan: Plan, mode: str) -> Plan:
    """Return the part of a plan that the mode carries out."""
    if mode == UPSERT:
        return plan
    return Plan([step for step in plan.steps if step.action is Action.CREATE], plan.beside, plan.problems)


def validated(
    manifest: Manifest, schemas: Mapping[str, KindSchema], problems: Sequence[Problem], missing: Sequence[str]
) -> dict[str, Any]:
    """Return `ValidateResult`."""
    counts = Counter(entry.kind for entry in manifest.entries)
    return {
        "valid": not problems,
        "resources": {schema.plural: counts[name] for name, schema in schemas.items()},
        "missing_secrets": list(missing),
        "errors": [str(problem) for problem in problems],
        "warnings": [str(problem) for problem in manifest.warnings],
        "parameters": [item.model_dump(exclude_none=True) for item in manifest.parameters],
    }


def compared(plan: Plan) -> dict[str, Any]:
    """Return `DiffResult`; a replacement shows as an update whose details say that it must be replaced."""
    differing = (Action.UPDATE, Action.REPLACE)
    return {
        "to_create": [_item(step, "create") for step in plan.of(Action.CREATE)],
        "in_system_only": [
            {
                "resource_type": resource.kind.lower(),
                "name": resource.name,
                "action": "delete",
                "details": _inside(resource),
            }
            for resource in plan.beside
        ],
        "differences": [_item(step, "update") for step in plan.steps if step.action in differing],
    }


def invalid(problems: Sequence[Problem], *, dry_run: bool) -> dict[str, Any]:
    """Return `ApplyResult` of a manifest that cannot be applied: nothing was touched."""
    return _result([], [str(problem) for problem in problems], dry_run=dry_run)


def refused(plan: Plan, mode: str, errors: Sequence[str], *, dry_run: bool) -> dict[str, Any]:
    """Return `ApplyResult` of a plan that cannot be carried out: nothing was touched."""
    rows: list[dict[str, Any]] = []
    problems = {problem.location[:2]: problem.message for problem in reversed(plan.problems)}
    for step in plan.steps:
        row = _row(step, _planned(step))
        if step.action is Action.REPLACE and mode == UPSERT:
            fixed = [change for change in step.changes if change.why]
            row |= {
                "status": "failed",
                "error": "; ".join(map(str, fixed)),
                "refused": step.fields,
                "drift": step.fields,
            }
        elif mode == CREATE_ONLY and step.action is not Action.CREATE:
            row |= {"status": "failed", "error": "it exists already"}
        elif step.entry.path[:2] in problems and step.before is not None and step.before.deleting:
            row |= {"status": "failed", "error": problems[step.entry.path[:2]]}
        elif step.action is Action.CREATE and not dry_run:
            row |= {"status": "skipped", "error": "not created because the apply was refused"}
        rows.append(row)
    return _result(rows, errors, dry_run=dry_run)


def previewed(plan: Plan) -> dict[str, Any]:
    """Return `ApplyResult` of a dry run: `would_create`, `exists`, or `drifted` for what would be updated."""
    return _result([_row(step, _planned(step)) for step in plan.steps], [], dry_run=True)


def applied(manifest: Manifest, plan: Plan, mode: str, outcome: Applied, organization: str) -> dict[str, Any]:
    """Return `ApplyResult` of what was carried out."""
    rows: list[dict[str, Any]] = []
    failures: list[str] = []
    for step in plan.steps:
        key = ResourceKey(step.entry.kind, organization, step.entry.metadata_name)
        key = step.before.key if step.before is not None else key
        resource = outcome.written.get(key) or step.before
        writes = step.action is Action.CREATE or (step.action is Action.UPDATE and mode == UPSERT)
        if key in outcome.failures:
            row = _row(step, "failed", resource) | {"error": outcome.failures[key]}
            failures.append(f"{manifest.place(step.entry)}: {outcome.failures[key]}")
        elif writes and outcome.rolled_back:
            row = _row(step, "skipped", step.before) | {"error": "undone because the apply failed"}
        elif not writes:
            row = _row(step, _planned(step), resource)
        elif key in outcome.pending:
            row = _row(step, "pending", resource) | {"pending_reason": outcome.pending[key]}
        else:
            row = _row(step, "created" if step.action is Action.CREATE else "updated", resource)
        rows.append(row)
    result = _result(rows, [*outcome.errors, *failures], dry_run=False)
    result["rollback_performed"] = outcome.rolled_back
    result["rollback_orphans"] = outcome.orphans
    result["warnings"] = [f"{key} is not ready yet: {why}" for key, why in sorted(outcome.pending.items())]
    return result


def readiness(manifest: Manifest, resources: Iterable[Resource]) -> list[dict[str, Any]]:
    """Return the wire's `CollectionReadiness` of each declared collection whose extractor is served at query time."""
    served = {
        (item.namespace, item.name, str(item.spec.get("version"))): item
        for item in resources
        if item.kind == "Extractor" and item.spec.get("realtime")
    }
    found: list[dict[str, Any]] = []
    for entry in manifest.of_kind("Collection") if served else ():
        use = entry.spec.get("feature_extractor") or {}
        name, version = str(use.get("feature_extractor_name")), str(use.get("version"))
        extractor = served.get((entry.namespace, name, version))
        if extractor is None:
            continue
        endpoint = conditions.read(extractor.status, "EndpointReady")
        running = endpoint is not None and endpoint.get("status") == "True"
        status = "absent" if endpoint is None else "RUNNING" if running else str(endpoint.get("reason") or "unknown")
        app = {"name": extractor.metadata.name, "status": status}
        id = extractor_id(name, version)
        item = {"collection": entry.name, "feature_extractor": id, "realtime_available": running, "serve_apps": [app]}
        found.append(item)
    return found


def _planned(step: Step) -> str:
    if step.action is Action.CREATE:
        return "would_create"
    return "exists" if step.action is Action.NOTHING else "drifted"


def _row(step: Step, status: str, resource: Resource | None = None) -> dict[str, Any]:
    shown = resource or step.before
    changed = step.action in (Action.UPDATE, Action.REPLACE)
    return {
        "resource_type": step.entry.kind.lower(),
        "name": step.entry.name,
        "namespace": step.entry.namespace,
        "resource_id": (shown.id or None) if shown is not None else None,
        "status": status,
        "error": None,
        "pending_reason": None,
        "drift": step.fields if changed else None,
        "refused": None,
        "touches": list(step.touches),
    }


def _result(rows: Iterable[dict[str, Any]], errors: Sequence[str], *, dry_run: bool) -> dict[str, Any]:
    listed = list(rows)
    counts = Counter(row["status"] for row in listed)
    return {
        "success": not errors,
        "resources": listed,
        "created_count": counts["created"] + sum(row["status"] == "pending" for row in listed if row["drift"] is None),
        "updated_count": counts["updated"] + sum(row["status"] == "pending" for row in listed if row["drift"]),
        "failed_count": counts["failed"],
        "skipped_count": sum(counts[status] for status in _SKIPPED),
        "would_create_count": counts["would_create"] if dry_run else 0,
        "errors": list(errors),
        "warnings": [],
        "rollback_performed": False,
        "rollback_orphans": [],
        "dry_run": dry_run,
        "task_id": None,
        "readiness": [],
    }


def _item(step: Step, action: str) -> dict[str, Any]:
    namespace = f"namespace: {step.entry.namespace}" if step.entry.namespace else None
    return {
        "resource_type": step.entry.kind.lower(),
        "name": step.entry.name,
        "action": action,
        "details": step.details or namespace,
    }


def _inside(resource: Resource) -> str | None:
    return f"namespace: {resource.namespace}" if resource.namespace else None
