"""Everything the HTTP front door calls, put together by `main` and by tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry

from mixpeek_operator.access.keys import Keys
from mixpeek_operator.access.organizations import Organizations
from mixpeek_operator.access.secrets import StoredSecrets
from mixpeek_operator.access.users import Users
from mixpeek_operator.core.catalog import Catalog
from mixpeek_operator.core.directory import Directory
from mixpeek_operator.core.settings import Settings

HealthCheck = Callable[[], Awaitable[None]]
"""Returns when the part works, raises otherwise."""


@dataclass(slots=True)
class Services:
    """The parts behind the routes. A route of a part that is None answers 503."""

    settings: Settings
    organizations: Organizations
    users: Users
    keys: Keys
    secrets: StoredSecrets
    directory: Directory
    catalog: Catalog
    kinds: Mapping[str, Any] = field(default_factory=dict)
    """Kind name → its KindSchema or plugin."""
    resources: Any = None
    manifest: Any = None
    objects: Any = None
    uploads: Any = None
    batches: Any = None
    tasks: Any = None
    documents: Any = None
    retrieval: Any = None
    blobs: Any = None
    health_checks: Mapping[str, HealthCheck] = field(default_factory=dict)
    """By name in `GET /v1/health`: cache, metadata, vector_store, object_storage, task_queue, inference."""
    metrics: CollectorRegistry = field(default_factory=CollectorRegistry)
