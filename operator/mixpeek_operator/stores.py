"""Opens the store behind each port: embedded by default, a server where a setting names one.

An adapter is imported only when it is chosen, so that the base install needs no server's client.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mixpeek_operator.core.clock import Clock
from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.core.index import ResourceIndex
from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.core.settings import Settings
from mixpeek_operator.extraction.embedders import TABLE as SIGNATURES
from mixpeek_operator.extraction.ray.endpoints import Endpoints, FindEndpoints
from mixpeek_operator.extraction.ray.environment import variables
from mixpeek_operator.kinds.namespace.compute import tier
from mixpeek_operator.kinds.namespace.placement import VectorPlacement
from mixpeek_operator.ports.blobs import BlobStore
from mixpeek_operator.ports.cache import Cache
from mixpeek_operator.ports.machines import Machines
from mixpeek_operator.ports.metadata import MetadataStore
from mixpeek_operator.ports.resources import ResourceStore
from mixpeek_operator.ports.secrets import Secrets
from mixpeek_operator.ports.vectors import VectorStore

if TYPE_CHECKING:
    from mixpeek_operator.adapters.kubernetes_api import KubernetesApi
    from mixpeek_operator.adapters.kubernetes_resources import KubernetesResources
    from mixpeek_operator.adapters.kubernetes_secrets import KubernetesSecrets
    from mixpeek_operator.adapters.local_blobs import LocalBlobs

_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_CACHE_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Stores:
    """One open store per port."""

    metadata: MetadataStore
    resources: ResourceStore
    vectors: VectorStore
    cache: Cache
    blobs: BlobStore
    local_blobs: LocalBlobs | None
    """`blobs`, when its signed links lead to our own server."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a Kubernetes API server keeps for us."""

    resources: KubernetesResources
    """Field manager of REST; follows the cluster into the index it was given."""
    declared: KubernetesResources
    """The same store, for what manifests declare."""
    secrets: KubernetesSecrets
    organization: str
    """Kubernetes namespace that is the first organization."""
    machines: Machines | None
    """None when the settings name no image for Ray clusters."""


def open_cluster(settings: Settings, schemas: Mapping[str, KindSchema], index: ResourceIndex) -> Cluster | None:
    """Connect to the cluster of the settings, None when resources are embedded; `resources` closes the connection.

    Raises SpecError when no cluster is configured.
    """
    if settings.resources == "embedded":
        return None
    with _extra("MIXPEEK_RESOURCES=kubernetes"):
        from mixpeek_operator.adapters.kubernetes_api import KubernetesApi
        from mixpeek_operator.adapters.kubernetes_config import connection
        from mixpeek_operator.adapters.kubernetes_resources import MANIFEST_MANAGER, KubernetesResources
        from mixpeek_operator.adapters.kubernetes_secrets import KubernetesSecrets
    api = KubernetesApi(connection(settings.kubeconfig, settings.kube_context), user_agent="mixpeek-api")
    store = KubernetesResources(api, schemas, index, namespaces=settings.namespaces)
    first = settings.namespaces[0] if settings.namespaces else api.connection.namespace
    return Cluster(
        store, store.managed_by(MANIFEST_MANAGER), KubernetesSecrets(api), first, ray_machines(settings, api)
    )


def ray_machines(settings: Settings, api: KubernetesApi) -> Machines | None:
    """Return what makes Ray clusters for namespaces, None when the settings name no image for them."""
    if settings.engine_image is None:
        return None
    from mixpeek_operator.adapters.kuberay import KubeRayMachines, Pods

    pods = Pods(
        image=settings.engine_image,
        pull_policy=settings.engine_image_pull_policy,
        pull_secrets=tuple(filter(None, (name.strip() for name in settings.engine_image_pull_secrets.split(",")))),
        service_account=settings.ray_pod_service_account,
        secret=settings.ray_pod_secret,
        secret_keys=_pairs(settings.ray_pod_secret_keys),
        environment=variables(settings) | {name: os.environ[name] for name in _REGIONS if name in os.environ},
        gpu_label=settings.gpu_label,
        head_cpus=settings.ray_head_cpus,
        head_memory=settings.ray_head_memory,
        worker_cpus=settings.ray_pod_cpus,
        worker_memory=settings.ray_pod_memory,
    )
    return KubeRayMachines(api, pods)


def _pairs(text: str) -> dict[str, str]:
    """Return `A=x,B=y` as a mapping. Raises SpecError for what is no pair."""
    pairs = [part.strip() for part in text.split(",") if part.strip()]
    if wrong := [pair for pair in pairs if not all(pair.partition("="))]:
        raise SpecError(f"MIXPEEK_RAY_POD_SECRET_KEYS: {wrong[0]!r} is not VARIABLE=key")
    return {name: key for name, _, key in (pair.partition("=") for pair in pairs)}


def own_clusters(settings: Settings, index: ResourceIndex) -> FindEndpoints | None:
    """Return what knows the Ray clusters of namespaces by their declarations, None where there are none."""
    if settings.resources == "embedded" or settings.engine_image is None:
        return None
    from mixpeek_operator.adapters.kuberay import dashboard_url, serve_url

    def find(namespace_id: str) -> Endpoints | None:
        namespace = index.by_id(namespace_id)
        if namespace is None or tier(namespace) == "shared":
            return None
        organization = namespace.metadata.organization
        return Endpoints(dashboard_url(organization, namespace_id), serve_url(organization, namespace_id))

    return find


@contextlib.asynccontextmanager
async def open_stores(
    settings: Settings, clock: Clock, resources: ResourceStore | None = None
) -> AsyncIterator[Stores]:
    """Open every store until the block ends; `resources` is one to use instead of the settings', and closed as well.

    Raises ConflictError when another process has the data directory, SpecError for settings that do not fit together.
    """
    with lock(settings):
        async with contextlib.AsyncExitStack() as stack:
            resources = resources or _resources(settings, clock)
            stack.push_async_callback(resources.close)
            metadata = await _metadata(settings)
            stack.push_async_callback(metadata.close)
            vectors = _vectors(settings)
            stack.push_async_callback(vectors.close)
            local = None if settings.blobs_url else _local_blobs(settings, clock)
            blobs = local or object_blobs(settings)
            stack.push_async_callback(blobs.close)
            cache = _cache(settings, clock)
            stack.push_async_callback(cache.close)
            yield Stores(metadata, resources, vectors, cache, blobs, local)


def follow_namespaces(stores: Stores, index: ResourceIndex, secrets: Secrets) -> None:
    """Send the vectors of a namespace with a vector server of its own there, from now on."""
    from mixpeek_operator.adapters.routed_vectors import RoutedVectors

    if isinstance(stores.vectors, RoutedVectors):
        stores.vectors.follow(VectorPlacement(index, secrets))


def lock(settings: Settings) -> contextlib.AbstractContextManager[object]:
    """Return what holds the data directory while entered; nothing to hold when no store is embedded."""
    if all((settings.mongo_uri, settings.qdrant_url, settings.blobs_url, settings.resources == "kubernetes")):
        return contextlib.nullcontext()
    from mixpeek_operator.adapters.data_lock import DataLock

    return DataLock(settings.data)


def base_url(settings: Settings, port: int) -> str:
    """Return where clients reach the server: the public URL, or the address it listens on."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 - compared, not bound
    return settings.public_url or f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def _metadata(settings: Settings) -> MetadataStore:
    if settings.mongo_uri is None:
        from mixpeek_operator.adapters.sqlite_metadata import SqliteMetadata

        # Every query asks for the signatures of its collections.
        store = SqliteMetadata(settings.data / "metadata.db", remembered=(SIGNATURES,))
        # We hold the data directory, so whoever held a lease is gone: its work can be taken up at once.
        await store.expire_leases()
        return store
    with _extra("MIXPEEK_MONGO_URI"):
        from mixpeek_operator.adapters.mongo_metadata import MongoMetadata
    return MongoMetadata(settings.mongo_uri.get_secret_value())


def _resources(settings: Settings, clock: Clock) -> ResourceStore:
    if settings.resources == "embedded":
        from mixpeek_operator.adapters.sqlite_resources import SqliteResources

        return SqliteResources(settings.data / "resources.db", clock)
    raise SpecError("custom resources are followed into an index: give open_stores the store of `open_cluster`")


def _vectors(settings: Settings) -> VectorStore:
    if settings.qdrant_url is None:
        from mixpeek_operator.adapters.qdrant_edge import QdrantEdgeVectors

        return QdrantEdgeVectors(settings.data / "vectors")
    with _extra("MIXPEEK_QDRANT_URL"):
        from mixpeek_operator.adapters.qdrant_server import QdrantServerVectors
    from mixpeek_operator.adapters.routed_vectors import RoutedVectors

    def connect(url: str, key: str | None) -> VectorStore:
        return QdrantServerVectors.connect(url, key, prefer_grpc=settings.qdrant_prefer_grpc)

    key = settings.qdrant_api_key.get_secret_value() if settings.qdrant_api_key else None
    return RoutedVectors(connect(settings.qdrant_url, key), connect)


def _cache(settings: Settings, clock: Clock) -> Cache:
    if settings.redis_url is None:
        from mixpeek_operator.adapters.memory_cache import MemoryCache

        return MemoryCache(_CACHE_BYTES, clock)
    with _extra("MIXPEEK_REDIS_URL"):
        from mixpeek_operator.adapters.redis_cache import RedisCache
    return RedisCache(settings.redis_url.get_secret_value())


def _local_blobs(settings: Settings, clock: Clock) -> LocalBlobs:
    from mixpeek_operator.adapters.local_blobs import LocalBlobs

    return LocalBlobs(settings.data / "blobs", _signing_key(settings.data), base_url(settings, settings.port), clock)


def object_blobs(settings: Settings) -> BlobStore:
    """Open the object storage of `blobs_url`."""
    from mixpeek_operator.adapters.object_blobs import ObjectBlobs

    return ObjectBlobs(settings.blobs_url or "", endpoint_url=settings.blobs_endpoint_url)


@contextlib.contextmanager
def _extra(setting: str) -> Iterator[None]:
    """Say what to install where a setting chooses an adapter whose client is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise SpecError(
            f"{setting} is set and {error.name} is missing: pip install 'mixpeek-operator[cluster]'"
        ) from error


def _signing_key(data: Path) -> bytes:
    """Return the key of signed links, made at the first start and readable by the owner alone."""
    file = data / "signing.key"
    if not file.exists():
        fresh = data / "signing.key.new"
        fresh.touch(mode=0o600)
        fresh.write_bytes(secrets.token_bytes(32))
        fresh.replace(file)
    return file.read_bytes()
