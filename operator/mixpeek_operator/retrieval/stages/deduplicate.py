"""Keep one of documents that are the same: by fields, by their text or by their vectors."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.retrieval import embeddings, paths
from mixpeek_operator.retrieval.late import Late, known
from mixpeek_operator.retrieval.stage import Compilation, Context, Documents, Stage, StageParams, State
from mixpeek_operator.retrieval.stages import _near, _values

_Threshold = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class Params(StageParams):
    """Parameters of `deduplicate`."""

    strategy: Literal["field", "content", "embedding"] = Field(
        default="field",
        description=(
            "field: equal values of all `fields`. content: texts that share most of their sequences of three "
            "characters (Jaccard similarity). embedding: vectors of nearly the same direction (cosine)."
        ),
        examples=["field"],
    )
    fields: Late[list[str]] | None = Field(
        default=None,
        description="Dotted paths of the fields that make a duplicate, with strategy field; a missing one is null.",
        examples=[["category"]],
    )
    content_field: Late[str] = Field(
        default="content",
        description="Dotted path of the text, with strategy content; documents without text all stay.",
        examples=["title"],
    )
    similarity_threshold: Late[_Threshold] = Field(
        default=0.95, description="From which similarity on documents are duplicates.", examples=[0.95]
    )
    keep: Late[Literal["first", "last"]] = Field(
        default="first", description="Which of the duplicates stays.", examples=["first"]
    )
    case_sensitive: Late[bool] = Field(
        default=True, description="Whether texts that differ only in case differ.", examples=[True]
    )
    embedding_field: Late[str] | None = Field(default=None, description=embeddings.FIELD)

    @model_validator(mode="after")
    def _needs_fields(self) -> Params:
        if self.strategy == "field" and not self.fields:
            raise ValueError("strategy field needs fields: the paths that make a duplicate")
        return self


async def prepare(params: Params, compilation: Compilation) -> None:
    """Check what can be checked before documents are there. Raises SpecError, NotEnabledError."""
    if params.strategy == "embedding":
        embeddings.check(params.embedding_field, compilation)


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return the documents without duplicates of the one that stays; their order stays."""
    last = known(params.keep, context.names, "keep") == "last"
    documents = state.documents[::-1] if last else state.documents
    if params.strategy == "field":
        unlike = _by_fields(documents, params, context)
    elif params.strategy == "content":
        unlike = await _by_content(documents, params, context)
    else:
        found = await embeddings.of(documents, params.embedding_field, context, "deduplicate")
        threshold = known(params.similarity_threshold, context.names, "similarity_threshold")
        unlike = await asyncio.to_thread(_near.unlike_vectors, found.unit(), found.known, threshold)
    kept = [document for document, stays in zip(documents, unlike, strict=True) if stays]
    state.metadata.update(strategy=params.strategy, removed_count=len(documents) - len(kept))
    return kept[::-1] if last else kept


def _by_fields(documents: Documents, params: Params, context: Context) -> list[bool]:
    fields = known(params.fields or [], context.names, "fields")
    fold = not known(params.case_sensitive, context.names, "case_sensitive")
    seen: set[bytes] = set()
    unlike = []
    for document in documents:
        key = _values.mark([_values.present(document, field) for field in fields], fold=fold)
        unlike.append(key not in seen)
        seen.add(key)
    return unlike


async def _by_content(documents: Documents, params: Params, context: Context) -> list[bool]:
    field = known(params.content_field, context.names, "content_field")
    fold = not known(params.case_sensitive, context.names, "case_sensitive")
    threshold = known(params.similarity_threshold, context.names, "similarity_threshold")
    found = [paths.read(document, field) for document in documents]

    def compare() -> list[bool]:
        texts = [_near.trigrams(text, fold=fold) if isinstance(text, str) else None for text in found]
        return _near.unlike_texts(texts, threshold)

    return await asyncio.to_thread(compare)


def _estimate(params: Params, documents: int) -> tuple[int, float, float]:
    return documents, 0.0, (0.005 if params.strategy == "field" else 0.5) * documents


STAGE = Stage(
    StageInfo(
        "deduplicate", "reduce", "Keep one of documents that are the same, or nearly the same.", "copy-minus", Params
    ),
    run,
    repeatable=True,
    prepare=prepare,
    estimate=_estimate,
)
