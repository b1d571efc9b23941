"""Find documents by the similarity of one or several features, fused into one ranking.

All searches of the stage go to the store in one round trip. Filters — of the search, of the request and of filter
stages beside it — are part of the search, so the stage returns as many documents as it should.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.core.directory import CollectionInfo, Feature
from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.core.filters import Filter, all_of, one_of
from mixpeek_operator.extraction import features
from mixpeek_operator.retrieval import fusion, search
from mixpeek_operator.retrieval.late import Deferred, Late, LateFilter, known
from mixpeek_operator.retrieval.learned import LearnedFusion
from mixpeek_operator.retrieval.pagination import Order
from mixpeek_operator.retrieval.stage import Compilation, Context, Documents, Stage, StageParams, State
from mixpeek_operator.retrieval.stages import _facets, _groups, _learned, _queries

_TopK = Annotated[int, Field(ge=1, le=10_000)]
_Weight = Annotated[float, Field(ge=0)]


class SearchParams(BaseModel):
    """One search."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, populate_by_name=True)

    feature_uri: Late[str] = Field(
        validation_alias=AliasChoices("feature_uri", "feature_address"),
        description="Feature to search, mixpeek://<extractor>@<version>/<output>.",
        examples=["mixpeek://text_extractor@v1/text_embedding"],
    )
    query: Late[Any] = Field(
        validation_alias=AliasChoices("query", "input"),
        description="Text, or {input_mode: text|vector|document|content, value}; document takes document_ref.",
        examples=[{"input_mode": "text", "value": "{{INPUT.query}}"}],
    )
    top_k: Late[_TopK] = Field(
        default=100,
        validation_alias=AliasChoices("top_k", "limit"),
        description="Candidates of this search.",
        examples=[100],
    )
    min_score: Late[float] | None = Field(
        default=None, description="Least similarity of a candidate, before fusion.", examples=[0.2]
    )
    weight: Late[_Weight] = Field(default=1.0, description="Weight in rrf, dbsf and weighted fusion.", examples=[0.7])
    filters: LateFilter | None = Field(
        default=None,
        validation_alias=AliasChoices("filters", "pre_filters"),
        description="Structured filter of this search.",
    )
    on_empty: Literal["error", "skip", "random"] = Field(
        default="error", description="What an empty query does.", examples=["skip"]
    )
    optional: bool = Field(default=False, description="Leave the search out when no collection has the feature.")
    lexical: bool = Field(default=False, description="Search the extractor's sparse (BM25) feature by words instead.")
    collection_identifiers: list[str] | None = Field(
        default=None, description="Collections of this search; those of the stage or retriever when absent."
    )
    query_preprocessing: dict[str, Any] | None = Field(
        default=None, description="Accepted; queries are embedded whole."
    )


class Params(StageParams):
    """Parameters of `feature_search`; one search may also be written without the list."""

    searches: list[SearchParams] = Field(min_length=1, max_length=32, description="Searches to run and fuse.")
    final_top_k: Late[_TopK] = Field(default=25, description="Documents to return after fusion.", examples=[25])
    fusion: Late[Literal["rrf", "dbsf", "weighted", "max", "learned"]] = Field(
        default="rrf",
        description="How several rankings become one; `learned` is rrf with weights learned from interactions.",
        examples=["rrf"],
    )
    group_by: _groups.GroupBy | None = Field(default=None, description="Group the result by a field.")
    facets: list[_facets.FacetField] | None = Field(
        default=None, description="Fields to count values of, over everything that passes the filters."
    )
    collection_identifiers: list[str] | None = Field(
        default=None, description="Collections of this stage; those of the retriever when absent."
    )
    filters: LateFilter | None = Field(default=None, description="Structured filter of every search.")
    hard_timeout_ms: int | None = Field(default=None, description="Accepted; see the retriever's budget_limits.")
    interactive: bool = Field(default=False, description="Accepted and without effect.")
    degrade_retry: bool | None = Field(default=None, description="Accepted and without effect.")
    auto_preprocess: bool | None = Field(default=None, description="Accepted and without effect.")
    query_preprocessing: dict[str, Any] | None = Field(
        default=None, description="Accepted; queries are embedded whole."
    )
    learning_config: LearnedFusion | None = Field(default=None, description="How `learned` fusion learns its weights.")

    @model_validator(mode="before")
    @classmethod
    def _single(cls, values: Any) -> Any:
        """`{feature_uri, input: {text}, limit}`: one search, and `limit` documents."""
        if not isinstance(values, Mapping) or "searches" in values:
            return values
        own = {name for name, field in SearchParams.model_fields.items()} | {"input", "limit", "feature_address"}
        single = {key: value for key, value in values.items() if key in own - {"limit", "collection_identifiers"}}
        rest = {key: value for key, value in values.items() if key not in single and key != "limit"}
        if "limit" in values:
            single.setdefault("top_k", values["limit"])
            rest.setdefault("final_top_k", values["limit"])
        elif "top_k" in values:
            rest.setdefault("final_top_k", values["top_k"])
        return {**rest, "searches": [single]}


@dataclass(frozen=True, slots=True)
class Target:
    """Where one search looks, resolved."""

    feature: Feature
    holders: tuple[CollectionInfo, ...]
    """The collections that have the feature."""
    scope: Filter


async def prepare(params: Params, compilation: Compilation) -> list[Target | None]:
    """Resolve the feature of every search whose URI is no template; None for a template or a left-out search."""
    return [
        None
        if isinstance(item.feature_uri, Deferred)
        else await _target(item, item.feature_uri, params, compilation.collections, compilation.find_collection)
        for item in params.searches
    ]


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return the best documents, each with its `score`; several searches also leave theirs in `features`."""
    names = context.names
    targets: list[tuple[SearchParams, Target]] = []
    queries: list[_queries.Wanted] = []
    for item, prepared in zip(params.searches, state.plan, strict=True):
        target: Target | None = prepared
        if target is None:
            uri = known(item.feature_uri, names, "feature_uri")
            target = await _target(item, uri, params, context.collections, context.find_collection)
            if target is None:
                continue
        query = _queries.read(known(item.query, names, "query"))
        if _queries.is_empty(query):
            if item.on_empty == "skip":
                continue
            if item.on_empty == "error":
                raise SpecError(
                    f"the query of {target.feature.uri} is empty; give its input, or set on_empty: skip",
                    code="query_empty",
                )
            query = _queries.Query("vector", _queries.random_vector(target.feature))
        targets.append((item, target))
        queries.append((target.feature, target.holders, query))
    if not targets:
        raise SpecError("every search of the stage is left out: none has a query", code="query_empty")
    vectors = await _queries.vectors_of(queries, context)
    final = known(params.final_top_k, names, "final_top_k")
    common = _common(state, params, names)
    alone = len(targets) == 1 and params.group_by is None
    jobs = [
        search.Job(
            target.feature.index.name,
            vector,
            min(known(item.top_k, names, "top_k"), final) if alone else known(item.top_k, names, "top_k"),
            all_of(target.scope, *common, None if item.filters is None else item.filters.value(names)),
            None if item.min_score is None else known(item.min_score, names, "min_score"),
        )
        for (item, target), vector in zip(targets, vectors, strict=True)
    ]
    found = await search.search(context.vectors, context.namespace.vector_collection, jobs)
    context.searched = [target.feature.index.name for _, target in targets if target.feature.index.type == "dense"]
    state.credits += float(len(jobs))
    if len(jobs) == 1:
        documents = [search.document(hit.payload, hit.score) for hit in found[0]]
    else:
        documents = await _fused(found, targets, params, final, context)
    if params.facets:
        scope = all_of(*(job.filter for job in jobs)) if len(jobs) == 1 else all_of(targets[0][1].scope, *common)
        context.facets += await _facets.count(params.facets, scope, context)
    if params.group_by is not None:
        return _groups.group(documents, params.group_by, final)
    return documents[:final]


def _common(state: State, params: Params, names: Mapping[str, Any]) -> tuple[Filter | None, ...]:
    inside: Filter | None = None
    if not state.first:
        # Behind other stages a search narrows what they found.
        inside = one_of("document_id", [document.get("document_id") for document in state.documents])
    return (*state.filters, inside, None if params.filters is None else params.filters.value(names))


async def _target(
    item: SearchParams, uri: str, params: Params, default: tuple[CollectionInfo, ...], find: Any
) -> Target | None:
    chosen = item.collection_identifiers or params.collection_identifiers
    collections = default if not chosen else tuple([await find(identifier) for identifier in chosen])
    offered = [feature for collection in collections for feature in collection.features]
    try:
        feature = features.resolve(uri, offered)
        if item.lexical:
            feature = _lexical(feature, offered)
    except SpecError:
        if item.optional:
            return None
        raise
    holders = tuple(
        collection
        for collection in collections
        if any(other.index.name == feature.index.name for other in collection.features)
    )
    return Target(feature, holders, search.in_collections([holder.id for holder in holders]))


def _lexical(feature: Feature, offered: list[Feature]) -> Feature:
    for other in offered:
        if (other.extractor, other.version, other.index.type) == (feature.extractor, feature.version, "sparse"):
            return other
    raise SpecError(f"{feature.uri}: a lexical search needs a sparse feature of the same extractor", code="no_sparse")


async def _fused(
    found: list[list[Any]], targets: list[tuple[SearchParams, Target]], params: Params, final: int, context: Context
) -> Documents:
    names = context.names
    weights = [float(known(item.weight, names, "weight")) for item, _ in targets]
    strategy = known(params.fusion, names, "fusion")
    if strategy == "learned":
        arms = _learned.arms_of([target.feature.uri for _, target in targets])
        weights, signal = await _learned.weights(arms, weights, params.learning_config or LearnedFusion(), context)
    scores = fusion.STRATEGIES[strategy]([[(hit.id, hit.score) for hit in hits] for hits in found], weights)
    payloads = {hit.id: hit.payload for hits in found for hit in hits}
    parts: dict[str, dict[str, Any]] = {}
    for hits, (_, target) in zip(found, targets, strict=True):
        for hit in hits:
            parts.setdefault(hit.id, {})[target.feature.uri] = {"score": hit.score}
    documents = []
    for id, score in fusion.ordered(scores):
        document = search.document(payloads[id], score)
        document.setdefault("features", parts[id])
        documents.append(document)
    if strategy == "learned":
        best = fusion.ordered(scores)[: min(final, _learned.MAX_RANKED)]
        shown = {id: str(payloads[id]["document_id"]) for id, _ in best}
        signal["signal_data"]["ranks"] = _learned.ranks_of(found, arms, shown)
        context.signals.append(signal)
    return documents


def _absorbs(params: Params) -> bool:
    return not params.facets and params.group_by is None


def _order(params: Params, names: Mapping[str, Any]) -> Order:
    return Order()


def _estimate(params: Params, documents: int) -> tuple[int, float, float]:
    final = params.final_top_k if isinstance(params.final_top_k, int) else 25
    texts = sum(1 for item in params.searches if not isinstance(item.query, list))
    return min(final, documents), float(len(params.searches)), 1.0 * len(params.searches) + 8.0 * texts


STAGE = Stage(
    StageInfo(
        "feature_search",
        "filter",
        "Find documents by similarity of one or several features, with fusion.",
        "search",
        Params,
    ),
    run,
    repeatable=lambda params: isinstance(params.fusion, str) and params.fusion != "learned",
    costly=True,
    source=True,
    searches=True,
    absorbs=_absorbs,
    prepare=prepare,
    order=_order,
    estimate=_estimate,
)
