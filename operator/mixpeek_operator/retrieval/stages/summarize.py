"""Make one text of many documents, with its sources: a summary or an answer, by a language model."""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import AliasChoices, Field, PrivateAttr, model_validator

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.ports.language import Answer
from mixpeek_operator.retrieval import paths, tokens
from mixpeek_operator.retrieval.late import Late, known
from mixpeek_operator.retrieval.stage import Context, Documents, Stage, State
from mixpeek_operator.retrieval.stages import _language, _values
from mixpeek_operator.retrieval.templating.template import Template, compile_text

_InputTokens = Annotated[int, Field(ge=100, le=1_000_000)]
_TITLES: Final = ("title", "metadata.title", "name")
_OWN: Final = re.compile(r"\{\{\s*(DOCUMENTS|DOC_COUNT|GROUP_VALUE|INDEX)\s*\}\}")
_CITED: Final = re.compile(r"\[(\d{1,4})\]")
_CITE: Final = "Name the documents that a statement rests on by their numbers in brackets, like [1] or [2][3]."


class Params(_language.ContentParams):
    """Parameters of `summarize`."""

    prompt: str = Field(
        default="Summarize these documents.",
        min_length=1,
        description=(
            "What is asked of the documents together. {{DOCUMENTS}} is their place in it (behind it when absent), "
            "{{DOC_COUNT}} their number, {{GROUP_VALUE}} the value they share with group_by."
        ),
        examples=["Answer from these documents: {{INPUT.query}}"],
    )
    mode: Late[Literal["aggregate", "per_document"]] = Field(
        default="aggregate",
        description="aggregate: one document with one text for all. per_document: each document with a text.",
        examples=["aggregate"],
    )
    max_input_tokens: Late[_InputTokens] = Field(
        default=8000,
        description="Most tokens of the documents of one call, estimated as rag_prepare does.",
        examples=[4000],
    )
    truncation_strategy: Late[Literal["drop_last", "truncate_each", "smart"]] = Field(
        default="drop_last",
        description=(
            "What happens when not all fit. drop_last: the first ones whole. truncate_each: an equal share each. "
            "smart: those of the highest score whole."
        ),
    )
    include_citations: Late[bool] = Field(
        default=True,
        validation_alias=AliasChoices("include_citations", "include_sources"),
        description="Whether the text cites its sources as [n], and citations and source_document_ids list them.",
        examples=[True],
    )
    output_field: Late[str] = Field(default="summary", description="Where the text goes.", examples=["summary"])
    output_schema: dict[str, Any] | None = Field(
        default=None, description="JSON schema of the answer, which is checked against it; text when absent."
    )
    document_template: str | None = Field(
        default=None,
        min_length=1,
        description="Template of each document, with {{INDEX}} from 1 and DOC; content_field when absent.",
    )
    group_by: Late[str] | None = Field(
        default=None, description="Dotted path: one text for the documents of each value, with aggregate."
    )
    include_metadata: bool = Field(
        default=True, description="Whether the document of a text has model, tokens_used and document_count."
    )
    max_output_tokens: Late[_language.OutputTokens] = Field(default=1024, description="Most tokens of a text.")
    max_concurrency: Late[_language.Parallel] = Field(default=5, description="Calls at the same time.")
    _prompt: Template = PrivateAttr()
    _template: Template | None = PrivateAttr(default=None)

    @property
    def compiled(self) -> Template:
        """The compiled prompt."""
        return self._prompt

    @property
    def template(self) -> Template | None:
        """The compiled template of a document."""
        return self._template

    def own_templates(self) -> Mapping[str, frozenset[tuple[str, ...]]]:
        """See StageParams."""
        found = {"prompt": self._prompt.paths}
        return found if self._template is None else {**found, "document_template": self._template.paths}

    @model_validator(mode="after")
    def _compile(self) -> Params:
        self._prompt = compile_text(_OWN.sub(r"{{CONTEXT.\1}}", self.prompt), braces=True)
        if self.document_template is not None:
            self._template = compile_text(_OWN.sub(r"{{CONTEXT.\1}}", self.document_template), braces=True)
        _language.checked_schema(self.output_schema)
        return self


@dataclass(frozen=True, slots=True)
class _Source:
    """A document as the model reads it."""

    index: int
    document: dict[str, Any]
    text: str


class _Summary:
    """One run of the stage."""

    def __init__(self, state: State, params: Params, context: Context) -> None:
        names = context.names
        self.params, self.context, self.state = params, context, state
        self.caller = _language.Caller("summarize", params, state, context)
        self.field = known(params.content_field, names, "content_field")
        self.output = known(params.output_field, names, "output_field")
        self.most = known(params.max_input_tokens, names, "max_input_tokens")
        self.strategy = known(params.truncation_strategy, names, "truncation_strategy")
        self.cites = known(params.include_citations, names, "include_citations")
        self.max_output = known(params.max_output_tokens, names, "max_output_tokens")
        checked = _language.checked_schema(params.output_schema)
        self.schema = None if checked is None else checked.body

    async def aggregate(self, documents: Documents, group: Any = None) -> dict[str, Any]:
        """Return the document that has the text for all."""
        sources = self._fitting(await self._sources(documents))
        if not sources:
            return self._made("", [], 0, group)
        answer = await self._ask(sources, len(documents), group, cites=self.cites and self.schema is None)
        return self._made(self._said(answer), sources, answer.usage.input_tokens + answer.usage.output_tokens, group)

    async def of_one(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return a document with its own text."""
        sources = self._fitting(await self._sources([document]))
        return paths.write(document, self.output, self._said(await self._ask(sources, 1, None, cites=False)))

    def _said(self, answer: Answer) -> Any:
        return answer.text.strip() if self.schema is None else answer.data

    async def _ask(self, sources: Sequence[_Source], count: int, group: Any, *, cites: bool) -> Answer:
        listed = "\n".join(_language.as_document(source.text, source.index) for source in sources)
        own = {"DOCUMENTS": listed, "DOC_COUNT": count, "GROUP_VALUE": group}
        names = self.context.names
        doc = sources[0].document if len(sources) == 1 else {}
        prompt = str(self.params.compiled.render({**names, "CONTEXT": ChainMap(own, names["CONTEXT"]), "DOC": doc}))
        if ("CONTEXT", "DOCUMENTS") not in self.params.compiled.paths:
            prompt = f"{prompt}\n\n{listed}"
        system = f"You write from the documents you are given and nothing else. {_language.DATA}"
        return await self.caller.ask(
            prompt, system=f"{system} {_CITE}" if cites else system, schema=self.schema, max_tokens=self.max_output
        )

    async def _sources(self, documents: Documents) -> list[_Source]:
        sources = []
        texts = await _language.texts(documents, self.params, self.context, self.most)
        for index, (document, text) in enumerate(zip(documents, texts, strict=True), start=1):
            if self.params.template is not None:
                names = self.context.names
                own = ChainMap({"INDEX": index}, names["CONTEXT"])
                doc = {**document, "content": text}
                text = str(self.params.template.render({**names, "CONTEXT": own, "DOC": doc}))
            sources.append(_Source(index, document, text))
        return sources

    def _fitting(self, sources: list[_Source]) -> list[_Source]:
        """Those that fit, in the order they came; what is left out becomes a warning."""
        needs = {source.index: tokens.count(source.text) for source in sources}
        total = sum(needs.values())
        if total <= self.most:
            return sources
        kept: dict[int, _Source] = {}
        left = self.most
        if self.strategy == "truncate_each":
            for place, source in enumerate(sorted(sources, key=lambda source: needs[source.index])):
                share = left // (len(sources) - place)
                kept[source.index] = _Source(source.index, source.document, tokens.start(source.text, share))
                left -= min(share, needs[source.index])
        else:
            best = self.strategy == "smart"
            ordered = sorted(sources, key=lambda source: -_values.score(source.document)) if best else sources
            for source in ordered:
                if needs[source.index] > left and kept:
                    break
                kept[source.index] = _Source(source.index, source.document, tokens.start(source.text, left))
                left -= min(left, needs[source.index])
        self.context.warnings.append(
            f"summarize: {total} tokens of documents were cut to {self.most} ({len(kept)} of {len(sources)} "
            "documents); raise max_input_tokens"
        )
        return [kept[index] for index in sorted(kept)]

    def _made(self, answer: Any, sources: Sequence[_Source], used: int, group: Any) -> dict[str, Any]:
        made: dict[str, Any] = paths.write({}, self.output, answer)
        if self.params.group_by is not None:
            made["group"] = group
        if self.cites:
            cited = {int(number) for number in _CITED.findall(answer)} if isinstance(answer, str) else set()
            made["citations"] = [
                {
                    "index": source.index,
                    "document_id": source.document.get("document_id"),
                    "title": _title(source.document),
                }
                for source in sources
                if source.index in cited
            ]
            made["source_document_ids"] = [source.document.get("document_id") for source in sources]
        if self.params.include_metadata:
            made |= {"model": self.caller.model, "tokens_used": used, "document_count": len(sources)}
        return made


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return the document of the text, one for each group, or the documents with a text each."""
    names, documents = context.names, state.documents
    _language.few_enough(documents, "summarize")
    summary = _Summary(state, params, context)
    at_once = known(params.max_concurrency, names, "max_concurrency")
    if known(params.mode, names, "mode") == "per_document":

        async def one(batch: Sequence[dict[str, Any]]) -> Sequence[Any]:
            return [await summary.of_one(batch[0])]

        made = await summary.caller.in_batches(documents, 1, at_once, one)
        return [new or old for new, old in zip(made, documents, strict=True)]
    if params.group_by is None:
        return [await summary.aggregate(documents)]
    field = known(params.group_by, names, "group_by")
    groups: dict[bytes, tuple[Any, Documents]] = {}
    for document in documents:
        value = _values.present(document, field)
        groups.setdefault(_values.mark(value), (value, []))[1].append(document)

    async def group(batch: Sequence[tuple[Any, Documents]]) -> Sequence[Any]:
        value, members = batch[0]
        return [await summary.aggregate(members, value)]

    made = await summary.caller.in_batches(list(groups.values()), 1, at_once, group)
    return [summed for summed in made if summed is not None]


def _title(document: Mapping[str, Any]) -> str | None:
    values = (paths.read(document, field) for field in _TITLES)
    return next((value for value in values if isinstance(value, str) and value), None)


def _estimate(params: Params, documents: int) -> tuple[int, float, float]:
    if params.mode == "per_document":
        return documents, *_language.cost(2 * documents, documents)
    return 1, *_language.cost(documents, 1)


STAGE = Stage(
    StageInfo("summarize", "reduce", "Make one text of the documents, with citations.", "align-left", Params),
    run,
    opaque=_language.OPAQUE | {"prompt", "document_template"},
    braces=True,
    models=_language.models,
    estimate=_estimate,
)
