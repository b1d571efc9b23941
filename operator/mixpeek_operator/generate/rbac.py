"""Least-privilege rules of the processes and of people, for the chart and the plain manifests alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.core.resource import API_GROUP

Rule = dict[str, Any]

_READ = ["get", "list", "watch"]
_WRITE = ["create", "update", "patch", "delete"]


def operator_rules(schemas: Mapping[str, KindSchema]) -> list[Rule]:
    """Rules of the operator, in every namespace it watches."""
    kinds = _plurals(schemas)
    return [
        # Finalizers and the id annotation are written to the resource; who mints ids may adopt.
        _rule(API_GROUP, kinds, [*_READ, "update", "patch", "adopt"]),
        _rule(API_GROUP, [f"{name}/status" for name in kinds], ["get", "update", "patch"]),
        # Owner references that block deletion need it where that admission plugin is on.
        _rule(API_GROUP, [f"{name}/finalizers" for name in kinds], ["update"]),
        _rule("ray.io", ["rayclusters", "rayservices", "rayjobs"], [*_READ, *_WRITE]),
        _rule("", ["secrets"], _READ),
        _rule("", ["events"], ["create", "patch"]),
        _rule("events.k8s.io", ["events"], ["create", "patch"]),
    ]


def api_rules(schemas: Mapping[str, KindSchema]) -> list[Rule]:
    """Rules of the API server, in every namespace it serves."""
    kinds = _plurals(schemas)
    return [
        _rule(API_GROUP, kinds, [*_READ, *_WRITE, "adopt"]),
        _rule(API_GROUP, [f"{name}/status" for name in kinds], ["get"]),
        _rule("", ["secrets"], [*_READ, *_WRITE]),
        _rule("", ["events"], ["get", "list"]),
        _rule("events.k8s.io", ["events"], ["get", "list"]),
    ]


def people_rules(schemas: Mapping[str, KindSchema]) -> dict[str, list[Rule]]:
    """What the cluster's own roles `view` and `edit` gain; `adopt` is in neither."""
    kinds = _plurals(schemas)
    reading = [_rule(API_GROUP, kinds, _READ), _rule(API_GROUP, [f"{name}/status" for name in kinds], ["get"])]
    return {"view": reading, "edit": [_rule(API_GROUP, kinds, [*_WRITE, "deletecollection"])]}


def _plurals(schemas: Mapping[str, KindSchema]) -> list[str]:
    return sorted(kind.plural for kind in schemas.values())


def _rule(group: str, resources: list[str], verbs: list[str]) -> Rule:
    return {"apiGroups": [group], "resources": resources, "verbs": list(verbs)}
