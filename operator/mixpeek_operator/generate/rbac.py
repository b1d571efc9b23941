"""Least-privilege rules of the processes and of people, for the chart and the plain manifests alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.core.resource import API_GROUP

Rule = dict[str, Any]

_SECRET = "mixpeek-secrets"  # noqa: S105 - a name
"""The Secret of an organization: `adapters.kubernetes_secrets` keeps all its secrets in this one."""
_READ = ["get", "list", "watch"]
_WRITE = ["create", "update", "patch", "delete"]


def operator_rules(schemas: Mapping[str, KindSchema]) -> list[Rule]:
    """Rules of the operator, in every namespace it watches."""
    kinds = _plurals(schemas)
    return [
        # Finalizers and the id annotation are written to the resource; who mints ids may adopt. A Namespace is deleted
        # with all that is in it when its ttl_seconds are over.
        _rule(API_GROUP, kinds, [*_READ, "update", "patch", "delete", "adopt"]),
        _rule(API_GROUP, [f"{name}/status" for name in kinds], ["get", "update", "patch"]),
        # Owner references that block deletion need it where that admission plugin is on.
        _rule(API_GROUP, [f"{name}/finalizers" for name in kinds], ["update"]),
        _rule("ray.io", ["rayservices"], [*_READ, "create", "patch", "delete"]),
        # KubeRay makes them; only the bounds of their workers are handed on.
        _rule("ray.io", ["rayclusters"], ["get", "patch"]),
        # Listed and watched by its name alone, which is all that a rule with a name lets through.
        {**_rule("", ["secrets"], _READ), "resourceNames": [_SECRET]},
        _rule("", ["events"], ["get", "create", "patch"]),
    ]


def api_rules(schemas: Mapping[str, KindSchema]) -> list[Rule]:
    """Rules of the API server, in every namespace it serves."""
    kinds = _plurals(schemas)
    return [
        _rule(API_GROUP, kinds, [*_READ, *_WRITE, "adopt"]),
        _rule(API_GROUP, [f"{name}/status" for name in kinds], ["get"]),
        {**_rule("", ["secrets"], ["get", "patch"]), "resourceNames": [_SECRET]},
        # What is not there yet has no name that a rule could ask for.
        _rule("", ["secrets"], ["create"]),
        _rule("", ["events"], ["get", "list"]),
        # A plan tells what would become of a namespace's Ray cluster.
        _rule("ray.io", ["rayservices", "rayclusters"], ["get"]),
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
