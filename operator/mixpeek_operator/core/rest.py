"""How a kind looks in the REST API: names of its paths and fields, and the answer made from a resource."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mixpeek_operator.core.catalog import Catalog, VectorIndex
from mixpeek_operator.core.directory import CollectionInfo
from mixpeek_operator.core.resource import UPDATED_ANNOTATION, Resource


@dataclass(frozen=True, slots=True)
class Facts:
    """What an answer needs beyond the declaration; gathered by the front door."""

    spec: Mapping[str, Any]
    """The spec with ids in place of names."""
    namespace_id: str | None
    catalog: Catalog
    counts: Mapping[str, int] = field(default_factory=dict)
    """`document_count`, `object_count`, `total_size_bytes`, `bucket_count`, `collection_count`."""
    collection: CollectionInfo | None = None
    source_properties: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Schema of what feeds a collection: field → `{type, …}`."""


@dataclass(frozen=True, slots=True)
class RestView:
    """One kind in the REST API. Lives as `REST` in `kinds/<kind>/rest.py`; pure."""

    path: str
    """`/v1/buckets`."""
    parameter: str
    """Name of the path parameter, `bucket_identifier`."""
    tag: str
    render: Callable[[Resource, Facts], dict[str, Any]]
    ignored: frozenset[str] = frozenset()
    """Keys of a create or update body that the wire has and a declaration has not."""
    counted: tuple[str, ...] = ()
    """Names of the counts that `render` uses."""
    cloned: bool = False
    """Whether `POST …/clone` makes a copy under another name."""


def times(resource: Resource) -> dict[str, Any]:
    """Return `created_at` and `updated_at` as the API shows them."""
    created = resource.metadata.creation_timestamp
    stamp = None if created is None else created.isoformat().replace("+00:00", "Z")
    changed = resource.metadata.annotations.get(UPDATED_ANNOTATION)
    return {"created_at": stamp, "updated_at": changed or stamp}


def extractor_id(name: str, version: str) -> str:
    """Return `text_extractor_v1` for an extractor in use."""
    return f"{name}_{version.replace('.', '_')}"


def vector_index(index: VectorIndex) -> dict[str, Any]:
    """Return a vector index as lists of extractors and collections show it."""
    return {
        "name": index.name,
        "description": index.description,
        "dimensions": index.dimensions,
        "type": index.type,
        "distance": index.distance,
        "datatype": index.datatype,
        "on_disk": None,
        "supported_inputs": ["text", "string"],
        "inference_service_id": index.inference_model or None,
    }
