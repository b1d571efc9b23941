"""Answers about declared resources: ids for names, counts, and pages of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from mixpeek_operator.api.services import Services
from mixpeek_operator.core import refs
from mixpeek_operator.core.directory import CollectionInfo
from mixpeek_operator.core.errors import NotFoundError
from mixpeek_operator.core.filters import equals, matches
from mixpeek_operator.core.listing import ListQuery
from mixpeek_operator.core.resource import Resource
from mixpeek_operator.core.rest import Facts, RestView
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.ingestion.paging import seal, unseal
from mixpeek_operator.kinds.collection.rest import output_properties


async def facts_of(
    services: Services, scope: Scope, kind: str, view: RestView, resource: Resource, *, counted: bool = True
) -> Facts:
    """Gather the facts that `view.render` uses for one resource; without `counted` the counts are left out."""
    spec = await with_ids(services, scope, kind, resource)
    namespace_id = resource.id if kind == "Namespace" else scope.namespace_id
    collection = None
    if kind == "Collection" and namespace_id is not None:
        try:
            collection = await services.directory.collection(namespace_id, resource.id)
        except NotFoundError:
            # Not reconciled yet: the declaration can be shown, its features cannot.
            collection = None
    counts = await _counts(services, scope, kind, view, resource, namespace_id) if counted else {}
    return Facts(
        spec=spec,
        namespace_id=namespace_id,
        catalog=services.catalog,
        counts=counts,
        collection=collection,
        source_properties=await _source(services, collection, frozenset()) if collection else {},
    )


async def _source(services: Services, info: CollectionInfo, above: frozenset[str]) -> dict[str, Mapping[str, Any]]:
    """Return the schema of what feeds a collection; of several sources the first that has a field says its type."""
    found: dict[str, Mapping[str, Any]] = {}
    for id in reversed(info.source_ids):
        if info.source_type == "bucket":
            found |= (await services.directory.bucket(info.namespace_id, id)).properties
        elif id not in above:
            inner = await services.directory.collection(info.namespace_id, id)
            found |= output_properties(services.catalog, inner, await _source(services, inner, above | {id}))
    return found


async def with_ids(services: Services, scope: Scope, kind: str, resource: Resource) -> dict[str, Any]:
    """Return the spec with the ids of what it refers to; a name that nobody has stays."""
    schema = services.kinds[kind].schema
    found = [item for item in refs.references(schema, resource.spec) if item.kind != "Namespace"]
    mapping: dict[tuple[str, str], str] = {}
    for item in found:
        if (item.kind, item.value) in mapping:
            continue
        try:
            target = await services.resources.get(scope, item.kind, item.value)
        except NotFoundError:
            continue
        mapping[item.kind, item.value] = target.id
    return refs.translate(resource.spec, found, mapping) if mapping else dict(resource.spec)


async def _counts(
    services: Services, scope: Scope, kind: str, view: RestView, resource: Resource, namespace_id: str | None
) -> dict[str, int]:
    if not view.counted or namespace_id is None:
        return {}
    if kind == "Bucket":
        return dict(await services.objects.stats(namespace_id, resource.id))
    if kind == "Collection":
        return {"document_count": await _documents(services, namespace_id, resource.id)}
    return await _inside(services, Scope(scope.organization, namespace_id, resource.name), namespace_id)


async def counted_status(services: Services, scope: Scope, kind: str, resources: Sequence[Resource]) -> list[Any]:
    """Return the status of each resource with its counts as they are now, not as they were when it was reconciled."""
    if kind not in ("Namespace", "Bucket", "Collection"):
        return [resource.status for resource in resources]
    organization = Scope(scope.organization)
    ids = {item.name: item.id for item in await services.resources.find(organization, "Namespace")}
    found = []
    for resource in resources:
        status = resource.status
        namespace_id = resource.id if kind == "Namespace" else ids.get(str(resource.spec.get("namespace")))
        if namespace_id is not None and "object_count" in status:
            stats = await services.objects.stats(namespace_id, resource.id)
            status = {**status, "object_count": stats["object_count"]}
        if namespace_id is not None and "document_count" in status:
            inside = None if kind == "Namespace" else resource.id
            status = {**status, "document_count": await _documents(services, namespace_id, inside)}
        found.append(status)
    return found


async def stats_of_namespace(services: Services, scope: Scope, namespace: Resource) -> dict[str, Any]:
    """Return the wire's NamespaceStatsResponse."""
    counts = await _inside(services, Scope(scope.organization, namespace.id, namespace.name), namespace.id)
    return {"namespace_id": namespace.id, "document_count_complete": True, **counts}


async def _inside(services: Services, inside: Scope, namespace_id: str) -> dict[str, int]:
    return {
        "document_count": await _documents(services, namespace_id, None),
        "bucket_count": len(await services.resources.find(inside, "Bucket")),
        "collection_count": len(await services.resources.find(inside, "Collection")),
        "object_count": await services.metadata.count("objects", namespace_id),
    }


async def _documents(services: Services, namespace_id: str, collection_id: str | None) -> int:
    wanted = None if collection_id is None else equals("collection_id", collection_id)
    try:
        counted: int = await services.vectors.count(namespace_id, wanted)
    except NotFoundError:
        return 0
    return counted


Shown = tuple[dict[str, Any], Resource]
"""A resource and its answer, perhaps without counts."""


def searched(found: list[Resource], wanted: str | None) -> list[Resource]:
    """Return the resources whose name, id or description holds `wanted`, whatever its case."""
    if not wanted:
        return found
    needle = wanted.lower()
    return [
        item
        for item in found
        if needle in item.name.lower()
        or needle in item.id.lower()
        or needle in str(item.spec.get("description") or "").lower()
    ]


def arranged(items: list[Shown], query: ListQuery) -> list[Shown]:
    """Return the items that match the query's filters, in its order; what lacks a sorted field comes last."""
    if query.filters is not None:
        items = [item for item in items if matches(query.filters, item[0])]
    for field, direction in reversed(query.sort):
        present = [item for item in items if item[0].get(field) is not None]
        missing = [item for item in items if item[0].get(field) is None]
        items = sorted(present, key=partial(_place, field), reverse=direction == "desc") + missing
    return items


def cut(found: list[Resource], query: ListQuery, scope: str) -> tuple[list[Resource], str | None]:
    """Return one page and the cursor of the next; `scope` says what is listed, so that no other cursor fits."""
    position = unseal(query, scope)
    start = int(position["offset"]) if position else query.offset
    end = start + query.limit
    return found[start:end], seal(query, scope, {"offset": end}) if end < len(found) else None


def _place(field: str, item: Shown) -> tuple[int, Any]:
    value = item[0][field]
    return (0, value) if isinstance(value, int | float) else (1, str(value))
