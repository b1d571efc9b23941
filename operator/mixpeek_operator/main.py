"""Puts the parts together. The only place that knows every part."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import FastAPI

from mixpeek_operator.access.connections import ConnectionNames, Connections
from mixpeek_operator.access.keys import Keys
from mixpeek_operator.access.organizations import Bootstrap, Organizations
from mixpeek_operator.access.secrets import StoredSecrets, encryption_key
from mixpeek_operator.access.users import Users
from mixpeek_operator.adapters.exa import ExaSearch
from mixpeek_operator.adapters.language_models import HttpLanguageModels
from mixpeek_operator.adapters.local_blobs import LocalBlobs
from mixpeek_operator.adapters.outbound import GuardedClient
from mixpeek_operator.adapters.process_sandbox import ProcessSandbox
from mixpeek_operator.adapters.sql import SqlDrivers
from mixpeek_operator.api.app import create_app
from mixpeek_operator.api.services import Services
from mixpeek_operator.core.clock import SystemClock
from mixpeek_operator.core.engine import Engine
from mixpeek_operator.core.errors import UnavailableError
from mixpeek_operator.core.index import ResourceIndex
from mixpeek_operator.core.lifecycle import Backends, Facilities
from mixpeek_operator.core.links import Links
from mixpeek_operator.core.queue import Queue
from mixpeek_operator.core.resources import Resources
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.core.settings import Settings
from mixpeek_operator.engines import open_engines
from mixpeek_operator.extraction.inference import LocalInference
from mixpeek_operator.extraction.language import CachedLanguageModels
from mixpeek_operator.extraction.ray.routed import RoutedInference
from mixpeek_operator.extraction.ray.serve import RayServeInference
from mixpeek_operator.ingestion.batches import Batches
from mixpeek_operator.ingestion.blobs import BlobIntake
from mixpeek_operator.ingestion.derived import DerivedDocuments
from mixpeek_operator.ingestion.documents import Documents
from mixpeek_operator.ingestion.fetch import GuardedFetch
from mixpeek_operator.ingestion.objects import Objects
from mixpeek_operator.ingestion.signatures import Signatures
from mixpeek_operator.ingestion.tasks import Tasks
from mixpeek_operator.ingestion.uploads import Uploads
from mixpeek_operator.ingestion.worker import Worker
from mixpeek_operator.kinds import kinds as every_kind
from mixpeek_operator.kinds.directory import StoreDirectory
from mixpeek_operator.manifest.acceptance import Acceptance
from mixpeek_operator.manifest.apply import Applier
from mixpeek_operator.manifest.generate import Generator
from mixpeek_operator.manifest.journal import Journal
from mixpeek_operator.manifest.progress import ApplyTasks
from mixpeek_operator.manifest.seed import Seeds
from mixpeek_operator.manifest.service import ManifestService
from mixpeek_operator.ports.secrets import SecretStore
from mixpeek_operator.registries import Registries
from mixpeek_operator.relevance.benchmarks import Benchmarks
from mixpeek_operator.relevance.datasets import Datasets
from mixpeek_operator.relevance.evaluations import Evaluations
from mixpeek_operator.relevance.interactions import InteractionLog
from mixpeek_operator.relevance.performance import Performance
from mixpeek_operator.relevance.replay import Replayer
from mixpeek_operator.relevance.runs import Runs
from mixpeek_operator.relevance.tuning import Tuning
from mixpeek_operator.retrieval.registry import StageRegistry
from mixpeek_operator.retrieval.retention import Retention
from mixpeek_operator.retrieval.service import Retrieval
from mixpeek_operator.stores import follow_namespaces, open_cluster, open_stores, own_clusters

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class System:
    """A running system: its front door, and who may be told what the start made."""

    app: FastAPI
    services: Services
    bootstrap: Bootstrap
    local_blobs: LocalBlobs | None
    inference: LocalInference | RayServeInference | RoutedInference


@contextlib.asynccontextmanager
async def system(settings: Settings) -> AsyncIterator[System]:
    """Run everything but the HTTP server on `settings.data` until the block ends.

    Raises ConflictError when another process has the data directory.
    """
    clock = SystemClock()
    kinds = every_kind()
    schemas = {name: kind.schema for name, kind in kinds.items()}
    index = ResourceIndex(schemas)
    cluster = open_cluster(settings, schemas, index)
    async with (
        open_stores(settings, clock, cluster.resources if cluster else None) as stores,
        open_engines(settings, stores.cache, stores.blobs, own_clusters(settings, index)) as engines,
    ):
        metadata, store, vectors = stores.metadata, stores.resources, stores.vectors
        cache, blobs = stores.cache, stores.blobs
        extractors, inference = engines.extractors, engines.inference
        given = settings.encryption_key.get_secret_value() if settings.encryption_key else None
        kept_secrets: SecretStore
        if cluster is not None:
            kept_secrets = cluster.secrets
        else:
            kept_secrets = StoredSecrets(metadata, encryption_key(given, settings.data), clock=clock)
        language = HttpLanguageModels(settings, kept_secrets)
        stages = StageRegistry(language=language)
        catalog = Registries(extractors, stages)
        machines = cluster.machines if cluster else None
        backends = Backends(
            vectors=vectors,
            metadata=metadata,
            cache=cache,
            blobs=blobs,
            machines=machines,
            secrets=kept_secrets,
            connections=ConnectionNames(metadata),
        )
        clients = {name: kind.client(backends) for name, kind in kinds.items()}
        engine = Engine(
            store=store,
            index=index,
            kinds=kinds,
            clients=clients,
            catalog=catalog,
            clock=clock,
            facilities=Facilities(
                dedicated_compute=machines is not None, own_vector_server=settings.qdrant_url is not None
            ),
        )
        queue = Queue(
            store=store,
            index=index,
            engine=engine,
            concurrency=settings.reconcile_concurrency,
            drift_interval_s=settings.drift_interval_s,
            gathers={name: kind.gathers for name, kind in kinds.items()},
        )
        resources = Resources(store=store, index=index, kinds=kinds, catalog=catalog, engine=engine, clock=clock)
        declared, declarations = store, resources
        if cluster is not None:
            # What manifests declare has a field manager of its own.
            declared = cluster.declared
            declarations = Resources(
                store=declared, index=index, kinds=kinds, catalog=catalog, engine=engine, clock=clock
            )
        directory = StoreDirectory(store=store, index=index, catalog=catalog)

        keys = Keys(metadata, clock=clock)
        users = Users(metadata, keys, clock=clock)
        organizations = Organizations(metadata, users, keys, clock=clock)
        follow_namespaces(stores, index, kept_secrets)

        signatures = Signatures(metadata, vectors, clock)
        derived = DerivedDocuments(vectors, directory, signatures)
        outbound = GuardedClient(allow_cidrs=settings.outbound_allow_cidrs, clock=clock)
        drivers = SqlDrivers(outbound, settings.sqlite_path)
        connections = Connections(metadata, kept_secrets, drivers, clock=clock)
        links = Links(blobs, expires_s=settings.signed_url_expiry_s)
        objects = Objects(
            metadata, blobs, directory, clock, BlobIntake(blobs, metadata, GuardedFetch(outbound)), derived, links
        )
        tasks = Tasks(metadata, clock)
        uploads = Uploads(
            metadata,
            blobs,
            directory,
            objects,
            tasks,
            clock,
            max_bytes=settings.max_upload_bytes,
            expiry_s=settings.signed_url_expiry_s,
        )
        retention = Retention(
            metadata,
            directory.namespace_ids,
            clock,
            days=settings.history_days,
            most=settings.history_max_executions,
        )
        worker = Worker(
            metadata,
            vectors,
            blobs,
            directory,
            engines.runner,
            signatures,
            clock,
            concurrency=settings.workers,
            chores=(uploads.expire, retention.chore),
        )
        batches = Batches(metadata, vectors, directory, objects, clock, on_submit=worker.wake)
        documents = Documents(vectors, directory, signatures, clock, links)
        retrieval = Retrieval(
            directory,
            vectors,
            inference,
            metadata,
            cache,
            clock,
            links,
            language=CachedLanguageModels(language, cache),
            outbound=outbound,
            secrets=kept_secrets,
            databases=connections,
            web_search=ExaSearch(outbound, settings.exa_base_url, settings.exa_api_key),
            sandbox=ProcessSandbox(packages=settings.allowed_code_packages),
            signatures=signatures,
            registry=stages,
        )
        history, feedback = retrieval.history, retrieval.feedback
        datasets, replayer = Datasets(metadata, clock), Replayer(retrieval, clock)
        evaluations = Evaluations(metadata, directory, datasets, tasks, replayer, clock)
        benchmarks = Benchmarks(metadata, directory, replayer, clock)
        runs = Runs(metadata, clock, (evaluations, benchmarks))
        evaluations.on_start = benchmarks.on_start = runs.wake
        manifest = ManifestService(
            store=store,
            secrets=kept_secrets,
            databases=connections,
            schemas=schemas,
            catalog=catalog,
            applier=Applier(store=declared, journal=Journal(metadata), resources=declarations, clock=clock),
            clock=clock,
            generator=Generator(language=language, schemas=schemas, catalog=catalog),
            wants={name: kind.want for name, kind in kinds.items()},
            seeds=Seeds(objects=objects, batches=batches, records=metadata, clock=clock),
            acceptance=Acceptance(queries=retrieval, counts=DocumentCounts(documents)),
            documents=documents,
            tasks=ApplyTasks(tasks, clock),
            max_bytes=settings.max_manifest_bytes,
        )
        running = _Running()
        services = Services(
            settings=settings,
            organizations=organizations,
            users=users,
            keys=keys,
            secrets=kept_secrets,
            connections=connections,
            directory=directory,
            catalog=catalog,
            kinds=kinds,
            resources=resources,
            manifest=manifest,
            objects=objects,
            uploads=uploads,
            batches=batches,
            tasks=tasks,
            documents=documents,
            derived=derived,
            retrieval=retrieval,
            interactions=InteractionLog(metadata, directory, history, feedback, clock),
            datasets=datasets,
            evaluations=evaluations,
            benchmarks=benchmarks,
            tuning=Tuning(metadata, directory, history, stages, clock),
            performance=Performance(metadata, directory, history, stages, clock),
            vectors=vectors,
            metadata=metadata,
            health_checks={
                "metadata": _both(metadata.health, store.health),
                "vector_store": vectors.health,
                "cache": cache.health,
                "object_storage": blobs.health,
                "task_queue": running.health,
                "inference": inference.health,
            },
        )
        if stores.local_blobs is not None:
            services.blobs = stores.local_blobs
        bootstrap = await organizations.bootstrap(
            settings.api_key.get_secret_value() if settings.api_key else None,
            id=cluster.organization if cluster else None,
        )
        try:
            if cluster is None:
                await queue.start()
            else:
                # The operator reconciles; all we need is an index that is complete.
                await store.organizations()
            running.start("batch worker", worker.run(running.stop))
            running.start("evaluations", runs.run(running.stop))
            language.preload()
            await manifest.recover()
            app = create_app(services, settings)
            try:
                yield System(app, services, bootstrap, stores.local_blobs, inference)
            finally:
                app.access.flush()
        finally:
            await running.finish()
            await queue.stop()
            await retrieval.close()
            await outbound.close()
            await language.close()


class DocumentCounts:
    """Documents of a collection, for acceptance steps."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    async def count_documents(self, scope: Scope, collection: str) -> int:
        counted = await self._documents.count(scope, collection)
        return int(counted["count"])


class _Running:
    """Background work: it ends when told to, and its death is a health problem and not a silence."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, name: str, work: Any) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

    async def health(self) -> None:
        for task in self._tasks:
            if task.done() and not self.stop.is_set():
                raise UnavailableError(f"the {task.get_name()} has ended; restart the server")

    async def finish(self) -> None:
        self.stop.set()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, BaseException):
                _log.error("background work failed", exc_info=result)


def _both(*checks: Any) -> Any:
    async def check() -> None:
        for each in checks:
            await each()

    return check
