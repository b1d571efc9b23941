"""Classify documents by a language model that looks things up first: a taxonomy, examples, a second opinion."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import Field, model_validator

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.core.errors import BadRequestError, RefusedError
from mixpeek_operator.core.filters import equals, matches
from mixpeek_operator.ports.language import ModelChoice, Tool
from mixpeek_operator.retrieval import paths, search
from mixpeek_operator.retrieval.late import Late, LateFilter, known
from mixpeek_operator.retrieval.stage import Compilation, Context, Documents, Stage, State
from mixpeek_operator.retrieval.stages import _agent, _language

_Turns = Annotated[int, Field(ge=1, le=20)]
_Seconds = Annotated[float, Field(ge=5, le=300, allow_inf_nan=False)]
_AtOnce = Annotated[int, Field(ge=1, le=5)]
_MOST: Final = 50
"""Documents of one execution."""
_TOKENS: Final = 6000
_CATEGORIES: Final = 200
_CATEGORY_TOKENS: Final = 60
_EXAMPLE_TOKENS: Final = 200
_TOOLS: Final = ("get_taxonomy_categories", "query_examples", "analyze_content")
_ToolName = Literal["get_taxonomy_categories", "query_examples", "analyze_content"]
_TEXT: Final = {"type": "string"}


class Params(_language.LanguageParams):
    """Parameters of `agentic_enrich`."""

    system_prompt: Late[_language.Words] = Field(
        description="What the model is to find out about each document; it may hold templates of DOC and INPUT.",
        examples=["Classify the document by its main topic and say how sure you are."],
    )
    output_schema: dict[str, Any] = Field(
        description="JSON schema of the answer, which is checked against it.",
        examples=[{"type": "object", "properties": {"topic": {"type": "string"}}, "required": ["topic"]}],
    )
    output_field: Late[str] = Field(
        default="metadata.classification",
        description="Dotted path where the answer goes; null when there was none in time, with a warning.",
        examples=["classification"],
    )
    taxonomy_id: str | None = Field(
        default=None, description="Taxonomy, by name or id, whose categories the model may read."
    )
    example_collection_ids: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Collections of classified documents, by name or id, that the model may search.",
    )
    analysis_provider: dict[str, Any] | None = Field(
        default=None,
        description=(
            "Model that is asked for a second opinion on the content: {provider, model_name, api_key}; the same one "
            "when absent."
        ),
        examples=[None],
    )
    enabled_tools: list[_ToolName] | None = Field(
        default=None, description="Tools of the model; all those that the other parameters make possible when absent."
    )
    max_turns: Late[_Turns] = Field(default=8, description="Most turns of the model for each document.", examples=[3])
    timeout_seconds: Late[_Seconds] = Field(default=60.0, description="Seconds for each document.", examples=[30.0])
    max_concurrency: Late[_AtOnce] = Field(default=2, description="Documents at the same time.", examples=[2])
    when: LateFilter | None = Field(
        default=None, description="Only documents that satisfy this filter are enriched; others pass unchanged."
    )

    @property
    def analyst(self) -> ModelChoice:
        """The model of analyze_content."""
        if self.analysis_provider is None:
            return self.choice
        return _language.LanguageParams.model_validate(self.analysis_provider).choice

    @property
    def tools(self) -> tuple[str, ...]:
        """The tools that the model has."""
        if self.enabled_tools is not None:
            return tuple(self.enabled_tools)
        possible = {"get_taxonomy_categories": self.taxonomy_id, "query_examples": self.example_collection_ids}
        return tuple(name for name in _TOOLS if possible.get(name, True))

    @model_validator(mode="after")
    def _check(self) -> Params:
        _language.checked_schema(self.output_schema)
        # Its own problems are found when it is declared, as those of the other parameters.
        _ = self.analyst
        if "get_taxonomy_categories" in self.tools and self.taxonomy_id is None:
            raise ValueError("get_taxonomy_categories needs taxonomy_id")
        if "query_examples" in self.tools and self.example_collection_ids is None:
            raise ValueError("query_examples needs example_collection_ids")
        return self


async def prepare(params: Params, compilation: Compilation) -> None:
    """Check that the collections of examples are there. Raises NotFoundError."""
    for identifier in params.example_collection_ids or ():
        await compilation.find_collection(identifier)


class _Tools:
    """What the model may look up while it thinks about one document."""

    def __init__(self, document: dict[str, Any], caller: _language.Caller, params: Params, context: Context) -> None:
        self.document, self.caller, self.params, self.context = document, caller, params, context

    def offered(self) -> list[Tool]:
        """The tools as the model sees them."""
        known_tools = {
            "get_taxonomy_categories": Tool(
                "get_taxonomy_categories", "Lists the categories of the taxonomy, level by level.", _object({}, [])
            ),
            "query_examples": Tool(
                "query_examples",
                "Finds documents that were classified before and are like the query.",
                _object(
                    {
                        "query": _TEXT,
                        "limit": {"type": "integer", "minimum": 1, "maximum": 20},
                        "label_field": {**_TEXT, "description": "Dotted path of a label, to see one label only."},
                        "label": _TEXT,
                    },
                    ["query"],
                ),
            ),
            "analyze_content": Tool(
                "analyze_content",
                "Asks another model about the document's content.",
                _object({"instruction": _TEXT}, ["instruction"]),
            ),
        }
        return [known_tools[name] for name in self.params.tools]

    async def perform(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Run a tool."""
        if name == "get_taxonomy_categories":
            return await self._categories()
        if name == "query_examples":
            return await self._examples(arguments)
        text = _language.text_of(self.document, None, _TOKENS)
        answer = await self.caller.ask(
            f"{arguments['instruction']}\n\n{_language.as_document(text)}",
            system=_language.DATA,
            choice=self.params.analyst,
        )
        return answer.text

    async def _categories(self) -> str:
        assert self.params.taxonomy_id is not None
        taxonomy = await self.context.find_taxonomy(self.params.taxonomy_id)
        levels = []
        for level in taxonomy.levels:
            documents, more = await search.scan(
                self.context.vectors,
                self.context.namespace.vector_collection,
                equals("collection_id", level.collection_id),
                limit=_CATEGORIES,
            )
            levels.append(
                {
                    "level": level.name,
                    "categories": [_language.text_of(item, None, _CATEGORY_TOKENS) for item in documents],
                    "complete": not more,
                }
            )
        return orjson.dumps(levels).decode()

    async def _examples(self, arguments: Mapping[str, Any]) -> str:
        identifiers = self.params.example_collection_ids or []
        collections = [await self.context.find_collection(identifier) for identifier in identifiers]
        uri = next((item.uri for found in collections for item in found.features if item.index.type == "dense"), None)
        if uri is None:
            raise BadRequestError("the collections of examples have no feature to search by")
        limit = arguments.get("limit", 5)
        field, label = arguments.get("label_field"), arguments.get("label")
        found = await self.context.nested(
            {
                "collection_identifiers": [item.id for item in collections],
                "stages": [
                    {
                        "stage_id": "feature_search",
                        "parameters": {
                            "searches": [{"feature_uri": uri, "query": "{{INPUT.query}}", "top_k": limit}],
                            "final_top_k": limit,
                        },
                    }
                ],
            },
            {"query": arguments["query"]},
            filter=equals(field, label) if field and label else None,
            limit=limit,
        )
        return orjson.dumps([_language.text_of(item, None, _EXAMPLE_TOKENS) for item in found]).decode()


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return the documents in order, each with its answer."""
    names = context.names
    chosen = [
        params.when is None or matches(params.when.value({**names, "DOC": document}), document)
        for document in state.documents
    ]
    wanted = [document for document, applies in zip(state.documents, chosen, strict=True) if applies]
    _language.few_enough(wanted, "agentic_enrich", _MOST)
    caller = _language.Caller("agentic_enrich", params, state, context)
    output = known(params.output_field, names, "output_field")
    traces: list[dict[str, Any]] = []

    async def enrich(batch: Sequence[dict[str, Any]]) -> Sequence[Any]:
        conversation = _agent.Conversation()
        value = await _classified(batch[0], conversation, caller, params, context)
        trace = {"document_id": batch[0].get("document_id"), "turns": conversation.turns}
        traces.append({**trace, "calls": conversation.calls})
        return [paths.write(batch[0], output, value)]

    at_once = known(params.max_concurrency, names, "max_concurrency")
    made = iter(await caller.in_batches(wanted, 1, at_once, enrich))
    enriched = [next(made) if applies else None for applies in chosen]
    told = state.metadata
    told["documents_enriched"] = told.get("documents_enriched", 0) + sum(item is not None for item in enriched)
    told["documents_skipped"] = told.get("documents_skipped", 0) + chosen.count(False)
    told["conditional"] = params.when is not None
    told["total_cost"] = told.get("credits", 0.0)
    told["total_tokens_input"], told["total_tokens_output"] = told.get("input_tokens", 0), told.get("output_tokens", 0)
    told["reasoning_traces"] = [*told.get("reasoning_traces", ()), *traces]
    return [new or old for new, old in zip(enriched, state.documents, strict=True)]


async def _classified(
    document: dict[str, Any],
    conversation: _agent.Conversation,
    caller: _language.Caller,
    params: Params,
    context: Context,
) -> Any:
    """What the model says of a document; None, with a warning, when it came to no answer."""
    names = {**context.names, "DOC": document}
    tools = _Tools(document, caller, params, context)
    checked = _language.checked_schema(params.output_schema)
    assert checked is not None
    reason = "the turns are used up"
    try:
        async with asyncio.timeout(known(params.timeout_seconds, names, "timeout_seconds")) as limit:
            await _agent.converse(
                conversation,
                caller,
                _language.as_document(_language.text_of(document, None, _TOKENS)),
                system=f"{known(params.system_prompt, names, 'system_prompt')}\n{_language.DATA}",
                tools=tools.offered(),
                perform=tools.perform,
                max_turns=known(params.max_turns, names, "max_turns"),
                schema=checked.body,
            )
    except TimeoutError:
        if not limit.expired():
            raise
        reason = "the time is over"
    except RefusedError as error:
        if error.code != "model_answer_invalid":
            raise
        reason = error.message
    if conversation.answer is not None:
        return conversation.answer.data
    context.warnings.append(f"agentic_enrich: no answer for {document.get('document_id')}: {reason}")
    return None


def _object(properties: Mapping[str, Any], required: Sequence[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _models(params: Params) -> tuple[ModelChoice, ...]:
    return (params.choice, params.analyst) if "analyze_content" in params.tools else (params.choice,)


def _estimate(params: Params, documents: int) -> tuple[int, float, float]:
    turns = params.max_turns if isinstance(params.max_turns, int) else 8
    return documents, *_language.cost(documents * turns, documents * turns / 2)


STAGE = Stage(
    StageInfo(
        "agentic_enrich",
        "enrich",
        "Classify documents by a language model that can look up a taxonomy, examples and another model's opinion.",
        "brain-circuit",
        Params,
    ),
    run,
    prepare=prepare,
    opaque=_language.OPAQUE | {"analysis_provider"},
    braces=True,
    by_document=True,
    models=_models,
    estimate=_estimate,
)
