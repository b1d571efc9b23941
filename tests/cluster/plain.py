"""`python -m tests.cluster.plain`: write `manifests/` from the chart, so that both are one installation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml
from tests.servers.helm import render
from tests.servers.kubernetes.control_plane import REPOSITORY

Object = dict[str, Any]
MANIFESTS = REPOSITORY / "manifests"
HEADER = "# Rendered from the chart by `python -m tests.cluster.plain`; change the chart, not this file.\n"
PROCESSES = ("operator", "api")
_STORE_VARIABLES = (
    *("MIXPEEK_MONGO", "MONGODB_", "MIXPEEK_REDIS", "REDIS_", "MIXPEEK_QDRANT", "MIXPEEK_BLOBS", "AWS_"),
    "MIXPEEK_RAY_POD_SECRET",
)
_HELM_LABELS = ("helm.sh/chart", "app.kubernetes.io/managed-by")
IN_CLUSTER: Object = {"credentials": {"existingSecret": "mixpeek-credentials"}}
EXTERNAL: Object = IN_CLUSTER | {
    "mongodb": {"enabled": False, "external": {"existingSecret": "mixpeek-stores", "key": "mongo-uri"}},
    "redis": {"enabled": False, "external": {"existingSecret": "mixpeek-stores", "key": "redis-url"}},
    "qdrant": {"enabled": False, "external": {"url": "http://qdrant.example:6333", "existingSecret": "mixpeek-stores"}},
    "objectStorage": {
        "enabled": False,
        "external": {"url": "s3://mixpeek", "existingSecret": "mixpeek-stores"},
    },
}


def plain(objects: Iterable[Object]) -> list[Object]:
    """Return the objects without what only Helm says of them, and without its hooks."""
    kept = []
    for item in objects:
        metadata = item["metadata"]
        if "helm.sh/hook" in metadata.get("annotations", {}):
            continue
        metadata.get("annotations", {}).pop("helm.sh/resource-policy", None)
        if not metadata.get("annotations", True):
            del metadata["annotations"]
        for labels in (metadata.get("labels"), template(item).get("metadata", {}).get("labels")):
            for label in _HELM_LABELS:
                (labels or {}).pop(label, None)
        kept.append(item)
    return kept


def template(item: Object) -> Object:
    """Return the pod template of a workload, {} for anything else."""
    found = item.get("spec", {}).get("template", {}) if isinstance(item.get("spec"), dict) else {}
    return found if isinstance(found, dict) else {}


def component(item: Object) -> str:
    """Return the component that an object belongs to."""
    return str(item["metadata"].get("labels", {}).get("app.kubernetes.io/component", ""))


def files() -> dict[str, str]:
    """Return path below `manifests/` → text."""
    objects = plain(render(IN_CLUSTER))
    external = {component(item): item for item in plain(render(EXTERNAL)) if item["kind"] == "Deployment"}
    parts: dict[str, list[Object]] = {}
    for item in objects:
        part = _part(item)
        if part is not None:
            parts.setdefault(part, []).append(item)
    for name in PROCESSES:
        deployment = next(item for item in parts[f"base/{name}.yaml"] if item["kind"] == "Deployment")
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        stores = [entry for entry in container["env"] if entry["name"].startswith(_STORE_VARIABLES)]
        container["env"] = [entry for entry in container["env"] if entry not in stores]
        parts[f"stores/{name}.yaml"] = [_patch(deployment, stores)]
        others = external[name]["spec"]["template"]["spec"]["containers"][0]["env"]
        parts[f"external/{name}.yaml"] = [
            _patch(deployment, [entry for entry in others if entry["name"].startswith(_STORE_VARIABLES)])
        ]
    return {
        name: HEADER + yaml.safe_dump_all(documents, sort_keys=False, width=110) for name, documents in parts.items()
    }


def _part(item: Object) -> str | None:
    kind, of = item["kind"], component(item)
    if kind in ("CustomResourceDefinition", "ClusterRole") or kind.startswith("ValidatingAdmission"):
        return None  # generated from the kinds
    if of not in PROCESSES:
        return "stores/stores.yaml"
    if kind in ("NetworkPolicy", "PodDisruptionBudget"):
        return "default/availability.yaml"
    return "base/rbac.yaml" if kind in ("ServiceAccount", "Role") or kind.endswith("Binding") else f"base/{of}.yaml"


def _patch(deployment: Object, variables: list[Object]) -> Object:
    container = deployment["spec"]["template"]["spec"]["containers"][0]["name"]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {key: deployment["metadata"][key] for key in ("name", "namespace")},
        "spec": {"template": {"spec": {"containers": [{"name": container, "env": variables}]}}},
    }


if __name__ == "__main__":
    for name, text in files().items():
        (MANIFESTS / name).write_text(text)
