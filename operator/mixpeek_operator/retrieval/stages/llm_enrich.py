"""Add to each document what a language model says about it: text, or data that fits a JSON schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from pydantic import AliasChoices, Field, model_validator

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.core.filters import matches
from mixpeek_operator.retrieval import paths
from mixpeek_operator.retrieval.late import Late, LateFilter, known
from mixpeek_operator.retrieval.stage import Context, Documents, Stage, State
from mixpeek_operator.retrieval.stages import _language

_SYSTEM = f"You do what you are asked for each document. {_language.DATA}"


class Params(_language.ContentParams):
    """Parameters of `llm_enrich`."""

    prompt: Late[_language.Words] = Field(
        description="What is asked of each document; it may hold templates of DOC and INPUT.",
        examples=["Name the main topic of this document."],
    )
    output_field: Late[str] = Field(
        default="extracted", description="Dotted path where the answer goes.", examples=["analysis"]
    )
    output_schema: dict[str, Any] | None = Field(
        default=None,
        validation_alias=AliasChoices("output_schema", "schema"),
        description="JSON schema of the answer, which is checked against it; text when absent.",
        examples=[{"type": "object", "properties": {"topic": {"type": "string"}}, "required": ["topic"]}],
    )
    batch_size: Late[_language.Batch] = Field(default=5, description="Documents of one call.", examples=[5])
    max_concurrency: Late[_language.Parallel] = Field(default=5, description="Calls at the same time.")
    max_tokens: Late[_language.OutputTokens] | None = Field(
        default=None, description="Most tokens of one answer, for all documents of its call; 4096 when absent."
    )
    when: LateFilter | None = Field(
        default=None, description="Only documents that satisfy this filter are enriched; others pass unchanged."
    )

    @model_validator(mode="after")
    def _check_schema(self) -> Params:
        _language.checked_schema(self.output_schema)
        return self


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return the documents in order, each with its answer."""
    names = context.names
    chosen = [
        params.when is None or matches(params.when.value({**names, "DOC": document}), document)
        for document in state.documents
    ]
    wanted = [document for document, applies in zip(state.documents, chosen, strict=True) if applies]
    if not wanted:
        return state.documents
    _language.few_enough(wanted, "llm_enrich")
    caller = _language.Caller("llm_enrich", params, state, context)
    texts = await _language.texts(wanted, params, context)
    most = None if params.max_tokens is None else known(params.max_tokens, names, "max_tokens")
    checked = _language.checked_schema(params.output_schema)
    schema = None if checked is None else checked.body

    async def enrich(batch: Sequence[tuple[dict[str, Any], str]]) -> Sequence[Any]:
        prompts = [known(params.prompt, {**names, "DOC": document}, "prompt") for document, _ in batch]
        prompt = _language.with_instructions(prompts, [text for _, text in batch])
        if len(batch) == 1:
            answer = await caller.ask(prompt, system=_SYSTEM, schema=schema, max_tokens=most)
            return [answer.text if schema is None else answer.data]
        each = _language.for_each(len(batch), {"type": "string"} if schema is None else schema)
        answer = await caller.ask(prompt, system=_SYSTEM, schema=each, max_tokens=most)
        return _language.parts_of(answer.data, len(batch))

    # A reference inside a schema would not lead to the same place in the schema of a batch.
    alone = schema is not None and b'"$ref"' in orjson.dumps(schema)
    made = iter(
        await caller.in_batches(
            list(zip(wanted, texts, strict=True)),
            1 if alone else known(params.batch_size, names, "batch_size"),
            known(params.max_concurrency, names, "max_concurrency"),
            enrich,
        )
    )
    output = known(params.output_field, names, "output_field")
    result: Documents = []
    for document, applies in zip(state.documents, chosen, strict=True):
        value = next(made) if applies else None
        result.append(document if value is None else paths.write(document, output, value))
    return result


def _writes(params: Params) -> tuple[str, ...]:
    """Where the answers go, when it is known which field they are made of."""
    constant = isinstance(params.output_field, str) and isinstance(params.content_field, str)
    return (str(params.output_field),) if constant and params.reads_one_field else ()


def _estimate(params: Params, documents: int) -> tuple[int, float, float]:
    size = params.batch_size if isinstance(params.batch_size, int) else 5
    return documents, *_language.cost(2 * documents, -(-documents // size))


STAGE = Stage(
    StageInfo(
        "llm_enrich",
        "enrich",
        "Add fields that a language model makes of each document, as text or by a JSON schema.",
        "sparkles",
        Params,
    ),
    run,
    opaque=_language.OPAQUE,
    braces=True,
    by_document=True,
    writes=_writes,
    reads=lambda params: (str(params.content_field),),
    models=_language.models,
    estimate=_estimate,
)
