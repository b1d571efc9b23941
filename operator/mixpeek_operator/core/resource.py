"""The Kubernetes envelope, as plain values: the same for a custom resource and for the embedded store."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

API_GROUP = "mixpeek.com"
API_VERSION = f"{API_GROUP}/v1alpha1"
ID_ANNOTATION = f"{API_GROUP}/id"
UPDATED_ANNOTATION = f"{API_GROUP}/updated-at"
"""When the declaration was last changed through the API or a manifest."""
FINALIZER = f"{API_GROUP}/finalizer"


@dataclass(frozen=True, slots=True, order=True)
class ResourceKey:
    """Identity of a resource: the organization is the Kubernetes namespace."""

    kind: str
    organization: str
    name: str
    """`metadata.name`: `<namespace>.<name>` with `_` turned to `-`, or the name alone for a Namespace."""

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(slots=True)
class Metadata:
    """`metadata` of a resource; `generation` moves with the spec, `resource_version` with every write."""

    name: str
    organization: str
    uid: str = ""
    generation: int = 1
    resource_version: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    finalizers: list[str] = field(default_factory=list)
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


@dataclass(slots=True)
class Resource:
    """One declared resource. `spec` is snake_case, references by name; `status` is written by the engine only."""

    kind: str
    metadata: Metadata
    spec: dict[str, Any]
    status: dict[str, Any] = field(default_factory=dict)
    api_version: str = API_VERSION

    @property
    def key(self) -> ResourceKey:
        return ResourceKey(self.kind, self.metadata.organization, self.metadata.name)

    @property
    def id(self) -> str:
        """The minted id (`bkt_…`), or "" before the first write."""
        return self.metadata.annotations.get(ID_ANNOTATION, "")

    @property
    def name(self) -> str:
        """The name as the user wrote it."""
        return str(self.spec.get("name") or self.metadata.name)

    @property
    def namespace(self) -> str | None:
        """Name of the Mixpeek Namespace this belongs to; None for a Namespace itself."""
        value = self.spec.get("namespace")
        return None if value is None else str(value)

    @property
    def deleting(self) -> bool:
        return self.metadata.deletion_timestamp is not None

    def with_spec(self, spec: dict[str, Any]) -> Resource:
        """Return a copy with another spec (metadata is shared by value)."""
        return replace(self, spec=spec, metadata=replace(self.metadata))


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition as in `metav1.Condition`; `message` is deterministic and holds no time."""

    type: str
    status: str
    reason: str
    message: str = ""
    observed_generation: int = 0
    last_transition_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a resource, in the past tense."""

    key: ResourceKey
    type: str
    reason: str
    message: str
    at: datetime
    uid: str = ""
    """Of the resource it happened to; "" when that was read from a store, which need not keep it."""


def metadata_name(namespace: str | None, name: str) -> str:
    """Return the Kubernetes name of `name` in a Mixpeek namespace (design: `<namespace>.<name>`, `_` → `-`)."""
    joined = name if namespace is None else f"{namespace}.{name}"
    return joined.replace("_", "-").replace(" ", "-").lower()
