"""A language model searches: it calls other stages as tools, looks at what they find, and decides what comes next."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import Field, model_validator

from mixpeek_operator.core import registry
from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.core.errors import BadRequestError, SpecError
from mixpeek_operator.ports.language import Tool
from mixpeek_operator.retrieval import stages as package
from mixpeek_operator.retrieval import tokens
from mixpeek_operator.retrieval.declaration import declare
from mixpeek_operator.retrieval.late import Late, holds_template, known
from mixpeek_operator.retrieval.pagination import Order
from mixpeek_operator.retrieval.stage import Compilation, Context, Documents, Stage, State
from mixpeek_operator.retrieval.stages import _agent, _language

_Iterations = Annotated[int, Field(ge=1, le=20)]
_Seconds = Annotated[float, Field(ge=5, le=300, allow_inf_nan=False)]
_SHOWN: Final = 10
_SHOWN_TOKENS: Final = 120
_REQUEST_TOKENS: Final = 4000

_TEXT: Final = {"type": "string"}
_COUNT: Final = {"type": "integer", "minimum": 1}
_ARGUMENTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "llm_filter": {"criteria": _TEXT},
    "llm_enrich": {"prompt": _TEXT, "output_field": _TEXT},
    "rerank": {"query": _TEXT, "top_n": _COUNT},
    "taxonomy_enrich": {"taxonomy_id": _TEXT},
    "sort_attribute": {"sort_field": _TEXT, "order": {"enum": ["asc", "desc"]}},
    "deduplicate": {"fields": {"type": "array", "items": _TEXT, "minItems": 1}},
    "limit": {"limit": _COUNT},
}
"""What the model chooses of a stage; the rest is left as it is by default."""
_OPTIONAL: Final = ("order", "top_n")

_COMMON: Final = (
    "You search a collection of documents with the tools you have. Each tool works on the current results and replaces "
    "them; what the results are when you stop calling tools is what the user gets, so stop as soon as they answer the "
    f"request, with a word on why. Never ask the user. {_language.DATA}"
)
_STRATEGIES: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "iterative_refinement": (
        ("feature_search", "attribute_filter"),
        "Search broadly first. Then look at what came, and narrow it: filter by fields you see in the results, or "
        "search again with better words.",
    ),
    "multi_hop": (
        ("feature_search", "attribute_filter", "llm_filter"),
        "The request needs facts from several documents that lead to each other. Search for the first one, read in the "
        "results what it points to (names, ids, references), search for that with keep_results, and so on until the "
        "chain is complete.",
    ),
    "tree_navigation": (
        ("feature_search", "attribute_filter"),
        "The documents form a hierarchy. Find the best match at the top first, read the field that leads to its "
        "children (a parent id, a path, a level), filter all documents by it, and go down level by level until the "
        "results are as specific as the request.",
    ),
    "custom": ((), "Use the tools as the request needs."),
}


class Params(_language.LanguageParams):
    """Parameters of `agent_search`."""

    strategy: Literal["iterative_refinement", "multi_hop", "tree_navigation", "custom"] = Field(
        default="iterative_refinement",
        description=(
            "How the model goes about it. iterative_refinement: search, then narrow. multi_hop: follow references "
            "from document to document. tree_navigation: down a hierarchy. custom: by system_prompt and stages."
        ),
        examples=["iterative_refinement"],
    )
    stages: list[str] | None = Field(
        default=None,
        min_length=1,
        max_length=20,
        description="Stages that the model may call as tools; those of the strategy when absent.",
        examples=[["feature_search", "attribute_filter"]],
    )
    system_prompt: Late[str] | None = Field(
        default=None, description="What the model is told of its task, instead of the strategy's own words."
    )
    max_iterations: Late[_Iterations] = Field(
        default=5, description="Most turns of the model; each may call several tools.", examples=[3]
    )
    timeout_seconds: Late[_Seconds] = Field(
        default=60.0, description="Seconds after which what was found so far is returned.", examples=[30.0]
    )

    @property
    def tools(self) -> tuple[str, ...]:
        """The stages that the model may call."""
        return tuple(self.stages) if self.stages is not None else _STRATEGIES[self.strategy][0]

    @model_validator(mode="after")
    def _known_stages(self) -> Params:
        unknown = [name for name in self.tools if name not in _offered()]
        if unknown:
            raise ValueError(f"no tools: {', '.join(unknown)}; stages that can be are {', '.join(sorted(_offered()))}")
        if self.strategy == "custom" and (self.stages is None or self.system_prompt is None):
            raise ValueError("the strategy custom needs stages and system_prompt")
        return self


@cache
def _offered() -> dict[str, Stage]:
    """The stages that can be tools: those that leave neither the machine nor what the retriever's author allowed."""
    found = registry.discover(package, "STAGE", Stage)
    return {name: found[name] for name in (*_ARGUMENTS, "feature_search", "attribute_filter") if name in found}


class _Search:
    """One run: the documents that are found so far, and the tools that change them."""

    def __init__(self, state: State, params: Params, context: Context) -> None:
        self.state, self.params, self.context = state, params, context
        self.results: Documents = list(state.documents)
        features = [feature for collection in context.collections for feature in collection.features]
        self.uris = list(dict.fromkeys(feature.uri for feature in features))

    def tools(self) -> list[Tool]:
        """What the model may call, with the parameters it is to choose."""
        return [self._tool(name) for name in self.params.tools]

    def _tool(self, name: str) -> Tool:
        stage = _offered()[name]
        if name == "feature_search":
            properties: dict[str, Any] = {
                "query": {"type": "string", "description": "What to look for, in words."},
                "top_k": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": 100,
                    "description": "Most documents; 10.",
                },
                "keep_results": {"type": "boolean", "description": "Add to the current results, not replace them."},
            }
            if len(self.uris) > 1:
                properties["feature_uri"] = {"enum": self.uris, "description": "Feature to search by."}
            return _as_tool(name, stage.info.description, properties, ["query"])
        if name == "attribute_filter":
            operators = ["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "contains", "exists"]
            properties = {
                "field": {"type": "string", "description": "Dotted path of a field."},
                "operator": {"enum": operators},
                "value": {"description": "What to compare with; a list with in and nin."},
                "of": {"enum": ["results", "all"], "description": "What is filtered: the results, or all documents."},
            }
            return _as_tool(name, stage.info.description, properties, ["field", "operator", "value"])
        chosen = _ARGUMENTS[name]
        return _as_tool(name, stage.info.description, chosen, [key for key in chosen if key not in _OPTIONAL])

    async def perform(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Run a stage with what the model chose; the results are then what it made."""
        given = {key: value for key, value in arguments.items() if value is not None}
        keep, everything = given.pop("keep_results", False), given.pop("of", "results") == "all"
        if name == "feature_search":
            given = self._search(given)
        elif name in ("llm_filter", "llm_enrich"):
            own = self.params.model_dump(include={"model", "provider", "api_key", "secret_ref"}, exclude_none=True)
            given |= own
        # A model's words are values, never templates.
        if holds_template(dict(arguments), braces=True):
            raise BadRequestError("arguments may not hold templates in braces")
        finds = name == "feature_search" or (name == "attribute_filter" and everything)
        before = self.results
        found = await self._run(name, given, finds=finds)
        if keep:
            seen = {document.get("document_id") for document in before}
            found = before + [document for document in found if document.get("document_id") not in seen]
        self.results = found
        return self._told()

    def _search(self, given: Mapping[str, Any]) -> dict[str, Any]:
        if not self.uris:
            raise BadRequestError("the collections have no feature to search by")
        top_k = given.get("top_k", 10)
        one = {"feature_uri": given.get("feature_uri", self.uris[0]), "query": given["query"], "top_k": top_k}
        return {"searches": [one], "final_top_k": top_k}

    async def _run(self, name: str, parameters: Mapping[str, Any], *, finds: bool) -> Documents:
        declared, problems = declare(_offered()[name], {"stage_id": name, "parameters": parameters}, 0)
        if declared is None:
            raise SpecError.of(problems)
        stage, context = declared.stage, self.context
        plan = None
        if stage.prepare is not None:
            compilation = Compilation(context.namespace, context.collections, context.find_collection)
            plan = await stage.prepare(declared.params, compilation)
        # A search looks where the stage itself does: in the collections, or in what came before it.
        documents = self.state.documents if finds else self.results
        inner = State(documents, first=finds and self.state.first, filters=self.state.filters, plan=plan)
        credits = self.state.credits
        try:
            return await stage.run(inner, declared.params, context)
        finally:
            self.state.credits = credits + inner.credits

    def _told(self) -> str:
        shown = [
            {
                "document_id": document.get("document_id"),
                "score": document.get("score"),
                "content": _language.text_of(document, "content", _SHOWN_TOKENS),
            }
            for document in self.results[:_SHOWN]
        ]
        told = {"count": len(self.results), "first": shown}
        return orjson.dumps(told, default=str).decode()


async def prepare(params: Params, compilation: Compilation) -> None:
    """Check that there is something to search. Raises SpecError."""
    if "feature_search" in params.tools and not any(item.features for item in compilation.collections):
        raise SpecError("agent_search: the collections have no feature to search by", code="feature_not_found")


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return the results of the last tool; those so far when time, turns or credits are over."""
    names = context.names
    caller = _language.Caller("agent_search", params, state, context)
    search = _Search(state, params, context)
    words = _STRATEGIES[params.strategy][1]
    if params.system_prompt is not None:
        words = known(params.system_prompt, names, "system_prompt")
    request = tokens.start(orjson.dumps(dict(names["INPUT"]), default=str).decode(), _REQUEST_TOKENS)
    conversation = _agent.Conversation()
    turns = known(params.max_iterations, names, "max_iterations")
    timed_out = False
    try:
        async with asyncio.timeout(known(params.timeout_seconds, names, "timeout_seconds")) as limit:
            await _agent.converse(
                conversation,
                caller,
                f"The request: {request}",
                system=f"{words}\n{_COMMON}",
                tools=search.tools(),
                perform=search.perform,
                max_turns=turns,
            )
    except TimeoutError:
        if not limit.expired():
            raise
        timed_out = True
    if conversation.answer is None:
        reason = "the time is over" if timed_out else "the turns or credits are used up"
        context.warnings.append(f"agent_search: {reason}; these are the results so far")
    state.metadata.update(
        strategy=params.strategy,
        iterations_used=conversation.turns,
        timeout_hit=timed_out,
        stages_invoked=conversation.calls,
        model_used=caller.model,
        total_llm_cost=round(caller.usage.credits, 6),
    )
    if conversation.answer is not None and conversation.answer.text:
        state.metadata["conclusion"] = conversation.answer.text[:2000]
    return search.results


def _as_tool(name: str, description: str, properties: Mapping[str, Any], required: Sequence[str]) -> Tool:
    schema = {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
    return Tool(name, description, schema)


def _order(params: Params, names: Mapping[str, Any]) -> Order:
    return Order()


def _estimate(params: Params, documents: int) -> tuple[int, float, float]:
    turns = params.max_iterations if isinstance(params.max_iterations, int) else 5
    credits, milliseconds = _language.cost(10 * turns, turns)
    return min(documents, 10), credits + turns, milliseconds


STAGE = Stage(
    StageInfo(
        "agent_search",
        "filter",
        "Let a language model search step by step, with other stages as its tools.",
        "bot",
        Params,
    ),
    run,
    source=True,
    prepare=prepare,
    order=_order,
    opaque=_language.OPAQUE,
    braces=True,
    models=_language.models,
    estimate=_estimate,
)
