"""The generated parts of an installation: what the Helm chart includes, and the same for `kubectl apply -k`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.core.settings import Settings
from mixpeek_operator.generate.admission import admission
from mixpeek_operator.generate.rbac import api_rules, operator_rules, people_rules

CHART_FILES = "charts/mixpeek-operator/files"
_BASE = "manifests/base"
_LABELS = {"app.kubernetes.io/name": "mixpeek-operator", "app.kubernetes.io/part-of": "mixpeek"}


def install_files(schemas: Mapping[str, KindSchema], definitions: Mapping[str, str], header: str) -> dict[str, str]:
    """Return path → text. `definitions` are the files of the CustomResourceDefinitions, by path.

    The chart has copies of its own: Helm packs nothing from outside a chart's folder.
    """
    people = people_rules(schemas)
    rules = {"operator": operator_rules(schemas), "api": api_rules(schemas), **people}
    policies = _stream(admission(schemas))
    roles = [
        _role("mixpeek-operator", rules["operator"]),
        _role("mixpeek-api", rules["api"]),
        *(_role(f"mixpeek-{name}", rules[name], {f"{_AGGREGATE}{name}": "true"}) for name in people),
    ]
    names = sorted(path.rpartition("/")[2] for path in definitions)
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": names,
    }
    files = {f"{CHART_FILES}/{path}": text for path, text in definitions.items()}
    files["crds/kustomization.yaml"] = header + _dump(kustomization)
    files[f"{CHART_FILES}/admission.yaml"] = files[f"{_BASE}/admission.yaml"] = header + policies
    files[f"{CHART_FILES}/rules.yaml"] = header + _dump(rules)
    files[f"{CHART_FILES}/settings.yaml"] = header + _dump(_variables())
    files[f"{_BASE}/cluster-roles.yaml"] = header + _stream(roles)
    return files


def _variables() -> list[str]:
    """Names of the settings' variables, so that the chart can tell a misspelt one."""
    prefix = Settings.model_config.get("env_prefix", "")
    return sorted(f"{prefix}{name}".upper() for name in Settings.model_fields)


_AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"


def _role(name: str, rules: list[dict[str, Any]], labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name, "labels": {**_LABELS, **(labels or {})}},
        "rules": rules,
    }


def _stream(documents: Iterable[Mapping[str, Any]]) -> str:
    return "---\n".join(_dump(document) for document in documents)


def _dump(value: Any) -> str:
    # Every document must be written out in full: anchors would join rules that only happen to be equal.
    return yaml.dump(value, Dumper=_Plain, sort_keys=False, width=110, allow_unicode=True)


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True
