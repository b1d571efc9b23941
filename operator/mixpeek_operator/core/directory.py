"""What the data plane knows of declared resources: small facts by id, never the declarations themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mixpeek_operator.core.catalog import VectorIndex


@dataclass(frozen=True, slots=True)
class NamespaceInfo:
    """A Mixpeek namespace and the vector collection that holds its documents."""

    id: str
    name: str
    organization: str
    vector_collection: str
    """`ns_<id>`."""


@dataclass(frozen=True, slots=True)
class BucketInfo:
    """A bucket: where objects of one schema live."""

    id: str
    name: str
    namespace_id: str
    properties: Mapping[str, Mapping[str, Any]]
    """`bucket_schema.properties`; {} accepts anything."""
    unique_key: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature a collection writes: a URI and the vector that answers it."""

    uri: str
    """`mixpeek://text_extractor@v1/text_embedding`."""
    extractor: str
    version: str
    index: VectorIndex


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A collection: what feeds it and how it makes documents."""

    id: str
    name: str
    namespace_id: str
    vector_collection: str
    source_type: str
    """`bucket` or `collection`."""
    source_ids: tuple[str, ...]
    """Ids of the buckets or collections that feed it."""
    extractor: str
    version: str
    parameters: Mapping[str, Any]
    input_mappings: Mapping[str, str]
    """Extractor input → path in the source."""
    field_passthrough: tuple[tuple[str, str], ...]
    """(source path, target path)."""
    include_all_source_fields: bool
    enabled: bool
    tier: int
    """0 when fed by buckets, else one more than its highest source."""
    features: tuple[Feature, ...]
    config_signature: str
    """Hash of everything above that changes what documents look like."""
    incarnation: str = ""
    """Differs when a collection is deleted and made again under the same id."""


@dataclass(frozen=True, slots=True)
class RetrieverInfo:
    """A retriever's declaration, ids resolved."""

    id: str
    name: str
    namespace_id: str
    description: str | None
    collection_ids: tuple[str, ...]
    stages: tuple[Mapping[str, Any], ...]
    input_schema: Mapping[str, Any]
    cache_config: Mapping[str, Any]
    budget_limits: Mapping[str, Any]
    version: str
    """Changes with every declaration, also when one is deleted and made again under the same id."""


@dataclass(frozen=True, slots=True)
class TaxonomyLevel:
    """A collection of labels, and how the labels of a document are found in it."""

    collection_id: str
    name: str
    parent_id: str | None
    """Collection of the level above; None for a root."""
    retriever_id: str | None
    inputs: tuple[Mapping[str, Any], ...]
    """`input_mappings`: {input_key, source_type, path, override}."""
    fields: tuple[Mapping[str, Any], ...] | None
    """`enrichment_fields`: {field_path, target_field, merge_mode}; None means all of them."""


@dataclass(frozen=True, slots=True)
class TaxonomyInfo:
    """A taxonomy's declaration, ids resolved."""

    id: str
    name: str
    hierarchical: bool
    levels: tuple[TaxonomyLevel, ...]
    path_field: str | None
    """Field of a document that already holds its path."""
    path_separator: str


class Directory(Protocol):
    """Reads of declared resources. `identifier` is an id or a name; NotFoundError outside the namespace."""

    async def namespace(self, organization: str, identifier: str) -> NamespaceInfo: ...
    async def namespaces(self, organization: str) -> list[NamespaceInfo]: ...
    async def bucket(self, namespace_id: str, identifier: str) -> BucketInfo: ...
    async def collection(self, namespace_id: str, identifier: str) -> CollectionInfo: ...
    async def collections(self, namespace_id: str) -> list[CollectionInfo]: ...
    async def retriever(self, namespace_id: str, identifier: str) -> RetrieverInfo: ...
    async def taxonomy(self, namespace_id: str, identifier: str) -> TaxonomyInfo: ...
