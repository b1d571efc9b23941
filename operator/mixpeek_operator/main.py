"""Puts the parts together on embedded stores and runs them as one process. The only place that knows every part."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI

from mixpeek_operator.access.keys import Keys
from mixpeek_operator.access.organizations import Bootstrap, Organizations
from mixpeek_operator.access.secrets import StoredSecrets, encryption_key
from mixpeek_operator.access.users import Users
from mixpeek_operator.adapters.bm25 import EdgeBm25
from mixpeek_operator.adapters.data_lock import DataLock
from mixpeek_operator.adapters.local_blobs import LocalBlobs
from mixpeek_operator.adapters.memory_cache import MemoryCache
from mixpeek_operator.adapters.qdrant_edge import QdrantEdgeVectors
from mixpeek_operator.adapters.sqlite_metadata import SqliteMetadata
from mixpeek_operator.adapters.sqlite_resources import SqliteResources
from mixpeek_operator.api.app import create_app
from mixpeek_operator.api.services import Services
from mixpeek_operator.core import logging
from mixpeek_operator.core.catalog import ExtractorInfo, StageInfo, VectorIndex
from mixpeek_operator.core.clock import SystemClock
from mixpeek_operator.core.engine import Engine
from mixpeek_operator.core.errors import MixpeekError, UnavailableError
from mixpeek_operator.core.index import ResourceIndex
from mixpeek_operator.core.lifecycle import Backends
from mixpeek_operator.core.queue import Queue
from mixpeek_operator.core.resources import Resources
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.core.settings import Settings
from mixpeek_operator.extraction.inference import LocalInference
from mixpeek_operator.extraction.models.registry import ModelRegistry
from mixpeek_operator.extraction.registry import ExtractorRegistry
from mixpeek_operator.extraction.runner import InProcessRunner
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
from mixpeek_operator.manifest.files import manifest_files
from mixpeek_operator.manifest.generate import Generator
from mixpeek_operator.manifest.journal import Journal
from mixpeek_operator.manifest.seed import Seeds
from mixpeek_operator.manifest.service import ManifestService
from mixpeek_operator.retrieval.registry import StageRegistry
from mixpeek_operator.retrieval.service import Retrieval

_CACHE_BYTES = 256 * 1024 * 1024
_log = structlog.get_logger(__name__)


class Registries:
    """The catalog: extractors and stages as their registries found them."""

    def __init__(self, extractors: ExtractorRegistry, stages: StageRegistry) -> None:
        self._extractors = extractors
        self._stages = stages

    def stages(self) -> Mapping[str, StageInfo]:
        return self._stages.stages()

    def extractors(self) -> Mapping[tuple[str, str], ExtractorInfo]:
        return self._extractors.extractors()

    def vector_indexes(self, name: str, version: str, parameters: Mapping[str, Any]) -> tuple[VectorIndex, ...]:
        return self._extractors.vector_indexes(name, version, parameters)

    def output_schema(self, name: str, version: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        return self._extractors.output_schema(name, version, parameters)

    def check_stages(self, stages: list[Any], input_schema: Mapping[str, Any]) -> list[Any]:
        return self._stages.check_stages(stages, input_schema)


@dataclass(slots=True)
class System:
    """A running system: its front door, and who may be told what the start made."""

    app: FastAPI
    services: Services
    bootstrap: Bootstrap
    blobs: LocalBlobs


@contextlib.asynccontextmanager
async def system(settings: Settings) -> AsyncIterator[System]:
    """Run everything but the HTTP server on `settings.data` until the block ends.

    Raises ConflictError when another process has the data directory.
    """
    data, clock = settings.data, SystemClock()
    with DataLock(data):
        metadata = SqliteMetadata(data / "metadata.db")
        store = SqliteResources(data / "resources.db", clock)
        vectors = QdrantEdgeVectors(data / "vectors")
        cache = MemoryCache(_CACHE_BYTES, clock)
        blobs = LocalBlobs(data / "blobs", _signing_key(data), _base_url(settings, settings.port), clock)
        models = ModelRegistry(
            default=settings.embedding_model, model_path=settings.model_path, model_hub=settings.model_hub
        )
        extractors = ExtractorRegistry(models)
        inference = LocalInference(models, EdgeBm25(), cache, batch_size=settings.embedding_batch_size)
        stages = StageRegistry()
        catalog = Registries(extractors, stages)
        kinds = every_kind()
        schemas = {name: kind.schema for name, kind in kinds.items()}
        index = ResourceIndex(schemas)
        backends = Backends(vectors=vectors, metadata=metadata, cache=cache, blobs=blobs)
        clients = {name: kind.client(backends) for name, kind in kinds.items()}
        engine = Engine(store=store, index=index, kinds=kinds, clients=clients, catalog=catalog, clock=clock)
        queue = Queue(
            store=store,
            index=index,
            engine=engine,
            concurrency=settings.reconcile_concurrency,
            drift_interval_s=settings.drift_interval_s,
        )
        resources = Resources(store=store, index=index, kinds=kinds, catalog=catalog, engine=engine, clock=clock)
        directory = StoreDirectory(store=store, index=index, catalog=catalog)

        keys = Keys(metadata, clock=clock)
        users = Users(metadata, keys, clock=clock)
        organizations = Organizations(metadata, users, keys, clock=clock)
        given = settings.encryption_key.get_secret_value() if settings.encryption_key else None
        stored_secrets = StoredSecrets(metadata, encryption_key(given, data), clock=clock)

        signatures = Signatures(metadata, vectors, clock)
        derived = DerivedDocuments(vectors, directory, signatures)
        fetch = GuardedFetch(allow_cidrs=settings.outbound_allow_cidrs)
        objects = Objects(metadata, blobs, directory, clock, BlobIntake(blobs, metadata, fetch), derived)
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
        worker = Worker(
            metadata,
            vectors,
            blobs,
            directory,
            InProcessRunner(extractors, inference),
            signatures,
            clock,
            concurrency=settings.workers,
            chores=(uploads.expire,),
        )
        batches = Batches(metadata, vectors, directory, objects, clock, on_submit=worker.wake)
        documents = Documents(vectors, directory, signatures, derived, clock)
        retrieval = Retrieval(directory, vectors, inference, metadata, cache, clock, registry=stages)
        counts = DocumentCounts(documents)
        manifest = ManifestService(
            store=store,
            secrets=stored_secrets,
            schemas=schemas,
            catalog=catalog,
            applier=Applier(store=store, journal=Journal(metadata), resources=resources, clock=clock),
            clock=clock,
            generator=Generator(settings=settings, schemas=schemas, catalog=catalog),
            wants={name: kind.want for name, kind in kinds.items()},
            seeds=Seeds(objects=objects, batches=batches, records=metadata, clock=clock),
            acceptance=Acceptance(queries=retrieval, counts=counts),
            counts=counts,
            max_bytes=settings.max_manifest_bytes,
        )
        running = _Running()
        services = Services(
            settings=settings,
            organizations=organizations,
            users=users,
            keys=keys,
            secrets=stored_secrets,
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
            retrieval=retrieval,
            blobs=blobs,
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
        bootstrap = await organizations.bootstrap(settings.api_key.get_secret_value() if settings.api_key else None)
        try:
            await queue.start()
            running.start("batch worker", worker.run(running.stop))
            await manifest.recover()
            yield System(create_app(services, settings), services, bootstrap, blobs)
        finally:
            await running.finish()
            await queue.stop()
            await retrieval.close()
            await inference.close()
            for part in (cache, blobs, vectors, metadata, store):
                await part.close()


class DocumentCounts:
    """Documents of a collection, for acceptance steps and exports."""

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


def run(
    *, data: Path | None = None, host: str | None = None, port: int | None = None, watch: Sequence[Path] = ()
) -> None:
    """Serve until a signal; with `watch`, apply those files now and whenever they change."""
    given = {"data": data, "host": host, "port": port}
    settings = Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    logging.configure(settings.log_level, settings.log_format)
    asyncio.run(_serve(settings, watch))


async def _serve(settings: Settings, watch: Sequence[Path]) -> None:
    listening = _listen(settings)
    port = int(listening.getsockname()[1])
    try:
        async with system(settings) as running:
            running.blobs.base_url = _base_url(settings, port)
            server = uvicorn.Server(
                uvicorn.Config(
                    running.app,
                    log_config=None,
                    access_log=False,
                    server_header=False,
                    timeout_graceful_shutdown=10,
                    lifespan="off",
                )
            )
            _greet(settings, port, running.bootstrap)
            watching = asyncio.create_task(_follow(running, watch)) if watch else None
            try:
                await server.serve(sockets=[listening])
            finally:
                if watching is not None:
                    watching.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await watching
    finally:
        listening.close()


def _greet(settings: Settings, port: int, bootstrap: Bootstrap) -> None:
    out = sys.stdout
    if bootstrap.key is not None:
        out.write(f"API key, shown only now: {bootstrap.key}\n")
    out.write(f"mixpeek-operator serves {settings.data} at http://{settings.host}:{port}\n")
    out.flush()


async def _follow(running: System, paths: Sequence[Path]) -> None:
    """Apply the files, and apply them again on each change; a wrong file is reported and waited out."""
    from watchfiles import awatch

    await _apply(running, paths)
    async for _ in awatch(*paths):
        await _apply(running, paths)


async def _apply(running: System, paths: Sequence[Path]) -> None:
    try:
        files = [(str(path), path.read_bytes()) for path in manifest_files(paths)]
        answer = await running.services.manifest.apply(running.bootstrap.organization, files)
    except MixpeekError as error:
        sys.stdout.write(f"not applied: {error}\n")
    except OSError as error:
        sys.stdout.write(f"not applied: cannot read the files: {error}\n")
    else:
        counts = {name: answer.get(f"{name}_count") or 0 for name in ("created", "updated", "skipped", "failed")}
        told = ", ".join(f"{count} {name}" for name, count in counts.items())
        sys.stdout.write(f"{'applied' if answer['success'] else 'not applied'}: {told}\n")
        for line in answer.get("errors") or []:
            sys.stdout.write(f"  {line}\n")
    sys.stdout.flush()


def _both(*checks: Any) -> Any:
    async def check() -> None:
        for each in checks:
            await each()

    return check


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        raise UnavailableError(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); choose another --port"
        ) from error
    return listening


def _base_url(settings: Settings, port: int) -> str:
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 - compared, not bound
    return settings.public_url or f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _signing_key(data: Path) -> bytes:
    """Return the key of signed links, made at the first start and readable by the owner alone."""
    file = data / "signing.key"
    if not file.exists():
        fresh = data / "signing.key.new"
        fresh.touch(mode=0o600)
        fresh.write_bytes(secrets.token_bytes(32))
        fresh.replace(file)
    return file.read_bytes()
