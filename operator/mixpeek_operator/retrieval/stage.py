"""The contract of a retriever stage. One module in `stages/` is one stage: it defines `STAGE`.

    class Params(StageParams): ...                                          # what the declaration may say
    async def run(state: State, params: Params, context: Context) -> list[dict[str, Any]]: ...
    STAGE = Stage(StageInfo("limit", "reduce", "…", "icon", Params), run)

Documents are plain dicts. A stage never changes one it was given: it returns new ones, or the same unchanged.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from mixpeek_operator.core.catalog import Need, StageInfo
from mixpeek_operator.core.clock import Clock
from mixpeek_operator.core.directory import CollectionInfo, NamespaceInfo, TaxonomyInfo
from mixpeek_operator.core.filters import Filter
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.extraction.embedders import Embedders
from mixpeek_operator.ports.inference import Inference
from mixpeek_operator.ports.language import LanguageModels, ModelChoice
from mixpeek_operator.ports.outbound import Outbound
from mixpeek_operator.ports.sandbox import Sandbox
from mixpeek_operator.ports.secrets import Secrets
from mixpeek_operator.ports.sql import Databases
from mixpeek_operator.ports.vectors import VectorStore
from mixpeek_operator.ports.web_search import WebSearch
from mixpeek_operator.retrieval.feedback import Feedback
from mixpeek_operator.retrieval.pagination import Order

Documents = list[dict[str, Any]]


class StageParams(BaseModel):
    """Base of every parameter model: unknown parameters are refused, caching is a parameter of every stage."""

    model_config = ConfigDict(
        extra="forbid", arbitrary_types_allowed=True, populate_by_name=True, use_attribute_docstrings=True
    )

    cache_behavior: Literal["auto", "disabled", "aggressive"] | None = Field(
        default=None,
        description=(
            "Whether the stage's output is kept. auto (default): where equal inputs make equal outputs and keeping "
            "saves time. aggressive: also what may come out differently. disabled: never, nor answers made with it."
        ),
    )
    cache_ttl_seconds: int | None = Field(
        default=None, ge=0, description="Seconds the stage's output is kept; cache_config's ttl_seconds when absent."
    )

    def own_templates(self) -> Mapping[str, frozenset[tuple[str, ...]]]:
        """What templates of the stage's own kind use, by parameter: those that `Stage.opaque` keeps from others."""
        return {}


@dataclass(slots=True)
class State:
    """What a stage gets."""

    documents: Documents
    first: bool
    """Whether nothing came before it, so that a stage that finds documents finds them in the collections."""
    filters: tuple[Filter, ...] = ()
    """Filters that a stage which finds documents has to apply while it searches."""
    plan: Any = None
    """What the stage's `prepare` returned."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """What the stage tells in its statistics."""
    credits: float = 0.0
    batch_size: int | None = None
    """Documents per call, when the declaration says."""


class Nested(Protocol):
    """Runs another retriever inside a stage; bounded in depth."""

    async def __call__(
        self, retriever: str | Mapping[str, Any], inputs: Mapping[str, Any], *, filter: Filter | None, limit: int
    ) -> Documents: ...


@dataclass
class Context:
    """What a stage may use, the same for all stages of one execution."""

    scope: Scope
    namespace: NamespaceInfo
    collections: tuple[CollectionInfo, ...]
    vectors: VectorStore
    inference: Inference
    embedders: Embedders
    feedback: Feedback
    outbound: Outbound
    secrets: Secrets
    sandbox: Sandbox
    clock: Clock
    find_collection: Callable[[str], Awaitable[CollectionInfo]]
    """By id or name. Raises NotFoundError."""
    find_taxonomy: Callable[[str], Awaitable[TaxonomyInfo]]
    """By id or name. Raises NotFoundError."""
    nested: Nested
    names: dict[str, Any]
    """INPUT, CONTEXT and STAGE for templates; a stage adds DOC."""
    searched: list[str] = field(default_factory=list)
    """Dense vectors that the last search used, by their names."""
    facets: list[dict[str, Any]] = field(default_factory=list)
    aggregations: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    limits: list[dict[str, Any]] = field(default_factory=list)
    signals: list[dict[str, Any]] = field(default_factory=list)
    """What the execution's history tells of how it came about: {signal_type, signal_data}."""
    user_id: str | None = None
    """Who asks, when the request says so."""
    databases: Databases | None = None
    """The organization's connections to databases; None where the server was put together without them."""
    web_search: WebSearch | None = None
    """Search of the web; None where the server was put together without it."""
    language: LanguageModels | None = None
    """Language models; None where the server was put together without them."""


@dataclass(frozen=True, slots=True)
class Compilation:
    """What `prepare` may use when a retriever compiles."""

    namespace: NamespaceInfo
    collections: tuple[CollectionInfo, ...]
    find_collection: Callable[[str], Awaitable[CollectionInfo]]


Run = Callable[[State, Any, Context], Awaitable[Documents]]


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage, as its module defines it."""

    info: StageInfo
    run: Run
    source: bool = False
    """Whether it finds documents itself when it comes first; other first stages get the collections' documents."""
    searches: bool = False
    """Whether it applies `State.filters` while it finds documents, so that filter stages beside it can move into it."""
    movable: Callable[[Any], bool] | None = None
    """Of a filter stage: whether it depends on nothing but the request, so that it can move into a search."""
    filter: Callable[[Any, Mapping[str, Any]], Filter | None] | None = None
    """Of a filter stage: its filter for an execution."""
    absorbs: Callable[[Any], bool] | None = None
    """Of a searching stage: whether filters behind it may move into it without changing what else it computes."""
    prepare: Callable[[Any, Compilation], Awaitable[Any]] | None = None
    """Resolves what can be resolved once. Raises SpecError or NotFoundError."""
    order: Callable[[Any, Mapping[str, Any]], Order | None] | None = None
    """What its output is sorted by; None keeps the order before it."""
    opaque: frozenset[str] = frozenset()
    """Parameters that are no parameter templates (a Jinja template, a nested retriever)."""
    braces: bool = False
    """Whether `{INPUT.x}` and `{DOC.x}` are templates too."""
    repeatable: bool | Callable[[Any], bool] = False
    """Whether equal parameters and documents make equal output as long as the collections stay as they are. Then it
    may be kept without being asked to; what comes from outside, or by chance, is not."""
    costly: bool = False
    """Whether computing its output takes longer than reading it from a cache, so that it is kept by default."""
    by_document: bool | Callable[[Any], bool] = False
    """Whether it treats each document by itself, in order, so that it may be run on one part after the other."""
    writes: Callable[[Any], tuple[str, ...]] | None = None
    """Of a stage that returns every document it gets, in order: the paths it writes; () for unknown. Stages that
    write other fields than a neighbour reads or writes run at the same time."""
    reads: Callable[[Any], tuple[str, ...]] | None = None
    """Fields of documents that it reads besides those in its templates; needed with `writes`."""
    models: Callable[[Any], tuple[ModelChoice, ...]] | None = None
    """The language models it calls, so that a retriever whose models nobody configured is refused at creation."""
    needs: Callable[[Any], tuple[Need, ...]] | None = None
    """The secrets and connections that it names, but for the keys of its language models."""
    nested: Callable[[Any], Mapping[str, Sequence[Any]]] | None = None
    """By parameter, the stages of a retriever that is declared in it."""
    estimate: Callable[[Any, int], tuple[int, float, float]] | None = None
    """(documents out, credits, milliseconds) for so many documents in, for explain."""

    def splits(self, params: Any) -> bool:
        """Whether it may be run on one part of its documents after the other."""
        return self.by_document(params) if callable(self.by_document) else self.by_document
