"""Compare documents with those of a reference collection: equal texts, similar ones, similar meaning."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.core.directory import CollectionInfo, Feature
from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.core.filters import all_of, equals
from mixpeek_operator.extraction import features
from mixpeek_operator.retrieval import paths, search
from mixpeek_operator.retrieval.late import Late, known
from mixpeek_operator.retrieval.stage import Compilation, Context, Documents, Stage, StageParams, State
from mixpeek_operator.retrieval.stages import _elements, _queries, _values

_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=1, le=10_000)]
_Tier = Literal["exact", "fuzzy", "semantic", "visual"]
_URLS: Final = ("url", "metadata.url", "source_url", "document_id")
_OWN: Final = ("document_id", "collection_id")
_VISUAL: Final = "Accepted and without effect: there is no tier visual."


class Classification(BaseModel):
    """A label for scores from `min_score` on."""

    model_config = ConfigDict(extra="forbid")

    min_score: _Share = Field(description="Lowest score of the label.", examples=[0.85])
    label: str = Field(min_length=1, description="The label.", examples=["close_match"])


_CLASSES: Final = (
    Classification(min_score=0.95, label="exact_match"),
    Classification(min_score=0.85, label="close_match"),
    Classification(min_score=0.65, label="partial_match"),
    Classification(min_score=0.0, label="no_match"),
)


class Params(StageParams):
    """Parameters of `cross_compare`."""

    reference_collection_id: Late[str] = Field(
        description="Collection to compare with, by name or id.", examples=["suppliers"]
    )
    source_field: Late[str] = Field(
        default="content", description="Dotted path of what is compared of a document.", examples=["supplier"]
    )
    reference_field: Late[str] = Field(
        default="content", description="Dotted path of what it is compared with.", examples=["supplier_id"]
    )
    extraction_mode: Late[Literal["raw", "lines", "labels", "list"]] = Field(
        default="raw",
        description=(
            "The elements of both fields. raw: the text. lines: its lines. labels: names of controls in it (bold, "
            "before a dash, after Click or Configure). list: the field's items."
        ),
        examples=["raw"],
    )
    match_tiers: list[_Tier] = Field(
        default=["exact", "fuzzy"],
        min_length=1,
        description=(
            "Ways to compare, in order; the first that finds a match decides. exact: equal but for case. fuzzy: "
            "matching characters (Ratcliff and Obershelp). semantic: vectors of the reference collection."
        ),
        examples=[["exact", "fuzzy"]],
    )
    fuzzy_threshold: Late[_Share] = Field(default=0.75, description="Lowest score of a fuzzy match.", examples=[0.75])
    semantic_threshold: Late[_Share] = Field(default=0.85, description="Lowest score of a semantic match.")
    visual_threshold: float | None = Field(default=None, description=_VISUAL)
    classifications: list[Classification] = Field(
        default_factory=lambda: list(_CLASSES),
        description=(
            "Labels by score, the first that applies. From 0.95 exact_match, 0.85 close_match, 0.65 partial_match, "
            "else no_match when absent."
        ),
    )
    no_match_label: str = Field(default="no_match", min_length=1, description="Label of what matches nothing.")
    output_mode: Late[Literal["findings", "enrich"]] = Field(
        default="findings",
        description="findings: one document for each element. enrich: the documents, with their findings.",
        examples=["findings"],
    )
    output_field: Late[str] = Field(default="comparison_results", description="Where findings go, with enrich.")
    include_visual_comparison: bool = Field(default=False, description="Only false: there is no tier visual.")
    text_vector_index: Late[str] | None = Field(
        default=None,
        description="Feature of the tier semantic: URI, name or vector index; the collection's first when absent.",
    )
    image_vector_index: str | None = Field(default=None, description=_VISUAL)
    structure_vector_index: str | None = Field(default=None, description=_VISUAL)
    dinov2_weight: float | None = Field(default=None, description=_VISUAL)
    siglip_weight: float | None = Field(default=None, description=_VISUAL)
    reference_limit: Late[_Count] = Field(
        default=200, description="Most reference documents that exact and fuzzy look at, in order of their ids."
    )
    reference_doc_type: Late[str] | None = Field(
        default=None, description="Only reference documents with this doc_type."
    )
    source_location_field: Late[str] = Field(
        default="start_time", description="Dotted path of where a document's text stands; goes into its findings."
    )
    source_doc_type_filter: Late[str] | None = Field(
        default=None, description="Only documents with this doc_type are compared."
    )
    filter_generic_labels: bool = Field(
        default=True, description="Whether labels such as Save and Cancel are left out, with labels."
    )

    @model_validator(mode="after")
    def _not_visual(self) -> Params:
        if self.include_visual_comparison or "visual" in self.match_tiers:
            raise ValueError("there is no tier visual: no extractor of this server makes the vectors it compares")
        return self


@dataclass(frozen=True, slots=True)
class _Match:
    tier: str
    score: float
    text: str | None
    document: Mapping[str, Any]


@dataclass(slots=True)
class _Reference:
    """Elements of the reference documents, and whose each is."""

    texts: list[str]
    documents: list[Mapping[str, Any]]


async def prepare(params: Params, compilation: Compilation) -> CollectionInfo | None:
    """Return the reference collection when its name is no template. Raises NotFoundError, SpecError."""
    if not isinstance(params.reference_collection_id, str):
        return None
    collection = await compilation.find_collection(params.reference_collection_id)
    if "semantic" in params.match_tiers and not (
        params.text_vector_index is not None and not isinstance(params.text_vector_index, str)
    ):
        _feature(collection, params.text_vector_index)
    return collection


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return the findings, or the documents with theirs; a document without the field has none."""
    names = context.names
    collection: CollectionInfo | None = state.plan
    if collection is None:
        collection = await context.find_collection(known(params.reference_collection_id, names))
    field = known(params.source_field, names, "source_field")
    kind = None if params.source_doc_type_filter is None else known(params.source_doc_type_filter, names)
    mode = known(params.extraction_mode, names, "extraction_mode")
    taken = [
        _elements.elements(paths.read(document, field), mode, skip_generic=params.filter_generic_labels)
        if kind is None or document.get("doc_type") == kind
        else []
        for document in state.documents
    ]
    wanted = list(dict.fromkeys(text for texts in taken for text in texts))
    matches = await _matches(wanted, mode, params, collection, context)
    location = known(params.source_location_field, names, "source_location_field")
    made: Documents = []
    enrich = known(params.output_mode, names, "output_mode") == "enrich"
    output = known(params.output_field, names, "output_field")
    for document, texts in zip(state.documents, taken, strict=True):
        findings = [_finding(text, matches.get(text), document, location, params) for text in texts]
        if not enrich:
            own: dict[str, Any] = {name: document[name] for name in _OWN if name in document}
            made += [{**own, **finding} for finding in findings]
        else:
            made.append(paths.write(document, output, findings) if findings else document)
    state.metadata.update(elements=sum(map(len, taken)), matched=sum(text in matches for text in wanted))
    return made


async def _matches(
    wanted: Sequence[str], mode: str, params: Params, collection: CollectionInfo, context: Context
) -> dict[str, _Match]:
    found: dict[str, _Match] = {}
    reference: _Reference | None = None
    for tier in params.match_tiers:
        left = [text for text in wanted if text not in found]
        if not left:
            break
        if tier == "semantic":
            found |= await _semantic(left, params, collection, context)
            continue
        if reference is None:
            reference = await _reference(mode, params, collection, context)
        if tier == "exact":
            equal = {_elements.normal(text): place for place, text in reversed(list(enumerate(reference.texts)))}
            places = {text: (equal[key], 1.0) for text in left if (key := _elements.normal(text)) in equal}
        else:
            least = known(params.fuzzy_threshold, context.names, "fuzzy_threshold")
            places = await asyncio.to_thread(_elements.nearest, left, reference.texts, least)
        found |= {
            text: _Match(tier, score, reference.texts[place], reference.documents[place])
            for text, (place, score) in places.items()
        }
    return found


async def _reference(mode: str, params: Params, collection: CollectionInfo, context: Context) -> _Reference:
    field = known(params.reference_field, context.names, "reference_field")
    documents, more = await search.scan(
        context.vectors,
        context.namespace.vector_collection,
        _inside(params, collection, context),
        limit=known(params.reference_limit, context.names, "reference_limit"),
    )
    if more:
        context.warnings.append(f"cross_compare looks at the first {len(documents)} documents of {collection.name!r}")
    reference = _Reference([], [])
    for document in documents:
        texts = _elements.elements(paths.read(document, field), mode, skip_generic=params.filter_generic_labels)
        reference.texts += texts
        reference.documents += [document] * len(texts)
    return reference


async def _semantic(
    wanted: Sequence[str], params: Params, collection: CollectionInfo, context: Context
) -> dict[str, _Match]:
    name = None if params.text_vector_index is None else known(params.text_vector_index, context.names)
    feature = _feature(collection, name)
    queries = [(feature, (collection,), _queries.Query("text", text)) for text in wanted]
    vectors = await _queries.vectors_of(queries, context)
    least = known(params.semantic_threshold, context.names, "semantic_threshold")
    inside = _inside(params, collection, context)
    jobs = [search.Job(feature.index.name, vector, 1, inside, least) for vector in vectors]
    found = await search.search(context.vectors, context.namespace.vector_collection, jobs)
    field = known(params.reference_field, context.names, "reference_field")
    matches = {}
    for text, hits in zip(wanted, found, strict=True):
        if hits:
            value = _values.present(hits[0].payload, field)
            matched = value if isinstance(value, str) else None
            # Single precision: the same vector may be a hair above 1.
            matches[text] = _Match("semantic", min(1.0, hits[0].score), matched, hits[0].payload)
    return matches


def _inside(params: Params, collection: CollectionInfo, context: Context) -> Any:
    kind = None if params.reference_doc_type is None else known(params.reference_doc_type, context.names)
    return all_of(search.in_collections([collection.id]), None if kind is None else equals("doc_type", kind))


def _feature(collection: CollectionInfo, name: str | None) -> Feature:
    if name is not None and name.startswith("mixpeek://"):
        return features.resolve(name, collection.features)
    for feature in collection.features:
        index = feature.index
        if index.type == "dense" and name in (None, index.name, index.output):
            return feature
    raise SpecError(
        f"the collection {collection.name!r} has no dense feature{'' if name is None else f' {name!r}'}; the tier "
        "semantic needs one",
        code="feature_not_found",
    )


def _finding(
    text: str, match: _Match | None, document: Mapping[str, Any], location: str, params: Params
) -> dict[str, Any]:
    finding: dict[str, Any] = {
        "element_type": "text",
        "source_content": text,
        "source_location": _values.present(document, location),
        "reference_match": None,
        "reference_url": None,
        "reference_document_id": None,
        "match_tier": "none",
        "match_score": 0.0,
        "classification": params.no_match_label,
    }
    if match is not None:
        finding |= {
            "reference_match": match.text,
            "reference_url": next((url for name in _URLS if (url := _values.present(match.document, name))), None),
            "reference_document_id": match.document.get("document_id"),
            "match_tier": match.tier,
            "match_score": match.score,
            "classification": next(
                (item.label for item in params.classifications if match.score >= item.min_score), params.no_match_label
            ),
        }
    # One signal only, so it is the score.
    return {**finding, "confidence": finding["match_score"]}


def _estimate(params: Params, documents: int) -> tuple[int, float, float]:
    return documents, 0.0, 2.0 + 5.0 * documents


STAGE = Stage(
    StageInfo(
        "cross_compare",
        "apply",
        "Compare documents with those of a reference collection, and label how well they match.",
        "git-compare",
        Params,
    ),
    run,
    repeatable=True,
    costly=True,
    prepare=prepare,
    estimate=_estimate,
)
