"""Everything the HTTP front door calls, put together by `main` and by tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from prometheus_client import CollectorRegistry

from mixpeek_operator.core.errors import UnavailableError
from mixpeek_operator.core.settings import Settings
from mixpeek_operator.ports.blobs import BlobStore

if TYPE_CHECKING:
    from mixpeek_operator.access.connections import Connections
    from mixpeek_operator.access.keys import Keys
    from mixpeek_operator.access.organizations import Organizations
    from mixpeek_operator.access.users import Users
    from mixpeek_operator.core.catalog import Catalog
    from mixpeek_operator.core.directory import Directory
    from mixpeek_operator.core.lifecycle import Kind
    from mixpeek_operator.core.resources import Resources
    from mixpeek_operator.ingestion.batches import Batches
    from mixpeek_operator.ingestion.derived import DerivedDocuments
    from mixpeek_operator.ingestion.documents import Documents
    from mixpeek_operator.ingestion.objects import Objects
    from mixpeek_operator.ingestion.tasks import Tasks
    from mixpeek_operator.ingestion.uploads import Uploads
    from mixpeek_operator.manifest.service import ManifestService
    from mixpeek_operator.ports.metadata import MetadataStore
    from mixpeek_operator.ports.secrets import SecretStore
    from mixpeek_operator.ports.vectors import VectorStore
    from mixpeek_operator.relevance.benchmarks import Benchmarks
    from mixpeek_operator.relevance.datasets import Datasets
    from mixpeek_operator.relevance.evaluations import Evaluations
    from mixpeek_operator.relevance.interactions import InteractionLog
    from mixpeek_operator.relevance.performance import Performance
    from mixpeek_operator.relevance.tuning import Tuning

HealthCheck = Callable[[], Awaitable[None]]
"""Returns when the part works, raises otherwise."""


class Grant(Protocol):
    """What a signed link allows."""

    @property
    def key(self) -> str: ...
    @property
    def content_type(self) -> str | None: ...


class SignedBlobs(BlobStore, Protocol):
    """A blob store whose signed links lead to our own `/v1/blobs`."""

    def verify(self, token: str, method: str) -> Grant:
        """Return what a token allows. UnauthorizedError when it is forged, expired or for another method."""
        ...


class _Absent:
    """In the place of a part that this server runs without: every use of it answers 503."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise UnavailableError(
            "this server runs without the part that answers this", code="part_absent", details={"retryable": False}
        )


_ABSENT: Any = _Absent()


@dataclass(slots=True)
class Services:
    """The parts behind the routes. The first seven are always there; others may be left out."""

    settings: Settings
    organizations: Organizations
    users: Users
    keys: Keys
    secrets: SecretStore
    directory: Directory
    catalog: Catalog
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    """By name: `Bucket`."""
    connections: Connections = _ABSENT
    resources: Resources = _ABSENT
    manifest: ManifestService = _ABSENT
    objects: Objects = _ABSENT
    uploads: Uploads = _ABSENT
    batches: Batches = _ABSENT
    tasks: Tasks = _ABSENT
    documents: Documents = _ABSENT
    derived: DerivedDocuments = _ABSENT
    retrieval: Any = _ABSENT
    interactions: InteractionLog = _ABSENT
    datasets: Datasets = _ABSENT
    evaluations: Evaluations = _ABSENT
    benchmarks: Benchmarks = _ABSENT
    tuning: Tuning = _ABSENT
    performance: Performance = _ABSENT
    blobs: SignedBlobs = _ABSENT
    metadata: MetadataStore = _ABSENT
    vectors: VectorStore = _ABSENT
    health_checks: Mapping[str, HealthCheck] = field(default_factory=dict)
    """By name in `GET /v1/health`: cache, metadata, vector_store, object_storage, task_queue, inference."""
    metrics: CollectorRegistry = field(default_factory=CollectorRegistry)
