"""Keep the documents of which a language model says that they meet criteria."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import AliasChoices, Field, model_validator

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.retrieval.late import Late, known
from mixpeek_operator.retrieval.stage import Context, Documents, Stage, State
from mixpeek_operator.retrieval.stages import _language

_SYSTEM = (
    "You judge documents one by one by the criteria you are given. keep is true when a document meets them and false "
    f"when it does not. {_language.DATA}"
)


class Params(_language.ContentParams):
    """Parameters of `llm_filter`."""

    criteria: Late[str] = Field(
        default="",
        validation_alias=AliasChoices("criteria", "prompt"),
        description="What documents are kept, and what not, in words; all are kept when it is empty.",
        examples=["Keep only documents about {{INPUT.query}}."],
    )
    explanation: bool = Field(
        default=False,
        validation_alias=AliasChoices("explanation", "include_reasoning"),
        description="Whether documents get llm_filter: {passed, explanation}.",
        examples=[True],
    )
    batch_size: Late[_language.Batch] = Field(default=10, description="Documents of one call.", examples=[10])
    max_concurrency: Late[_language.Parallel] = Field(default=5, description="Calls at the same time.")

    @model_validator(mode="before")
    @classmethod
    def _text_only(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or "include_media" not in values:
            return values
        if values["include_media"]:
            raise ValueError("include_media is not available: models read the documents' fields only")
        return {key: value for key, value in values.items() if key != "include_media"}


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return the documents that are kept, in the order they came."""
    documents, names = state.documents, context.names
    constant = params.criteria if isinstance(params.criteria, str) else None
    if not documents or (constant is not None and not constant.strip()):
        return documents
    _language.few_enough(documents, "llm_filter")
    caller = _language.Caller("llm_filter", params, state, context)
    texts = await _language.texts(documents, params, context)
    verdict: dict[str, Any] = {"keep": {"type": "boolean"}}
    if params.explanation:
        # Before the verdict, so that the model thinks first.
        verdict = {"explanation": {"type": "string"}, **verdict}
    schema = {"type": "object", "properties": verdict, "required": list(verdict), "additionalProperties": False}

    async def judge(batch: Sequence[tuple[dict[str, Any], str]]) -> Sequence[Any]:
        criteria = [
            f"Criteria: {known(params.criteria, {**names, 'DOC': document}, 'criteria')}" for document, _ in batch
        ]
        answer = await caller.ask(
            _language.with_instructions(criteria, [text for _, text in batch]),
            system=_SYSTEM,
            schema=_language.for_each(len(batch), schema),
        )
        return _language.parts_of(answer.data, len(batch))

    verdicts = await caller.in_batches(
        list(zip(documents, texts, strict=True)),
        known(params.batch_size, names, "batch_size"),
        known(params.max_concurrency, names, "max_concurrency"),
        judge,
    )
    kept = [
        _explained(document, verdict) if params.explanation else document
        for document, verdict in zip(documents, verdicts, strict=True)
        if verdict is not None and verdict["keep"]
    ]
    state.metadata["rejected"] = state.metadata.get("rejected", 0) + len(documents) - len(kept)
    return kept


def _explained(document: dict[str, Any], verdict: Mapping[str, Any]) -> dict[str, Any]:
    return {**document, "llm_filter": {"passed": True, "explanation": verdict["explanation"]}}


def _estimate(params: Params, documents: int) -> tuple[int, float, float]:
    size = params.batch_size if isinstance(params.batch_size, int) else 10
    return (documents + 1) // 2, *_language.cost(documents, -(-documents // size))


STAGE = Stage(
    StageInfo("llm_filter", "filter", "Keep documents that a language model judges to meet criteria.", "brain", Params),
    run,
    opaque=_language.OPAQUE,
    braces=True,
    by_document=True,
    models=_language.models,
    estimate=_estimate,
)
