"""Puts together what a process of Ray needs, as `main` does for a server's; the only module here that may know
adapters and stores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mixpeek_operator.adapters.bm25 import EdgeBm25
from mixpeek_operator.adapters.memory_cache import MemoryCache
from mixpeek_operator.core.clock import SystemClock
from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.core.settings import Settings
from mixpeek_operator.extraction.inference import LocalInference
from mixpeek_operator.extraction.models.registry import ModelRegistry
from mixpeek_operator.extraction.ray.stream import Workers
from mixpeek_operator.extraction.registry import ExtractorRegistry
from mixpeek_operator.extraction.runner import InProcessRunner
from mixpeek_operator.ports.blobs import BlobStore

_CACHE_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Models:
    """The settings that worker processes get; no secret is among them."""

    default: str
    path: Path | None
    hub: bool
    threads: int | None
    batch_size: int

    @classmethod
    def of(cls, settings: Settings) -> Models:
        """The part of a server's or a job's settings that is about models."""
        return cls(
            default=settings.embedding_model,
            path=settings.model_path.absolute() if settings.model_path else None,
            hub=settings.model_hub,
            threads=settings.embedding_threads,
            batch_size=settings.embedding_batch_size,
        )

    def registry(self) -> ModelRegistry:
        """The model registry of this process."""
        return ModelRegistry(default=self.default, model_path=self.path, model_hub=self.hub)


def inference(models: Models) -> LocalInference:
    """Inference with the models of this machine."""
    return LocalInference(
        models.registry(),
        EdgeBm25(),
        MemoryCache(_CACHE_BYTES, SystemClock()),
        threads=models.threads,
        batch_size=models.batch_size,
    )


def runner(models: Models) -> InProcessRunner:
    """The runner of a worker process."""
    return InProcessRunner(ExtractorRegistry(models.registry()), inference(models))


def workers(settings: Settings) -> Workers:
    """How many workers a run has, and what each reserves."""
    return Workers(most=settings.ray_workers, cpus=settings.ray_worker_cpus, gpus=settings.ray_worker_gpus)


def open_blobs(settings: Settings) -> BlobStore:
    """The blob store that server and job share. Raises SpecError when there is none."""
    if settings.blobs_url is None:
        raise SpecError("a Ray job needs MIXPEEK_BLOBS_URL, the object storage that server and cluster share")
    url = urlsplit(settings.blobs_url)
    if url.scheme == "file":
        from mixpeek_operator.adapters.local_blobs import LocalBlobs

        return LocalBlobs(Path(unquote(url.path)), b"", "", SystemClock(), exclusive=False)
    from mixpeek_operator.stores import object_blobs

    return object_blobs(settings)
