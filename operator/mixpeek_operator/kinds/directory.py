"""What the data plane asks about declared resources, answered from memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from mixpeek_operator.core.catalog import Catalog
from mixpeek_operator.core.directory import (
    BucketInfo,
    CollectionInfo,
    NamespaceInfo,
    RetrieverInfo,
    TaxonomyInfo,
    TaxonomyLevel,
)
from mixpeek_operator.core.errors import NotFoundError
from mixpeek_operator.core.index import ResourceIndex
from mixpeek_operator.core.resource import Resource, ResourceKey
from mixpeek_operator.extraction.features import features_of
from mixpeek_operator.ports.resources import Change, ResourceStore

T = TypeVar("T")

PASSTHROUGH = ("passthrough_extractor", "v1")
"""Extractor of a collection that names none: its documents are its source's fields."""


class StoreDirectory:
    """The data plane's `Directory` over the resource index; a lookup costs microseconds.

    What is being deleted is not found any more, so that nothing new is written into it.
    """

    def __init__(self, *, store: ResourceStore, index: ResourceIndex, catalog: Catalog) -> None:
        self._store = store
        self._index = index
        self._catalog = catalog
        self._revision = -1
        self._known: dict[tuple[type, ResourceKey], Any] = {}
        self._answers: dict[tuple[str, str, str], Any] = {}

    async def namespace(self, organization: str, identifier: str) -> NamespaceInfo:
        """Return a namespace of the organization by name or id."""
        found = self._index.named(organization, "Namespace", None, identifier)
        if found is None:
            stored = await self._store.by_id(organization, identifier)
            if stored is None:
                everything = await self._store.find(organization, "Namespace")
                stored = next((item for item in everything if item.name == identifier), None)
            if stored is not None and stored.kind == "Namespace":
                self._index.apply(Change("ADDED", stored))
                found = self._index.named(organization, "Namespace", None, identifier)
        if found is None or found.deleting:
            raise NotFoundError(f"Namespace {identifier!r} does not exist")
        return _namespace(found)

    async def namespaces(self, organization: str) -> list[NamespaceInfo]:
        """Return every namespace of the organization in name order."""
        return [_namespace(item) for item in self._index.of(organization, "Namespace") if not item.deleting]

    def namespace_ids(self) -> list[str]:
        """Return the ids of the namespaces of every organization, for what the server does of itself."""
        found = (self._index.get(key) for key in self._index.everything() if key.kind == "Namespace")
        return [item.id for item in found if item is not None]

    async def bucket(self, namespace_id: str, identifier: str) -> BucketInfo:
        """Return a bucket of the namespace by name or id."""
        return self._answer(BucketInfo, namespace_id, "Bucket", identifier)

    async def collection(self, namespace_id: str, identifier: str) -> CollectionInfo:
        """Return a collection of the namespace by name or id."""
        return self._answer(CollectionInfo, namespace_id, "Collection", identifier)

    async def collections(self, namespace_id: str) -> list[CollectionInfo]:
        """Return every collection of the namespace in name order."""
        self._refresh()
        owner = self._owner(namespace_id)
        found = self._index.of(owner.metadata.organization, "Collection", owner.name)
        return [self._info(CollectionInfo, item, owner) for item in found if not item.deleting]

    async def retriever(self, namespace_id: str, identifier: str) -> RetrieverInfo:
        """Return a retriever of the namespace by name or id."""
        return self._answer(RetrieverInfo, namespace_id, "Retriever", identifier)

    async def taxonomy(self, namespace_id: str, identifier: str) -> TaxonomyInfo:
        """Return a taxonomy of the namespace by name or id."""
        return self._answer(TaxonomyInfo, namespace_id, "Taxonomy", identifier)

    def _answer(self, wanted: type[T], namespace_id: str, kind: str, identifier: str) -> T:
        self._refresh()
        question = (namespace_id, kind, identifier)
        known = self._answers.get(question)
        if known is None:
            owner = self._owner(namespace_id)
            found = self._index.named(owner.metadata.organization, kind, owner.name, identifier)
            if found is None or found.deleting:
                raise NotFoundError(f"{kind} {identifier!r} does not exist in namespace {owner.name!r}")
            known = self._answers[question] = self._info(wanted, found, owner)
        answer: T = known
        return answer

    def _refresh(self) -> None:
        if self._revision != self._index.revision:
            self._known.clear()
            self._answers.clear()
            self._revision = self._index.revision

    def _owner(self, namespace_id: str) -> Resource:
        found = self._index.by_id(namespace_id)
        if found is None or found.kind != "Namespace" or found.deleting:
            raise NotFoundError(f"Namespace {namespace_id!r} does not exist")
        return found

    def _info(self, wanted: type[T], resource: Resource, owner: Resource) -> T:
        key = (wanted, resource.key)
        if key not in self._known:
            make = {
                BucketInfo: self._bucket,
                CollectionInfo: self._collection,
                RetrieverInfo: self._retriever,
                TaxonomyInfo: self._taxonomy,
            }
            self._known[key] = make[wanted](resource, owner)
        info: T = self._known[key]
        return info

    def _bucket(self, resource: Resource, owner: Resource) -> BucketInfo:
        spec = resource.spec
        return BucketInfo(
            id=resource.id,
            name=resource.name,
            namespace_id=owner.id,
            properties=(spec.get("bucket_schema") or {}).get("properties") or {},
            unique_key=spec.get("unique_key"),
        )

    def _collection(self, resource: Resource, owner: Resource) -> CollectionInfo:
        spec = resource.spec
        source = spec.get("source") or {}
        use = spec.get("feature_extractor") or {}
        extractor = str(use.get("feature_extractor_name") or PASSTHROUGH[0])
        version = str(use.get("version") or PASSTHROUGH[1])
        parameters = dict(use.get("parameters") or {})
        kind = "Collection" if source.get("type") == "collection" else "Bucket"
        sources = self._ids(owner, kind, source.get("bucket_ids") or source.get("collection_ids") or ())
        passthrough = tuple(
            (str(item["source_path"]), str(item.get("target_path") or str(item["source_path"]).rsplit(".", 1)[-1]))
            for item in use.get("field_passthrough") or ()
        )
        indexes = self._catalog.vector_indexes(extractor, version, parameters)
        mappings = dict(use.get("input_mappings") or {})
        # A collection without extractor hands on what it gets.
        everything = bool(use.get("include_all_source_fields", not use))
        shape = (
            extractor,
            version,
            parameters,
            mappings,
            passthrough,
            everything,
            source.get("type"),
            sources,
            source.get("source_filters"),
        )
        return CollectionInfo(
            id=resource.id,
            name=resource.name,
            namespace_id=owner.id,
            vector_collection=owner.id,
            source_type=str(source.get("type") or "bucket"),
            source_ids=sources,
            extractor=extractor,
            version=version,
            parameters=parameters,
            input_mappings=mappings,
            field_passthrough=passthrough,
            include_all_source_fields=everything,
            enabled=bool(spec.get("enabled", True)),
            tier=self._tier(resource, owner, ()),
            features=features_of(extractor, version, indexes),
            config_signature=_signature(shape),
            incarnation=resource.metadata.uid,
        )

    def _retriever(self, resource: Resource, owner: Resource) -> RetrieverInfo:
        spec = resource.spec
        return RetrieverInfo(
            id=resource.id,
            name=resource.name,
            namespace_id=owner.id,
            description=spec.get("description"),
            collection_ids=self._ids(owner, "Collection", spec.get("collection_identifiers") or ()),
            stages=tuple(spec.get("stages") or ()),
            input_schema=spec.get("input_schema") or {},
            cache_config=spec.get("cache_config") or {},
            budget_limits=spec.get("budget_limits") or {},
            version=f"{resource.metadata.uid}/{resource.metadata.generation}",
        )

    def _taxonomy(self, resource: Resource, owner: Resource) -> TaxonomyInfo:
        config: Mapping[str, Any] = resource.spec.get("config") or {}
        flat = config.get("source_collection")
        nodes = [flat] if flat else config.get("hierarchical_nodes") or ()
        return TaxonomyInfo(
            id=resource.id,
            name=resource.name,
            hierarchical=config.get("taxonomy_type") == "hierarchical",
            levels=tuple(self._level(config, node, owner) for node in nodes),
            path_field=config.get("path_field"),
            path_separator=str(config.get("path_separator") or "/"),
        )

    def _level(self, config: Mapping[str, Any], node: Mapping[str, Any], owner: Resource) -> TaxonomyLevel:
        parent, retriever = node.get("parent_collection_id"), node.get("retriever_id") or config.get("retriever_id")
        fields = node.get("enrichment_fields")
        return TaxonomyLevel(
            collection_id=self._ids(owner, "Collection", [node["collection_id"]])[0],
            name=str(node.get("label") or node["collection_id"]),
            parent_id=self._ids(owner, "Collection", [parent])[0] if parent else None,
            retriever_id=self._ids(owner, "Retriever", [retriever])[0] if retriever else None,
            inputs=tuple(node.get("input_mappings") or config.get("input_mappings") or ()),
            fields=None if fields is None else tuple(fields),
        )

    def _ids(self, owner: Resource, kind: str, names: Any) -> tuple[str, ...]:
        """Return the ids behind names; a name that nobody has yet stays, and finds nothing."""
        found = (self._index.named(owner.metadata.organization, kind, owner.name, str(name)) for name in names)
        return tuple(str(name) if item is None else item.id for name, item in zip(names, found, strict=True))

    def _tier(self, resource: Resource, owner: Resource, path: tuple[ResourceKey, ...]) -> int:
        source: Mapping[str, Any] = resource.spec.get("source") or {}
        tiers = [0]
        for name in source.get("collection_ids") or ():
            above = self._index.named(owner.metadata.organization, "Collection", owner.name, str(name))
            # A circle is refused when it is declared; one in custom resources must not hang us.
            if above is not None and above.key not in path:
                tiers.append(1 + self._tier(above, owner, (*path, resource.key)))
        return max(tiers)


def _namespace(resource: Resource) -> NamespaceInfo:
    return NamespaceInfo(resource.id, resource.name, resource.metadata.organization, resource.id)


def _signature(shape: Any) -> str:
    return hashlib.sha256(json.dumps(shape, sort_keys=True, default=str).encode()).hexdigest()[:16]
