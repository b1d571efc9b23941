"""Label documents by a taxonomy while they are searched: flat, or level after level down a hierarchy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.core.filters import matches
from mixpeek_operator.retrieval import paths
from mixpeek_operator.retrieval.each import each
from mixpeek_operator.retrieval.late import Late, LateFilter, known
from mixpeek_operator.retrieval.stage import Context, Documents, Stage, StageParams, State
from mixpeek_operator.retrieval.stages import _taxonomy

_AT_ONCE: Final = 20
_CREDITS_PER_SEARCH: Final = 0.1
_Share = Annotated[float, Field(ge=0, le=1)]


class EnrichmentField(BaseModel):
    """A field copied from the label to the document."""

    model_config = ConfigDict(extra="forbid")

    field_path: str = Field(min_length=1, description="Dotted path in the label.", examples=["category"])
    target_field: str | None = Field(default=None, description="Field of the document; field_path when absent.")
    merge_mode: Literal["replace", "append"] = Field(
        default="replace", description="Replace the value, or append to the list."
    )


class Params(StageParams):
    """Parameters of `taxonomy_enrich`; `min_score` is accepted for `min_confidence`."""

    taxonomy_id: Late[str] = Field(description="The taxonomy, by name or id.", examples=["topics"])
    content_field: Late[str] | None = Field(
        default=None,
        description=(
            "Dotted path of what is labelled. When absent what the taxonomy's input_mappings read, and `content` where "
            "it has none."
        ),
        examples=["title"],
    )
    result_field: Late[str] = Field(default="taxonomy", description="Where the labels go.", examples=["taxonomy"])
    max_depth: Late[Annotated[int, Field(ge=1, le=64)]] | None = Field(
        default=None, description="Most levels of a hierarchy; all when absent.", examples=[3]
    )
    top_k: Late[Annotated[int, Field(ge=1, le=50)]] = Field(
        default=3, description="Most labels of a document.", examples=[3]
    )
    min_confidence: Late[_Share] = Field(
        default=0.5,
        validation_alias=AliasChoices("min_confidence", "min_score"),
        description=(
            "Least score that the taxonomy's retriever gives a label. A search of one dense feature gives the cosine; "
            "several fused by rrf give small numbers."
        ),
        examples=[0.5],
    )
    include_ancestors: Late[bool] = Field(
        default=True, description="Whether the best label's way down the hierarchy is told.", examples=[True]
    )
    fields: list[EnrichmentField] | None = Field(
        default=None,
        description="Fields of the labels that are copied to the document; the taxonomy's enrichment_fields if absent.",
    )
    when: LateFilter | None = Field(
        default=None, description="Only documents that satisfy this filter are labelled; others pass unchanged."
    )


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return the documents with their labels; all of them, in order.

    Raises NotFoundError for an unknown taxonomy, SpecError for one without levels, and what its retrievers raise.
    """
    names = context.names
    if not state.documents:
        return []
    chosen = [_applies(document, params, context) for document in state.documents]
    documents = [document for document, applies in zip(state.documents, chosen, strict=True) if applies]
    taxonomy = await context.find_taxonomy(known(params.taxonomy_id, names, "taxonomy_id"))
    content = None if params.content_field is None else known(params.content_field, names, "content_field")
    labelling = _taxonomy.Labelling(
        taxonomy,
        context,
        least=known(params.min_confidence, names, "min_confidence"),
        most=known(params.top_k, names, "top_k"),
        depth=None if params.max_depth is None else known(params.max_depth, names, "max_depth"),
    )
    asked = await labelling.inputs(documents, content)
    # Documents that ask the same are labelled once.
    distinct = {orjson.dumps(inputs, option=orjson.OPT_SORT_KEYS, default=str): inputs for inputs in asked}
    ways = dict(zip(distinct, await each(list(distinct.values()), labelling.ways, at_once=_AT_ONCE), strict=True))
    state.credits += _CREDITS_PER_SEARCH * labelling.searches
    found = [ways[orjson.dumps(inputs, option=orjson.OPT_SORT_KEYS, default=str)] for inputs in asked]
    for name, more in (("labelled", sum(map(bool, found))), ("searches", labelling.searches)):
        state.metadata[name] = state.metadata.get(name, 0) + more
    field = known(params.result_field, names, "result_field")
    ancestors = taxonomy.hierarchical and known(params.include_ancestors, names, "include_ancestors")
    own = None if params.fields is None else [item.model_dump() for item in params.fields]
    pairs = zip(documents, found, strict=True)
    made = iter([_labelled(document, found_ways, field, ancestors, own) for document, found_ways in pairs])
    return [next(made) if applies else document for document, applies in zip(state.documents, chosen, strict=True)]


def _applies(document: dict[str, Any], params: Params, context: Context) -> bool:
    return params.when is None or matches(params.when.value({**context.names, "DOC": document}), document)


def _labelled(
    document: dict[str, Any],
    ways: Sequence[_taxonomy.Way],
    field: str,
    ancestors: bool,
    own: Sequence[Mapping[str, Any]] | None,
) -> dict[str, Any]:
    if not ways:
        nothing: dict[str, Any] = {
            "primary": None,
            "all": [],
            "message": "No classifications above confidence threshold",
        }
        return paths.write(document, field, nothing)
    best = ways[0]
    result: dict[str, Any] = {"primary": best[-1].shown(), "all": [way[-1].shown() for way in ways]}
    if ancestors:
        result["ancestors"] = [label.shown() for label in reversed(best[:-1])]
        result["path"] = " > ".join(label.name for label in best)
    whole: dict[str, Any] = {}
    for label in best:
        wanted = label.fields if own is None else own
        if wanted is None:
            whole |= label.body()
        for entry in wanted or ():
            document = _copied(document, label.document, entry)
    if whole:
        result["fields"] = whole
    return paths.write(document, field, result)


def _copied(document: dict[str, Any], label: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    value = paths.read(label, entry["field_path"])
    if value is paths.ABSENT:
        return document
    target = entry.get("target_field") or entry["field_path"]
    if entry.get("merge_mode") == "append":
        there = paths.read(document, target)
        listed = list(there) if isinstance(there, list) else [] if there in (paths.ABSENT, None) else [there]
        value = [*listed, *(value if isinstance(value, list) else [value])]
    return paths.write(document, target, value)


def _estimate(params: Params, documents: int) -> tuple[int, float, float]:
    return documents, _CREDITS_PER_SEARCH * documents, 2.0 * documents


STAGE = Stage(
    StageInfo("taxonomy_enrich", "enrich", "Label documents by a taxonomy, flat or hierarchical.", "tags", Params),
    run,
    by_document=True,
    estimate=_estimate,
)
