"""Puts the operator on Kubernetes together: no HTTP API, no models, nothing heavy.

Every replica follows the custom resources; the one that holds the Lease reconciles them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import kopf
import structlog

from mixpeek_operator.access.connections import ConnectionNames
from mixpeek_operator.adapters import kubernetes_config
from mixpeek_operator.adapters.kuberay import NAMESPACE_LABEL
from mixpeek_operator.adapters.kuberay import SERVICES as RAY_SERVICES
from mixpeek_operator.adapters.kubernetes_api import SECRETS, KubernetesApi
from mixpeek_operator.adapters.kubernetes_leases import KubernetesLeases
from mixpeek_operator.adapters.kubernetes_objects import Objects
from mixpeek_operator.adapters.kubernetes_resources import KubernetesResources
from mixpeek_operator.adapters.kubernetes_secrets import SECRET, KubernetesSecrets
from mixpeek_operator.adapters.kubernetes_session import session
from mixpeek_operator.core.clock import SystemClock
from mixpeek_operator.core.engine import Engine
from mixpeek_operator.core.errors import MixpeekError, NotFoundError, UnavailableError
from mixpeek_operator.core.index import ResourceIndex
from mixpeek_operator.core.lifecycle import Backends, Facilities
from mixpeek_operator.core.queue import Queue
from mixpeek_operator.core.resource import API_GROUP, API_VERSION, Resource
from mixpeek_operator.core.settings import Settings
from mixpeek_operator.extraction.models.registry import ModelRegistry
from mixpeek_operator.extraction.registry import ExtractorRegistry
from mixpeek_operator.kinds import kinds as every_kind
from mixpeek_operator.kube.election import Election
from mixpeek_operator.kube.events import KopfEvents, Seen, Watched, quiet_kopf
from mixpeek_operator.kube.follow import Follower, Listing
from mixpeek_operator.kube.leading import LedClient, LedStore
from mixpeek_operator.kube.metrics import Measured, Metrics
from mixpeek_operator.kube.probes import probes
from mixpeek_operator.kube.recorder import EventRecorder
from mixpeek_operator.kube.secret_names import SecretNames
from mixpeek_operator.kube.watchdog import Watchdog
from mixpeek_operator.ports.machines import Machines
from mixpeek_operator.ports.names import Names
from mixpeek_operator.registries import Registries
from mixpeek_operator.retrieval.registry import StageRegistry
from mixpeek_operator.stores import Stores, follow_namespaces, open_stores, ray_machines

_log = structlog.get_logger(__name__)
_AGENT = "mixpeek-operator"
_RETRY_S = 1.0
_PATIENCE_S = 2.0
_FLUSH_S = 5.0
_QUIET_S = 0.1
"""Events wait for such a pause: a long apply has none, the visits of thousands at rest have."""


async def operate(settings: Settings, stop: asyncio.Event) -> None:
    """Run one replica until `stop` is set; reconciles under way then get `shutdown_grace_s` to end.

    Raises SpecError when no cluster is configured, UnavailableError when the probes' port is taken.
    """
    quiet_kopf()
    clock, connection = SystemClock(), kubernetes_config.connection(settings.kubeconfig, settings.kube_context)
    schemas = {name: kind.schema for name, kind in every_kind().items()}
    index = ResourceIndex(schemas)
    api = KubernetesApi(connection, user_agent=_AGENT)
    resources = KubernetesResources(api, schemas, index, follow=False, manager=_AGENT)
    async with contextlib.AsyncExitStack() as stack:
        stores = await stack.enter_async_context(open_stores(settings, clock, resources))
        secrets = KubernetesSecrets(api)
        follow_namespaces(stores, index, secrets)
        # Renewing the lease must not queue behind the work.
        own = await stack.enter_async_context(KubernetesApi(connection, user_agent=_AGENT))
        leases = KubernetesLeases(own, settings.lease_namespace or connection.namespace, settings.lease, clock)
        election = Election(
            leases, settings.lease_identity or identity(), clock=clock, duration_s=settings.lease_duration_s
        )
        operator = Operator(settings, stores, index, own, election, secrets, ray_machines(settings, api))
        port = await stack.enter_async_context(
            probes(
                settings.probe_host,
                settings.probe_port,
                live=lambda: "",
                ready=operator.unready,
                metrics=operator.metrics.registry,
            )
        )
        _log.info("starting", identity=election.me, probes=port, namespaces=list(settings.namespaces) or "every")
        await operator.run(stop)
        _log.info("stopped")


def identity() -> str:
    """Return a name for this process that no other one has."""
    return f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"


class Operator:
    """One replica, wired. Follows from the start, reconciles while it leads."""

    def __init__(
        self,
        settings: Settings,
        stores: Stores,
        index: ResourceIndex,
        api: KubernetesApi,
        election: Election,
        secrets: Names,
        machines: Machines | None = None,
    ) -> None:
        kinds = every_kind()
        clock = SystemClock()
        models = ModelRegistry(
            default=settings.embedding_model, model_path=settings.model_path, model_hub=settings.model_hub
        )
        self._settings = settings
        self._election = election
        self._machines = machines
        self._secret_names = SecretNames(secrets, clock, max_age_s=settings.drift_interval_s)
        objects = Objects({name: kind.schema for name, kind in kinds.items()})
        self._served = _Served(api, objects, settings.namespaces)
        self.index = index
        self.metrics = Metrics()
        self.follower = Follower(
            index=self.index,
            list_all=self._served.list_all,
            decode=objects.decode,
            events=self._events,
            resync_s=settings.drift_interval_s,
        )
        self.recorder = EventRecorder(
            write=stores.resources.record_event, idle=lambda: self.queue.idle(_QUIET_S), clock=clock
        )
        store = LedStore(stores.resources, self.index, election.holds, self.recorder.record)
        backends = Backends(
            vectors=stores.vectors,
            metadata=stores.metadata,
            cache=stores.cache,
            blobs=stores.blobs,
            machines=machines,
            secrets=self._secret_names,
            # In a store of our own there are none: the API writes them.
            connections=ConnectionNames(stores.metadata) if settings.mongo_uri is not None else None,
        )
        self._catalog = Registries(ExtractorRegistry(models), StageRegistry())
        engine = Engine(
            store=store,
            index=self.index,
            kinds=kinds,
            clients={name: LedClient(kind.client(backends), election.holds) for name, kind in kinds.items()},
            catalog=self._catalog,
            clock=clock,
            patience_s=_PATIENCE_S,
            facilities=Facilities(
                dedicated_compute=machines is not None,
                own_vector_server=settings.qdrant_url is not None,
                secret_object=SECRET,
            ),
        )
        self.queue = Queue(
            index=self.index,
            engine=Measured(engine, self.metrics),
            concurrency=settings.reconcile_concurrency,
            drift_interval_s=settings.drift_interval_s,
            gathers={name: kind.gathers for name, kind in kinds.items()},
        )
        self.watchdog = Watchdog(
            index=self.index, record=self.recorder.record, clock=clock, after_s=settings.deletion_stuck_s
        )
        self.metrics.watch(self.index, gauges=self._gauges)

    async def run(self, stop: asyncio.Event) -> None:
        """Follow, and lead whenever elected, until `stop` is set. What ends one of the parts ends all."""
        async with asyncio.TaskGroup() as tasks:
            beside = [
                tasks.create_task(self.follower.run(), name="follow"),
                tasks.create_task(self._election.run(), name="elect"),
                tasks.create_task(self.recorder.run(), name="record"),
            ]
            await self._until(stop, self.follower.complete.wait())
            while not stop.is_set():
                await self._until(stop, self._election.held())
                if not stop.is_set():
                    await self._lead(stop)
            await self.recorder.flush(_FLUSH_S)
            for task in beside:
                task.cancel()
        try:
            await self._election.release()
        except MixpeekError as error:
            _log.warning("the lease was not given back; it ends by itself", error=str(error))

    def unready(self) -> str:
        """What keeps this replica from leading, were it elected; "" when nothing does, as on one that stands by."""
        if not self.follower.complete.is_set():
            return self.follower.failure or "the resources were not listed yet"
        return self._election.unreachable() or self.follower.failure

    async def _lead(self, stop: asyncio.Event) -> None:
        try:
            await self.follower.sync()
        except MixpeekError as error:
            _log.warning("cannot lead yet", error=str(error))
            await asyncio.sleep(_RETRY_S)
            return
        await self.queue.start()
        dog = asyncio.create_task(self.watchdog.run(), name="watchdog")
        try:
            await self._until(stop, self._election.lost())
        finally:
            dog.cancel()
            await asyncio.gather(dog, return_exceptions=True)
            grace = self._settings.shutdown_grace_s if stop.is_set() else self._election.margin_s / 2
            _log.info("leading no more", stopping=stop.is_set(), grace_s=grace)
            await self.queue.stop(timeout_s=grace)

    @staticmethod
    async def _until(stop: asyncio.Event, other: Any) -> None:
        """Return when `stop` is set or `other` is done, whichever comes first."""
        waits = [asyncio.ensure_future(other), asyncio.ensure_future(stop.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def _events(self, deliver: Callable[[Seen], None]) -> KopfEvents:
        beside = {"Secret": self._secret_changed, RAY_SERVICES.kind: self._ray_service_changed}
        watched = [Watched("Secret", SECRETS.plural, SECRETS.group, SECRETS.version, SECRET)]
        if self._machines is not None:
            # Where KubeRay is not installed yet kopf says so and goes on without it; namespaces are then only polled.
            watched.append(Watched(RAY_SERVICES.kind, RAY_SERVICES.plural, RAY_SERVICES.group, RAY_SERVICES.version))
        return KopfEvents(
            watched=[*self._served.watched, *watched],
            login=self._login,
            deliver=lambda seen: beside.get(seen.kind, deliver)(seen),
            served=self._served.check,
            namespaces=self._settings.namespaces,
        )

    def _secret_changed(self, seen: Seen) -> None:
        organization = seen.object["metadata"]["namespace"]
        self._secret_names.changed(organization)
        for key in self.index.everything():
            resource = self.index.get(key) if key.organization == organization else None
            if resource is not None and self._uses_secrets(resource):
                self.queue.wake(key)

    def _uses_secrets(self, resource: Resource) -> bool:
        if uses_secrets(resource.spec):
            return True
        stages = resource.spec.get("stages") if resource.kind == "Retriever" else None
        return any(need.kind == "secret" for need in self._catalog.stage_needs(stages or []))

    def _ray_service_changed(self, seen: Seen) -> None:
        """Wake the namespace of a Ray cluster, and the extractors that it serves."""
        labels = seen.object["metadata"].get("labels") or {}
        namespace = self.index.by_id(labels.get(NAMESPACE_LABEL, ""))
        if namespace is None:
            return
        self.queue.wake(namespace.key)
        for extractor in self.index.of(namespace.metadata.organization, "Extractor", namespace.name):
            self.queue.wake(extractor.key)

    def _login(self) -> kopf.AiohttpSession:
        # kopf has an event loop of its own, so it needs credentials of its own.
        connection = kubernetes_config.connection(self._settings.kubeconfig, self._settings.kube_context)
        return kopf.AiohttpSession(server=connection.server, aiohttp_session=session(connection))

    def _gauges(self) -> Iterable[tuple[str, str, float]]:
        yield "mixpeek_leading", "Whether this replica reconciles.", float(self._election.holds())
        yield "mixpeek_queue_waiting", "Resources that wait for their turn.", float(self.queue.waiting)
        yield "mixpeek_queue_active", "Resources that are being reconciled.", float(self.queue.active)
        yield "mixpeek_deletions_stuck", "Deletions that do not end.", float(len(self.watchdog.stuck()))
        yield (
            "mixpeek_events_unwritten",
            "What happened and is not written as an Event yet.",
            float(self.recorder.waiting),
        )
        yield "mixpeek_events_taken", "Changes that were told of, since the start.", float(self.follower.taken)


def uses_secrets(value: Any) -> bool:
    """Whether a placeholder or a reference to a secret stands anywhere in a spec."""
    if isinstance(value, str):
        return "${{" in value
    if isinstance(value, Mapping):
        return "secret_ref" in value or any(uses_secrets(item) for item in value.values())
    return isinstance(value, list) and any(uses_secrets(item) for item in value)


class _Served:
    """The custom resources of every kind, as the API server serves them."""

    def __init__(self, api: KubernetesApi, objects: Objects, namespaces: Sequence[str]) -> None:
        self._api = api
        self._apis = list(objects.apis.values())
        self._namespaces: Sequence[str | None] = list(namespaces) or [None]
        self.watched = [Watched(item.kind, item.plural, item.group, item.version) for item in self._apis]

    async def check(self) -> None:
        """Raise UnavailableError naming the kinds that the API server does not know."""
        missing = {item.plural for item in self._apis}
        with contextlib.suppress(NotFoundError):
            found = await self._api.request("GET", f"/apis/{API_VERSION}")
            missing -= {item["name"] for item in found.get("resources") or ()}
        if missing:
            names = ", ".join(f"{plural}.{API_GROUP}" for plural in sorted(missing))
            raise UnavailableError(f"the API server does not serve {names}; install the CustomResourceDefinitions")

    async def list_all(self) -> Sequence[Listing]:
        """Every object of every kind."""
        await self.check()
        found = []
        for item in self._apis:
            for namespace in self._namespaces:
                page = await self._api.list(item, namespace)
                found.append(Listing(item.kind, page.items, int(page.resource_version), namespace))
        return found
