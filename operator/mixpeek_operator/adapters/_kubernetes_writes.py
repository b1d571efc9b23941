"""How a declaration becomes one write to the API server. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mixpeek_operator.adapters.kubernetes_api import Api, Object
from mixpeek_operator.core.resource import Metadata, Resource


@dataclass(frozen=True, slots=True)
class Write:
    """A write that was rehearsed; without a body there is nothing to do."""

    api: Api
    before: Resource
    after: Resource
    content_type: str | None
    """None is server-side apply."""
    body: Object


def same(one: Metadata, other: Metadata) -> bool:
    """Whether what users and the engine write of the metadata is equal."""
    return (one.labels, one.annotations, one.finalizers) == (other.labels, other.annotations, other.finalizers)


def metadata_patch(before: Metadata, after: Metadata) -> Object:
    """Return the merge patch between two metadata, refused when the object is not at `before` any more."""
    changes: Object = {"resourceVersion": str(before.resource_version)}
    for name in ("labels", "annotations"):
        was, now = getattr(before, name), getattr(after, name)
        if was != now:
            gone = {key: None for key in was if key not in now}
            changes[name] = gone | {key: value for key, value in now.items() if was.get(key) != value}
    if before.finalizers != after.finalizers:
        changes["finalizers"] = list(after.finalizers)
    return {"metadata": changes}


def apply_body(raw: Object, after: Metadata, spec: Object, manager: str) -> Object:
    """Return what server-side apply is given: the spec, and of the metadata what is ours or new.

    Labels and annotations of others (a GitOps tool's, kubectl's) are not taken over by naming them.
    """
    metadata = _identity(raw)
    owned = _owned(raw["metadata"].get("managedFields") or (), manager)
    for name in ("labels", "annotations"):
        was = raw["metadata"].get(name) or {}
        mine = {
            key: value
            for key, value in getattr(after, name).items()
            if f"f:{key}" in (owned.get(f"f:{name}") or {}) or was.get(key) != value
        }
        if mine:
            metadata[name] = mine
    was_held = raw["metadata"].get("finalizers") or []
    held = owned.get("f:finalizers") or {}
    kept = [item for item in after.finalizers if f'v:"{item}"' in held or item not in was_held]
    if kept:
        metadata["finalizers"] = kept
    return {"apiVersion": raw["apiVersion"], "kind": raw["kind"], "metadata": metadata, "spec": spec}


def replaced(raw: Object, after: Metadata, spec: Object) -> Object:
    """Return the whole object with another declaration: what others wrote into the spec goes."""
    metadata = {
        **raw["metadata"],
        "labels": dict(after.labels),
        "annotations": dict(after.annotations),
        "finalizers": list(after.finalizers),
    }
    return {**raw, "metadata": metadata, "spec": spec}


def says(raw: Object, metadata: Metadata, spec: Object) -> bool:
    """Whether an object declares exactly this."""
    found = raw["metadata"]
    return bool(
        raw.get("spec") == spec
        and (found.get("labels") or {}) == metadata.labels
        and (found.get("annotations") or {}) == metadata.annotations
        and (found.get("finalizers") or []) == metadata.finalizers
    )


def _identity(raw: Object) -> Object:
    """Name the object and the version of it: a newer one is a conflict, another of its name as well."""
    metadata = raw["metadata"]
    return {key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion")}


def _owned(entries: Any, manager: str) -> Mapping[str, Any]:
    """Return which fields of the metadata `manager` has applied."""
    for entry in entries:
        if entry.get("manager") == manager and entry.get("operation") == "Apply" and not entry.get("subresource"):
            fields: Mapping[str, Any] = (entry.get("fieldsV1") or {}).get("f:metadata") or {}
            return fields
    return {}
