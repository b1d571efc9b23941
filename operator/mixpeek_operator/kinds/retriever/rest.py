"""Retriever in the REST API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mixpeek_operator.core.catalog import Catalog
from mixpeek_operator.core.resource import Resource
from mixpeek_operator.core.rest import Facts, RestView, times

_READABLE = {"filter", "sort", "reduce", "apply", "enrich"}


def render(resource: Resource, facts: Facts) -> dict[str, Any]:
    """Return the wire's retriever, flat; each stage holds its parameters twice, as clients read either place."""
    spec = facts.spec
    stages = [_stage(stage, facts.catalog) for stage in spec.get("stages") or ()]
    collection_ids = list(spec.get("collection_identifiers") or ())
    return {
        "retriever_id": resource.id,
        "retriever_name": resource.name,
        "description": spec.get("description"),
        "collection_ids": collection_ids,
        "collection_identifiers": collection_ids,
        "stages": stages,
        "input_schema": spec.get("input_schema") or {},
        "budget_limits": spec.get("budget_limits") or {},
        "cache_config": spec.get("cache_config"),
        "feature_dependencies": [_address(uri) for uri in sorted(set(_uris(spec.get("stages") or ())))],
        "tags": spec.get("tags") or [],
        "metadata": spec.get("metadata") or {},
        "display_config": spec.get("display_config"),
        "version": resource.metadata.generation,
        "fusion": next((str(found) for found in _fusions(spec.get("stages") or ())), None),
        "is_published": False,
        **times(resource),
    }


def _stage(stage: Mapping[str, Any], catalog: Catalog) -> dict[str, Any]:
    parameters = dict(stage.get("parameters") or {})
    config = {"stage_id": stage["stage_id"], "parameters": parameters}
    if stage.get("pre_filters"):
        config["pre_filters"] = stage["pre_filters"]
    known = catalog.stages().get(str(stage["stage_id"]))
    category = stage.get("stage_type") or (known.category if known else None)
    answer = {
        "stage_name": stage["stage_name"],
        "stage_type": category if category in _READABLE else "reduce" if category == "group" else None,
        "config": config,
        "parameters": parameters,
    }
    for name in ("batch_size", "budget_limits", "description", "on_error", "output_alias", "when"):
        if stage.get(name) is not None:
            answer[name] = stage[name]
    return answer


def _uris(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _uris(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _uris(item)
    elif isinstance(value, str) and value.startswith("mixpeek://") and "{" not in value:
        yield value


def _fusions(stages: Any) -> Iterator[Any]:
    for stage in stages:
        fusion = (stage.get("parameters") or {}).get("fusion")
        if fusion:
            yield fusion


def _address(uri: str) -> dict[str, Any]:
    extractor, _, rest = uri.removeprefix("mixpeek://").partition("@")
    version, _, output = rest.partition("/")
    return {"scheme": "mixpeek", "extractor": extractor, "version": version, "output": output or None}


REST = RestView(
    path="/v1/retrievers",
    parameter="retriever_id",
    tag="Retrievers",
    render=render,
    cloned=True,
    ignored=frozenset({"visibility", "marketplace_listing_id", "requires_subscription"}),
)
