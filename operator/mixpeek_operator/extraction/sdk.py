"""The vocabulary of an extractor archive: what its `pipeline.py` and `realtime.py` are written with.

An archive is a folder of `manifest.py`, `pipeline.py`, an optional `realtime.py` and `processors/`. Built-in
extractors import these names from here; a customer's archive imports the same ones as
`engine.plugins.extractors.pipeline`, `shared.plugins.inference.serve`, `shared.plugins.inference.batch` and
`shared.plugins.sdk`, which only a worker process provides (`CUSTOMER_MODULES`). Nothing here runs customer code.

A processor is a class made once per run with `config=…`; its instances take and return a pandas DataFrame:

| column        | holds                                                                        |
| ------------- | ---------------------------------------------------------------------------- |
| `data`        | the main input: text as it is, a file as its URL                             |
| `inputs`      | every input of the row by name                                               |
| `object_id`   | id of the object or document the row comes from; `document_id` is the same   |
| `blob_property`, `blob_type`, `mime_type` | which input `data` is, and what kind of thing it holds |
| `_row`        | number of the input row; a processor that makes several rows of one keeps it |
| `_error`      | None, or why this row failed (`"TypeName: message"`); later steps skip it    |
| `_fields`     | None, or a dict of further output fields                                     |
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mixpeek_operator.ports.vectors import Vector

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
R = TypeVar("R")

DATA = "data"
INPUTS = "inputs"
OBJECT_ID = "object_id"
ROW = "_row"
ERROR = "_error"
FIELDS = "_fields"
SYSTEM_COLUMNS = frozenset(
    {
        DATA,
        INPUTS,
        OBJECT_ID,
        ROW,
        ERROR,
        FIELDS,
        "document_id",
        "blob_id",
        "blob_property",
        "blob_type",
        "mime_type",
        "size_bytes",
        "collection_id",
        "feature_extractor_id",
    }
)
"""Columns that carry a row through a pipeline and are no output of it."""


class ResourceType(StrEnum):
    """Which workers a step needs."""

    CPU = "cpu"
    GPU = "gpu"
    API = "api"


class RowCondition(StrEnum):
    """Which rows a step sees, by MIME type; the others pass it by."""

    ALWAYS = "always"
    IS_TEXT = "is_text"
    IS_IMAGE = "is_image"
    IS_VIDEO = "is_video"
    IS_AUDIO = "is_audio"
    IS_PDF = "is_pdf"

    def matches(self, mime_type: str | None) -> bool:
        """Whether a row of this MIME type is seen."""
        kind = (mime_type or "").lower()
        match self:
            case RowCondition.ALWAYS:
                return True
            case RowCondition.IS_PDF:
                return kind == "application/pdf"
            case _:
                return kind.startswith(f"{self.value.removeprefix('is_')}/")


class Processor(Protocol):
    """A step's instance."""

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame: ...


@dataclass(frozen=True, slots=True)
class StepDefinition:
    """One step: a processor class and what it needs. `config` is handed to the class as it is."""

    service_class: Callable[..., Any]
    resource_type: ResourceType = ResourceType.CPU
    condition: RowCondition = RowCondition.ALWAYS
    enabled: bool = True
    config: Any = None
    batch_size: int | None = None
    """Rows per call; None leaves it to the runner."""


@dataclass(frozen=True, slots=True)
class PipelineDefinition:
    """The steps of one extractor version, in order."""

    name: str
    version: str
    steps: Sequence[StepDefinition]


@dataclass(frozen=True, slots=True)
class PipelineStep:
    """A step that takes part; `build` makes its processor, once per run."""

    definition: StepDefinition

    def build(self) -> Processor:
        processor: Processor = self.definition.service_class(config=self.definition.config)
        return processor


def build_pipeline_steps(pipeline: PipelineDefinition) -> list[PipelineStep]:
    """Return the enabled steps, ready to be built where they run."""
    return [PipelineStep(step) for step in pipeline.steps if step.enabled]


@dataclass(frozen=True, slots=True)
class ExtractorConfig:
    """`feature_extractor` of a collection, as `build_steps` sees it."""

    feature_extractor_name: str
    version: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExtractorRequest:
    """First argument of an archive's `build_steps`."""

    extractor_config: ExtractorConfig


class InferenceService(Protocol):
    """Models as a processor calls them: blocking, from the processor's own thread."""

    def embed(self, model: str, inputs: Sequence[str], *, purpose: str) -> list[Vector]:
        """One vector per input, by the same model and weights that embed queries."""
        ...


class Container(Protocol):
    """The platform's services, `container` of `build_steps`."""

    @property
    def inference(self) -> InferenceService: ...


class BaseInferenceService:
    """Base of an archive's realtime service: answers one request at query time.

    `inputs` holds `text` or `texts` (`pairs` to rerank, `prompt` and `document` for an LLM) and `vector_index`;
    the answer holds `embedding` (`scores`, `text`, `keep` and `reason`), and further vectors by their name.
    """

    def __init__(self, container: Container | None = None) -> None:
        self.container = container

    async def run_inference(self, inputs: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a request; override this or `__call__`."""
        raise NotImplementedError(f"{type(self).__name__} must define run_inference(inputs, parameters)")

    async def __call__(self, inputs: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
        return await self.run_inference(inputs, parameters)


class BaseBatchInferenceService:
    """Base of a processor that only changes a batch in `_process_batch`."""

    def __init__(self, config: Any = None) -> None:
        self.config = config

    def _process_batch(self, batch: pd.DataFrame) -> pd.DataFrame:
        raise NotImplementedError(f"{type(self).__name__} must define _process_batch(batch)")

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        return self._process_batch(batch)


def parallel_io(items: Iterable[T], process_fn: Callable[[T], R], max_workers: int = 8) -> dict[int, R]:
    """Return position → result of `process_fn`, run in threads; the first exception is raised."""
    with ThreadPoolExecutor(max_workers=max_workers) as pool:
        return dict(enumerate(pool.map(process_fn, items)))


def concurrent_api_calls(
    items: Iterable[T], async_fn: Callable[[T], Awaitable[R]], max_concurrent: int = 10
) -> list[R]:
    """Return the results of `async_fn` in order, at most `max_concurrent` at once. Call it from a processor."""

    async def call_all() -> list[R]:
        gate = asyncio.Semaphore(max_concurrent)

        async def call(item: T) -> R:
            async with gate:
                return await async_fn(item)

        return list(await asyncio.gather(*(call(item) for item in items)))

    return asyncio.run(call_all())


CUSTOMER_MODULES: Mapping[str, tuple[str, ...]] = {
    "engine.plugins.extractors.pipeline": (
        "PipelineDefinition",
        "StepDefinition",
        "ResourceType",
        "RowCondition",
        "build_pipeline_steps",
    ),
    "shared.plugins.inference.serve": ("BaseInferenceService",),
    "shared.plugins.inference.batch": ("BaseBatchInferenceService",),
    "shared.plugins.sdk": ("parallel_io", "concurrent_api_calls"),
}
"""Import names of customers' code → names of this module; a worker process installs them before it loads one."""
