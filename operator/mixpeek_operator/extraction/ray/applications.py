"""The Ray Serve applications of a namespace: which there are, what they are called and where they answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixpeek_operator.core.catalog import Catalog
from mixpeek_operator.core.placeholders import secret_of
from mixpeek_operator.extraction.ray.endpoints import EXTRACTOR, VERSION, route_prefix
from mixpeek_operator.ports.machines import Application


def of_platform(namespace_id: str) -> Application:
    """Return the application that embeds the namespace's queries."""
    route = route_prefix(namespace_id, EXTRACTOR, VERSION)
    return Application(route.strip("/").replace("/", "."), route, EXTRACTOR, VERSION)


def of_extractor(namespace_id: str, name: str, spec: Mapping[str, Any], catalog: Catalog) -> Application | None:
    """Return the application of a declared extractor, None when it is not realtime or has no code that could run.

    Neither its name nor its route has the version: a change of version replaces the replicas of one application while
    it goes on answering.
    """
    source, resources = spec.get("source") or {}, spec.get("resources") or {}
    image, version = source.get("container_image"), str(spec.get("version"))
    if not spec.get("realtime") or not (image or (name, version) in catalog.extractors()):
        return None
    environment = dict(spec.get("environment") or {})
    if mixed(environment):
        return None
    route = f"/{namespace_id}/extractors/{name}"
    least = max(int(resources.get("min_replicas") or 1), 1)
    return Application(
        name=route.strip("/").replace("/", "."),
        route=route,
        extractor=name,
        version=version,
        min_replicas=least,
        max_replicas=max(int(resources.get("max_replicas") or least), least),
        cpus=float(_or(resources.get("num_cpus"), 1.0)),
        gpus=float(_or(resources.get("num_gpus"), 0.0)),
        memory_gb=resources.get("memory_gb"),
        gpu_type=resources.get("gpu_type"),
        image=image,
        environment=environment,
    )


def mixed(environment: Mapping[str, str]) -> list[str]:
    """Return the variables that hold a placeholder among other text, which a pod cannot be given."""
    return sorted(name for name, value in environment.items() if "${{" in value and secret_of(value) is None)


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
