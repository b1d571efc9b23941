"""Search by a query and by other wordings of it that a language model finds, fused into one ranking."""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import AliasChoices, Field, PrivateAttr, model_validator

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.core.directory import CollectionInfo, Feature
from mixpeek_operator.core.errors import MixpeekError, RateLimitedError, RefusedError, SpecError, UnavailableError
from mixpeek_operator.core.filters import all_of, one_of
from mixpeek_operator.extraction import features
from mixpeek_operator.ports.vectors import Hit
from mixpeek_operator.retrieval import fusion, search
from mixpeek_operator.retrieval.late import Late, known
from mixpeek_operator.retrieval.pagination import Order
from mixpeek_operator.retrieval.stage import Compilation, Context, Documents, Stage, State
from mixpeek_operator.retrieval.stages import _language, _queries
from mixpeek_operator.retrieval.templating.template import Template, compile_text

_Variations = Annotated[int, Field(ge=1, le=10)]
_TopK = Annotated[int, Field(ge=1, le=1000)]
_OWN: Final = re.compile(r"\{\{\s*(num_variations|query)\s*\}\}")
_SYSTEM: Final = "You reword search queries. Each wording is a query by itself: no numbers, no quotes, no explanation."
_PROMPT: Final = (
    "Write {{num_variations}} other wordings of this search query, with other words for the same thing or for one of "
    "its aspects: {{query}}"
)


class Params(_language.LanguageParams):
    """Parameters of `query_expand`."""

    query: Late[str] = Field(default="{{INPUT.query}}", validate_default=True, description="The query to reword.")
    num_variations: Late[_Variations] = Field(default=3, description="Other wordings to search by.", examples=[3])
    vector_index: str = Field(
        min_length=1,
        validation_alias=AliasChoices("vector_index", "feature_uri"),
        description="What is searched: a feature URI, or the name of a feature or vector index.",
        examples=["mixpeek://text_extractor@v1/text_embedding"],
    )
    top_k: Late[_TopK] = Field(default=20, description="Candidates of each wording.", examples=[20])
    fusion_method: Late[Literal["rrf", "linear", "max"]] = Field(
        default="rrf",
        description="rrf: by rank. linear: the mean of the scores. max: the best score.",
        examples=["rrf"],
    )
    expansion_prompt: str = Field(
        default=_PROMPT,
        min_length=1,
        description="What the model is asked, with {{num_variations}} and {{query}}; it may hold templates of INPUT.",
    )
    _prompt: Template = PrivateAttr()

    @property
    def compiled(self) -> Template:
        """The compiled prompt."""
        return self._prompt

    def own_templates(self) -> Mapping[str, frozenset[tuple[str, ...]]]:
        """See StageParams."""
        return {"expansion_prompt": self._prompt.paths}

    @model_validator(mode="after")
    def _compile(self) -> Params:
        self._prompt = compile_text(_OWN.sub(r"{{CONTEXT.\1}}", self.expansion_prompt), braces=True)
        return self


async def prepare(params: Params, compilation: Compilation) -> Feature:
    """Return the feature that is searched. Raises SpecError when no collection has it."""
    return _feature(params.vector_index, compilation.collections)


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return the fused documents, best first, each with `query_expand`: which wordings found it, and where.

    When the model does not answer, the query alone is searched and a warning says so.
    """
    names = context.names
    feature: Feature = state.plan
    query = known(params.query, names, "query")
    if not isinstance(query, str) or not query.strip():
        raise SpecError("query_expand: the query is empty; give its input", code="query_empty")
    queries = [query, *await _variations(query, state, params, context)]
    holders = tuple(
        collection
        for collection in context.collections
        if any(other.index.name == feature.index.name for other in collection.features)
    )
    vectors = await _queries.vectors_of(
        [(feature, holders, _queries.Query("text", wording)) for wording in queries], context
    )
    inside = None
    if not state.first:
        inside = one_of("document_id", [document.get("document_id") for document in state.documents])
    filter = all_of(search.in_collections([holder.id for holder in holders]), *state.filters, inside)
    top_k = known(params.top_k, names, "top_k")
    jobs = [search.Job(feature.index.name, vector, top_k, filter) for vector in vectors]
    found = await search.search(context.vectors, context.namespace.vector_collection, jobs)
    if feature.index.type == "dense":
        context.searched = [feature.index.name]
    state.credits += float(len(jobs))
    state.metadata["queries"] = queries
    return _fused(found, queries, known(params.fusion_method, names, "fusion_method"))


async def _variations(query: str, state: State, params: Params, context: Context) -> list[str]:
    """Other wordings than the query, each once."""
    count = known(params.num_variations, context.names, "num_variations")
    own = ChainMap({"num_variations": count, "query": query}, context.names["CONTEXT"])
    schema = {
        "type": "object",
        "properties": {"queries": {"type": "array", "items": {"type": "string"}}},
        "required": ["queries"],
        "additionalProperties": False,
    }
    caller = _language.Caller("query_expand", params, state, context)
    try:
        prompt = str(params.compiled.render({**context.names, "CONTEXT": own}))
        answer = await caller.ask(prompt, system=_SYSTEM, schema=schema, max_tokens=1024)
    except (UnavailableError, RateLimitedError, RefusedError) as error:
        _warn(context, error)
        return []
    seen = {query.strip().casefold()}
    wordings = []
    for wording in answer.data["queries"]:
        mark = wording.strip().casefold()
        if mark and mark not in seen:
            seen.add(mark)
            wordings.append(wording.strip())
    return wordings[:count]


def _warn(context: Context, error: MixpeekError) -> None:
    context.warnings.append(f"query_expand: only the query itself was searched, the model failed: {error.message}")


def _fused(found: Sequence[Sequence[Hit]], queries: Sequence[str], method: str) -> Documents:
    rankings = [[(hit.id, hit.score) for hit in hits] for hits in found]
    if method == "linear":
        scores = fusion.weighted(rankings, [1.0 / len(rankings)] * len(rankings))
    else:
        scores = fusion.STRATEGIES[method](rankings, [1.0] * len(rankings))
    payloads = {hit.id: hit.payload for hits in found for hit in hits}
    ranks = [{hit.id: rank for rank, hit in enumerate(hits, start=1)} for hits in found]
    documents = []
    for id, score in fusion.ordered(scores):
        places = [rank.get(id) for rank in ranks]
        told = {
            "matched_variations": [wording for wording, place in zip(queries, places, strict=True) if place],
            "fusion_score": score,
            "individual_ranks": places,
        }
        documents.append({**search.document(payloads[id], score), "query_expand": told})
    return documents


def _feature(name: str, collections: Sequence[CollectionInfo]) -> Feature:
    offered = [feature for collection in collections for feature in collection.features]
    if name.startswith("mixpeek://"):
        return features.resolve(name, offered)
    for feature in offered:
        if name in (feature.index.name, feature.index.output):
            return features.resolve(feature.uri, offered)
    there = ", ".join(dict.fromkeys(feature.index.name for feature in offered)) or "none"
    raise SpecError(f"no collection has the vector index {name!r}; there are: {there}", code="feature_not_found")


def _order(params: Params, names: Mapping[str, Any]) -> Order:
    return Order()


def _estimate(params: Params, documents: int) -> tuple[int, float, float]:
    top_k = params.top_k if isinstance(params.top_k, int) else 20
    wordings = 1 + (params.num_variations if isinstance(params.num_variations, int) else 3)
    credits, milliseconds = _language.cost(1, 1)
    return min(documents, top_k * wordings), credits + wordings, milliseconds + 10.0 * wordings


STAGE = Stage(
    StageInfo(
        "query_expand",
        "filter",
        "Search by a query and other wordings of it that a language model finds.",
        "git-branch",
        Params,
    ),
    run,
    source=True,
    searches=True,
    absorbs=lambda params: True,
    prepare=prepare,
    order=_order,
    opaque=_language.OPAQUE | {"expansion_prompt"},
    braces=True,
    models=_language.models,
    estimate=_estimate,
)
