"""What an apply would do, as data: the same plan is shown by diff, returned by a dry run and executed by apply.

Pure: desired entries and existing resources in, steps in dependency order out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mixpeek_operator.core.errors import Problem
from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.core.refs import immutable_changes
from mixpeek_operator.core.resource import ID_ANNOTATION, Resource
from mixpeek_operator.manifest.effects import effects
from mixpeek_operator.manifest.model import Entry, Manifest
from mixpeek_operator.manifest.resolve import Existing, Identity, Resolved, identity_of
from mixpeek_operator.manifest.text import Path, path_text

_ABSENT: Any = object()
_SHOWN = 80


class Action(StrEnum):
    """What a step does to its resource."""

    CREATE = "create"
    UPDATE = "update"
    REPLACE = "replace"
    """The change cannot be made in place: the resource would have to be deleted and made again."""
    NOTHING = "unchanged"


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs. `why` is set when it cannot change."""

    path: Path
    before: Any
    after: Any
    why: str | None = None

    def __str__(self) -> str:
        text = f"{path_text(self.path)}: {_shown(self.before)} → {_shown(self.after)}"
        return f"{text} (must be replaced because {self.why})" if self.why else text


@dataclass(frozen=True, slots=True)
class Step:
    """What happens to one resource, and what that touches."""

    action: Action
    entry: Entry
    before: Resource | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)
    """The whole spec afterwards: fields that the manifest does not mention keep what they have."""
    changes: tuple[Change, ...] = ()
    touches: tuple[str, ...] = ()

    @property
    def details(self) -> str:
        """Every change and what it touches, one per line."""
        return "\n".join([*map(str, self.changes), *(f"touches: {item}" for item in self.touches)])

    @property
    def fields(self) -> list[str]:
        """The fields that differ, as paths."""
        return [path_text(change.path) for change in self.changes]


@dataclass(slots=True)
class Plan:
    """Steps in the order they are carried out, and what exists beside them."""

    steps: list[Step] = field(default_factory=list)
    beside: list[Resource] = field(default_factory=list)
    """Resources that exist and that the manifest does not declare; never touched."""
    problems: list[Problem] = field(default_factory=list)
    """What makes the plan impossible to carry out: changes of fields that cannot change, resources being deleted."""

    def of(self, action: Action) -> list[Step]:
        return [step for step in self.steps if step.action is action]


def plan(manifest: Manifest, resolved: Resolved, existing: Existing, schemas: Mapping[str, KindSchema]) -> Plan:
    """Return the steps that turn what exists into what the manifest declares."""
    result = Plan()
    seen: set[Identity] = set()
    for entry in resolved.entries:
        identity = identity_of(entry)
        seen.add(identity)
        before = existing.by_identity.get(identity)
        if before is None:
            result.steps.append(Step(Action.CREATE, entry, None, entry.spec))
            continue
        if before.deleting:
            message = f"{entry.label} is being deleted; apply again when it is gone"
            result.problems.append(Problem("being_deleted", message, manifest.place(entry), location=entry.path))
        result.steps.append(_compared(entry, before, schemas[entry.kind]))
    for step in result.of(Action.REPLACE):
        result.problems += [_refusal(manifest, step, change) for change in step.changes if change.why]
    result.beside = [
        resource for resource in existing.resources if identity_of(resource) not in seen and not resource.deleting
    ]
    return result


def differences(before: Any, after: Any, path: Path = ()) -> Iterator[tuple[Path, Any, Any]]:
    """Yield (path, before, after) of the smallest parts that differ; lists of another length differ as a whole."""
    if before == after and type(before) is type(after):
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys((*before, *after)):
            yield from differences(before.get(key, _ABSENT), after.get(key, _ABSENT), (*path, key))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from differences(old, new, (*path, index))
    elif before != after:
        yield path, before, after


def _compared(entry: Entry, before: Resource, schema: KindSchema) -> Step:
    want, have = entry.spec, before.spec
    changed = [
        name
        for name, value in want.items()
        if (name not in have or have[name] != value) and not _is_default(schema, name, value, have)
    ]
    metadata = _metadata_changes(entry, before)
    if not changed and not metadata:
        return Step(Action.NOTHING, entry, before, have)
    merged = {**have, **{name: want[name] for name in changed}}
    fixed = dict(immutable_changes(schema, have, merged))
    changes: list[Change] = []
    for name in changed:
        for path, old, new in differences(have.get(name, _ABSENT), want[name], (name,)):
            why = next(
                (reason for at, reason in fixed.items() if path[: len(at)] == at or at[: len(path)] == path), None
            )
            changes.append(Change(path, old, new, why))
    changes += metadata
    action = Action.REPLACE if fixed else Action.UPDATE
    touched = effects(entry.kind, changed, before.status, replaced=bool(fixed))
    return Step(action, entry, before, merged, tuple(changes), tuple(touched))


def _is_default(schema: KindSchema, name: str, value: Any, have: Mapping[str, Any]) -> bool:
    """Whether the manifest writes out what an absent field means anyway."""
    field_info = schema.spec.model_fields.get(name)
    if name in have or field_info is None or field_info.is_required():
        return False
    default = field_info.get_default(call_default_factory=False)
    return default is not None and bool(default == value) and type(default) is type(value)


def _metadata_changes(entry: Entry, before: Resource) -> list[Change]:
    """Labels and annotations a Kubernetes document sets; those it does not mention are left alone."""
    changes: list[Change] = []
    for part, have in (("labels", before.metadata.labels), ("annotations", before.metadata.annotations)):
        for key, value in (entry.kubernetes.get(part) or {}).items():
            if have.get(key) != value:
                why = "an id names data that exists" if key == ID_ANNOTATION else None
                changes.append(Change(("kubernetes", part, key), have.get(key, _ABSENT), value, why))
    return changes


def _refusal(manifest: Manifest, step: Step, change: Change) -> Problem:
    touched = f" ({'; '.join(step.touches)})" if step.touches else ""
    message = (
        f"{path_text(change.path)} of {step.entry.label} cannot change from {_shown(change.before)} to "
        f"{_shown(change.after)} because {change.why}; to replace it, delete it and apply again{touched}"
    )
    place = manifest.place(step.entry, change.path)
    return Problem("immutable_field", message, place, location=(*step.entry.path, *change.path))


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "(not set)"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
