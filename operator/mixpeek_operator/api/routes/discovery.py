"""What this server offers: extractors, stages and the manifest's schema. Public, for people and for agents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from mixpeek_operator.api.catalog import extractor_discovery, in_category, stage_discovery
from mixpeek_operator.api.responses import Json
from mixpeek_operator.api.routing import Routes
from mixpeek_operator.api.services import Services
from mixpeek_operator.core.errors import NotFoundError
from mixpeek_operator.core.fields import Ref
from mixpeek_operator.core.kind import KindSchema

_VERSION = "1.0"
_ALSO = {"Cluster": {"vector_config"}}
"""Fields that the default of another field makes necessary."""
_LOOP = [
    "GET /v1/discovery for extractors, stages and schemas",
    "POST /v1/manifest/validate until it is valid",
    "POST /v1/manifest/lint for what is allowed but unwise",
    "POST /v1/manifest/diff to see what an apply would change",
    "POST /v1/manifest/apply",
]


def router(services: Services) -> Routes:
    """Routes of `/v1/discovery`."""
    routes = Routes(tags=["Discovery"])
    schema: dict[str, Any] = {}

    def manifest_schema() -> dict[str, Any]:
        # Kinds do not change while the server runs, and their JSON schemas are large.
        if not schema:
            schema.update(describe([kind.schema for kind in services.kinds.values()]))
        return schema

    def extractors() -> list[dict[str, Any]]:
        return [extractor_discovery(info) for _, info in sorted(services.catalog.extractors().items())]

    def stages(category: str | None = None) -> list[dict[str, Any]]:
        found = [info for _, info in sorted(services.catalog.stages().items())]
        return [stage_discovery(info) for info in found if in_category(info, category)]

    @routes.get("/v1/discovery")
    async def discover() -> Json:
        return Json({"extractors": extractors(), "stages": stages(), "manifest_schema": manifest_schema()})

    @routes.get("/v1/discovery/extractors")
    async def list_extractors() -> Json:
        return Json(extractors())

    @routes.get("/v1/discovery/stages")
    async def list_stages(category: str | None = None) -> Json:
        return Json(stages(category))

    @routes.get("/v1/discovery/schema")
    async def get_manifest_schema(resource_type: str | None = None) -> Json:
        known = manifest_schema()
        if resource_type is None:
            return Json(known)
        if resource_type not in known["schemas"]:
            types = ", ".join(known["resource_types"])
            raise NotFoundError(f"no resource type {resource_type!r}; there are {types}")
        return Json(
            {
                **known,
                "resource_types": [resource_type],
                "schemas": {resource_type: known["schemas"][resource_type]},
                "dependency_graph": {resource_type: known["dependency_graph"][resource_type]},
                "examples": {resource_type: known["examples"][resource_type]},
            }
        )

    return routes


def describe(kinds: Sequence[KindSchema]) -> dict[str, Any]:
    """Return the manifest's sections: schema, dependencies and an example of each, from the kinds themselves."""
    schemas = sorted(kinds, key=lambda kind: kind.plural)
    plural = {kind.name: kind.plural for kind in schemas}
    return {
        "manifest_version": _VERSION,
        "resource_types": [kind.plural for kind in schemas],
        "schemas": {kind.plural: kind.spec.model_json_schema(by_alias=False) for kind in schemas},
        "dependency_graph": {
            kind.plural: sorted(plural[name] for name in set(_referred(kind.spec)) if name in plural)
            for kind in schemas
        },
        "examples": {kind.plural: _example(kind) for kind in schemas},
        "authoring_loop": _LOOP,
    }


def _example(kind: KindSchema) -> str:
    """A section with one entry, made of the examples that every required field of the spec carries."""
    fields = kind.spec.model_fields.items()
    shown = {name for name, field in fields if field.is_required()} | _ALSO.get(kind.name, set())
    entry = {name: field.examples[0] for name, field in fields if name in shown and field.examples}
    return yaml.safe_dump({kind.plural: [entry]}, sort_keys=False, allow_unicode=True)


def _referred(model: type[BaseModel], seen: frozenset[type[BaseModel]] = frozenset()) -> Iterator[str]:
    """Yield the kinds that must be there first: those the fields of a spec refer to, in nested models too."""
    for field in model.model_fields.values():
        yield from _kinds(field.metadata)
        yield from _marked(field.annotation, seen | {model})


def _marked(annotation: Any, seen: frozenset[type[BaseModel]]) -> Iterator[str]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation not in seen:
            yield from _referred(annotation, seen)
        return
    yield from _kinds(getattr(annotation, "__metadata__", ()))
    for part in get_args(annotation):
        yield from _marked(part, seen)


def _kinds(marks: Iterable[Any]) -> Iterator[str]:
    return (mark.kind for mark in marks if isinstance(mark, Ref) and mark.ordered)
