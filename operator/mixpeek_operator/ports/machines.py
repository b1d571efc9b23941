"""Port: machines of a namespace's own, as a Ray cluster and what it serves. KubeRay on Kubernetes, else none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

RUNNING = "RUNNING"
FAILED = ("DEPLOY_FAILED", "UNHEALTHY")
"""Ray Serve's states of an application that will not change by waiting alone."""


@dataclass(frozen=True, slots=True)
class Application:
    """One Ray Serve application: an extractor at one version, below a route of its own."""

    name: str
    route: str
    extractor: str
    version: str
    min_replicas: int = 1
    max_replicas: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    memory_gb: float | None = None
    gpu_type: str | None = None
    image: str | None = None
    """None: the engine's image."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Values, or placeholders of the organization's secrets."""


@dataclass(frozen=True, slots=True)
class Workers:
    """The machines that do the work, alike."""

    minimum: int
    maximum: int
    autoscaling: bool = True
    gpus: int = 0
    gpu_type: str | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()

    @property
    def grows(self) -> bool:
        """Whether there is anything between its bounds."""
        return self.autoscaling and self.minimum < self.maximum


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray cluster as it is wanted. Its name derives from the namespace's id."""

    namespace_id: str
    organization: str
    owner: str
    """Name of the resource that it belongs to, and goes with."""
    owner_uid: str
    workers: Workers
    applications: tuple[Application, ...]


@dataclass(frozen=True, slots=True)
class ApplicationState:
    """What Ray Serve says of an application."""

    status: str
    message: str = ""

    @property
    def last_line(self) -> str:
        """The last line of its message: of a traceback, the one that says what is wrong."""
        lines = [line.strip() for line in self.message.splitlines() if line.strip()]
        return lines[-1][:500] if lines else ""


@dataclass(frozen=True, slots=True)
class ClusterState:
    """A Ray cluster as it is."""

    name: str
    owner_uid: str
    differs: tuple[str, ...] = ()
    """Paths at which it is not as wanted; () when it is, or when nothing was compared."""
    serving: bool = False
    """Whether requests are answered. True also while an application has failed: look at `applications`."""
    updating: bool = False
    """Whether a second cluster is being made that will take over."""
    applications: Mapping[str, ApplicationState] = field(default_factory=dict)
    workers_ready: int = 0
    workers_wanted: int = 0
    problem: str = ""
    """Why pods cannot be made, in the cluster's own words; "" when nothing is known to be wrong."""
    dashboard_url: str = ""
    serve_url: str = ""


class Machines(Protocol):
    """Raises UnavailableError while there is nothing that makes Ray clusters."""

    async def observe(self, organization: str, namespace_id: str, wanted: Cluster | None = None) -> ClusterState | None:
        """The namespace's cluster, compared with `wanted` when given; None when there is none, or it is going."""
        ...

    async def apply(self, wanted: Cluster) -> None:
        """Make or change the cluster. Raises ConflictError when there is one of another owner."""
        ...

    async def delete(self, organization: str, namespace_id: str) -> None:
        """Remove the cluster and all that belongs to it; nothing when there is none."""
        ...
