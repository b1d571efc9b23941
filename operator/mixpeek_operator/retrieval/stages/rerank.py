"""Order documents anew by a model that judges each text against the query."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Final

from pydantic import AliasChoices, Field

from mixpeek_operator.core.catalog import Need, StageInfo
from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.extraction.models.registry import DEFAULT
from mixpeek_operator.ports.inference import Scores
from mixpeek_operator.retrieval import calling, paths
from mixpeek_operator.retrieval.late import Late, known
from mixpeek_operator.retrieval.stage import Context, Documents, Stage, StageParams, State
from mixpeek_operator.retrieval.stages import _hosted_rerank, _stored_scores

_TEXTS: Final = ("content", "text", "description", "title")
_Count = Annotated[int, Field(ge=1, le=10_000)]
_Candidates = Annotated[int, Field(ge=1, le=1000)]
_Characters = Annotated[int, Field(ge=100, le=50_000)]
_BatchSize = Annotated[int, Field(ge=1, le=1000)]
_AtOnce = Annotated[int, Field(ge=1, le=10)]
_Milliseconds = Annotated[int, Field(ge=1, le=600_000)]


class Params(StageParams):
    """Parameters of `rerank`; `inference_name`, `top_k` and `content_field` are accepted as well."""

    model: Late[str] = Field(
        default=DEFAULT,
        validation_alias=AliasChoices("model", "inference_name"),
        description=(
            "What scores: a cross-encoder by the name of its folder in MIXPEEK_MODEL_PATH or on the hub "
            f"(bge-reranker-v2-m3), a hosted one ({_hosted_rerank.NAMES}), or an embedding model, whose score is the "
            "cosine of the vectors of query and text; a stored vector is used while the text is what it was made of. "
            "`default` is the server's embedding model, since no "
            "cross-encoder comes with a package; a warning and the statistics say so."
        ),
        examples=[DEFAULT],
    )
    top_n: Late[_Count] = Field(
        default=10,
        validation_alias=AliasChoices("top_n", "top_k"),
        description="Most documents to keep.",
        examples=[10],
    )
    query: Late[str] = Field(
        default="{{INPUT.query}}",
        validate_default=True,
        description="What the documents are judged by.",
        examples=["a lamp for reading"],
    )
    document_field: Late[str] | None = Field(
        default=None,
        validation_alias=AliasChoices("document_field", "content_field"),
        description=(
            "Dotted path of a document's text; when absent, or `content`, the first there is of content, text, "
            "description and title. A document without text comes after all others."
        ),
        examples=["title"],
    )
    max_candidates: Late[_Candidates] = Field(
        default=1000,
        description="Most documents that are scored, the first; the others follow them in their order.",
        examples=[100],
    )
    max_document_chars: Late[_Characters] = Field(
        default=2000, description="Characters of a text that the model gets.", examples=[2000]
    )
    secret_ref: str | None = Field(
        default=None,
        description=(
            "Secret of the organization with the key of a hosted reranker; cohere_api_key, jina_api_key or "
            "voyage_api_key when absent."
        ),
    )
    base_url: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description=(
            "Another server of a hosted reranker: it is sent POST <base_url>/rerank as Jina's, or as Cohere's or "
            "Voyage's when the model begins so."
        ),
    )
    batch_size: Late[_BatchSize] = Field(default=100, description="Most texts in one call of a hosted reranker.")
    max_concurrent_batches: Late[_AtOnce] = Field(
        default=3, description="Most such calls under way at a time.", examples=[3]
    )
    score_field: str | None = Field(default=None, description="Dotted path where the score goes besides `score`.")
    hard_timeout_ms: Late[_Milliseconds] | None = Field(
        default=None,
        description="Milliseconds after which the documents are returned in the order they came, with a warning.",
    )


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return the best documents with `score`, `original_score` and `rerank_position`; equal scores keep their order.

    Raises SpecError without a query, and what the model raises.
    """
    names = context.names
    count = known(params.top_n, names, "top_n")
    if not state.documents:
        return []
    model = known(params.model, names, "model")
    field = None if params.document_field is None else known(params.document_field, names, "document_field")
    candidates = state.documents[: known(params.max_candidates, names, "max_candidates")]
    texts = [_text(document, field) for document in candidates]
    spoken = [position for position, text in enumerate(texts) if text]
    timeout_ms = None if params.hard_timeout_ms is None else known(params.hard_timeout_ms, names, "hard_timeout_ms")
    try:
        async with asyncio.timeout(None if timeout_ms is None else timeout_ms / 1000):
            judged = [candidates[position] for position in spoken]
            scores = await _scores(model, judged, [texts[position] for position in spoken], params, state, context)
    except TimeoutError:
        if timeout_ms is None:
            raise
        context.warnings.append(f"rerank: {model} took longer than {timeout_ms} ms; documents are in the order before")
        state.metadata.update(model=model, timed_out=True)
        return state.documents[:count]
    if len(spoken) < len(texts):
        context.warnings.append(f"rerank: {len(texts) - len(spoken)} of {len(texts)} documents have no text")
    if model == DEFAULT and scores.method == "bi_encoder":
        context.warnings.append(
            f"rerank: scored by the embedding model {scores.model}, the default where no cross-encoder is; name one in "
            "`model` for a better order"
        )
    state.metadata.update(model=scores.model, method=scores.method, scored=len(spoken))
    score_of = dict(zip(spoken, scores.values, strict=True))
    ranked = sorted(spoken, key=lambda position: -score_of[position])
    rest = [position for position in range(len(state.documents)) if position not in score_of]
    made = []
    for rank, position in enumerate([*ranked, *rest][:count], start=1):
        made.append(_placed(state.documents[position], rank, score_of.get(position), params.score_field))
    return made


async def _scores(
    model: str, documents: Documents, texts: Sequence[str], params: Params, state: State, context: Context
) -> Scores:
    names, query = context.names, _query(params, context)
    most = known(params.max_document_chars, names, "max_document_chars")
    hosted = _hosted_rerank.find(model, params.base_url)
    if hosted is None:
        found = await _stored_scores.known(model, query, documents, texts, context)
        left = [text[:most] for place, text in enumerate(texts) if place not in found]
        scores = await context.inference.score(model, query, left, namespace_id=context.namespace.id)
        if found:
            state.metadata["by_stored_vectors"] = len(found)
        rest = iter(scores.values)
        values = [found[place] if place in found else next(rest) for place in range(len(texts))]
        return Scores(values, scores.model, scores.method)
    values = await hosted.score(
        query,
        [text[:most] for text in texts],
        context,
        secret_ref=params.secret_ref,
        base_url=params.base_url,
        batch_size=known(params.batch_size, names, "batch_size"),
        at_once=known(params.max_concurrent_batches, names, "max_concurrent_batches"),
    )
    state.credits += _hosted_rerank.CREDITS_PER_TEXT * len(texts)
    return Scores(values, f"{hosted.provider.name}/{hosted.model}", "cross_encoder")


def _query(params: Params, context: Context) -> str:
    query = known(params.query, context.names, "query")
    if not query.strip():
        raise SpecError("rerank has no query; give `query`, as text or as a template of an input", code="query_empty")
    return query


def _text(document: dict[str, Any], field: str | None) -> str:
    # A client library sends `content` for who names no field.
    for path in _TEXTS if field in (None, _TEXTS[0]) else (str(field),):
        value = paths.read(document, path)
        if isinstance(value, str) and value.strip():
            return value
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            return "\n".join(value)
    return ""


def _placed(document: dict[str, Any], rank: int, score: float | None, field: str | None) -> dict[str, Any]:
    original = document.get("score")
    if score is None:
        return {**document, "original_score": original, "rerank_position": rank}
    made = {**document, "score": score, "original_score": original, "rerank_position": rank}
    return made if field is None else paths.write(made, field, score)


def _estimate(params: Params, documents: int) -> tuple[int, float, float]:
    count = params.top_n if isinstance(params.top_n, int) else 10
    hosted = isinstance(params.model, str) and _hosted_rerank.find(params.model, params.base_url) is not None
    return min(count, documents), _hosted_rerank.CREDITS_PER_TEXT * documents * hosted, 10.0 * documents


def _needs(params: Params) -> tuple[Need, ...]:
    """The secret with a hosted model's key: the one that is named, else its provider's."""
    hosted = _hosted_rerank.find(params.model, params.base_url) if isinstance(params.model, str) else None
    if params.secret_ref is None and hosted is not None:
        return calling.named_secret(hosted.provider.secret, "model")
    return calling.named_secret(params.secret_ref, "secret_ref")


def _is_repeatable(params: Params) -> bool:
    """Whether a model of ours scores, and all of it."""
    ours = isinstance(params.model, str) and _hosted_rerank.find(params.model, params.base_url) is None
    return ours and params.hard_timeout_ms is None


STAGE = Stage(
    StageInfo(
        "rerank", "sort", "Order documents by a model that judges each against the query.", "list-ordered", Params
    ),
    run,
    repeatable=_is_repeatable,
    costly=True,
    needs=_needs,
    estimate=_estimate,
)
