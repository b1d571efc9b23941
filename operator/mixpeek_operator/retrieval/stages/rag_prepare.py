"""Make the context of a language model: documents formatted, cut to a budget of tokens, with their citations."""

from __future__ import annotations

import asyncio
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.retrieval import paths, tokens
from mixpeek_operator.retrieval.late import Late, known
from mixpeek_operator.retrieval.stage import Context, Documents, Stage, StageParams, State
from mixpeek_operator.retrieval.stages import _values
from mixpeek_operator.retrieval.templating.template import Template, compile_text

_Count = Annotated[int, Field(ge=1, le=1_000_000)]
_TITLES: Final = ("title", "metadata.title", "name")
_URLS: Final = ("url", "metadata.url", "source_url", "metadata.source_url")
_SUPERSCRIPT: Final = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


class Citation(BaseModel):
    """How sources are told."""

    model_config = ConfigDict(extra="forbid")

    style: Literal["numbered", "bracketed", "footnote", "none"] = Field(
        default="numbered",
        description="numbered: [1]. bracketed: [the document's id]. footnote: ¹. none: no citations.",
        examples=["numbered"],
    )
    include_title: bool = Field(
        default=True, description="Whether a citation has the document's title (title, metadata.title or name)."
    )
    include_url: bool = Field(
        default=False, description="Whether a citation has the document's address (url, metadata.url or source_url)."
    )


class Params(StageParams):
    """Parameters of `rag_prepare`."""

    max_tokens: Late[_Count] = Field(default=8000, description="Most tokens of all documents together.", examples=[500])
    tokenizer: Literal["cl100k_base", "p50k_base", "r50k_base", "gpt2"] = Field(
        default="cl100k_base",
        description=(
            "Accepted by name. Tokens are estimated without its vocabulary, the same everywhere: a word has one for "
            "each 4 ASCII letters begun, digits one for each 3, punctuation one for each 2 characters, other scripts "
            "one for each 2 bytes. That is 1.0 to 2.0 times what cl100k_base makes of usual text."
        ),
        examples=["cl100k_base"],
    )
    truncation_strategy: Late[Literal["priority_truncate", "proportional", "drop_last"]] = Field(
        default="priority_truncate",
        description=(
            "What happens when not all fit. priority_truncate: the first documents whole, the last of them cut. "
            "proportional: an equal share each; what short documents leave goes to the others. drop_last: whole "
            "documents only."
        ),
        examples=["priority_truncate"],
    )
    output_mode: Late[Literal["single_context", "formatted_list"]] = Field(
        default="single_context",
        description="single_context: one document with the whole context. formatted_list: each document formatted.",
        examples=["single_context"],
    )
    document_template: str = Field(
        default="[{{CONTEXT.INDEX}}] {{DOC.content}}\n\n",
        min_length=1,
        description=(
            "Template of a document: CONTEXT.INDEX is its place from 1, CONTEXT.CITATION its citation, DOC.content "
            "the text of content_field."
        ),
        examples=["{{CONTEXT.CITATION}} {{DOC.title}}\n"],
    )
    content_field: Late[str] = Field(
        default="content", description="Dotted path of a document's text.", examples=["title"]
    )
    separator: str = Field(default="\n", description="What stands between documents, with single_context.")
    citation: Citation = Field(default_factory=Citation, description="How sources are told.")
    context_field: str = Field(default="rag_context", min_length=1, description="Where the context goes.")
    citations_field: str = Field(default="citations", min_length=1, description="Where the citations go.")
    formatted_content_field: str = Field(
        default="formatted_content", min_length=1, description="Where a formatted document goes."
    )
    _compiled: Template = PrivateAttr()

    @property
    def compiled(self) -> Template:
        """The compiled template."""
        return self._compiled

    @model_validator(mode="after")
    def _compile(self) -> Params:
        self._compiled = compile_text(self.document_template)
        return self


@dataclass(slots=True)
class _Part:
    """A document on its way into the context."""

    index: int
    document: dict[str, Any]
    content: Any
    text: str
    truncated: bool = False


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return one document with the context, or the formatted documents that fit, in the order they came."""
    names = context.names
    most = known(params.max_tokens, names, "max_tokens")
    single = known(params.output_mode, names, "output_mode") == "single_context"
    strategy = known(params.truncation_strategy, names, "truncation_strategy")
    between = tokens.count(params.separator) if single else 0
    parts = await _formatted(state.documents, params, context, None if strategy == "proportional" else most, between)
    if strategy == "proportional":
        kept = _proportional(parts, most, between)
    else:
        kept = _first(parts, most, between, cut=strategy == "priority_truncate")
    state.metadata.update(
        documents_in=len(state.documents),
        documents_included=len(kept),
        documents_truncated=sum(part.truncated for part in kept),
    )
    if not single:
        return [
            {
                **part.document,
                params.formatted_content_field: part.text,
                "original_content": part.content,
                params.citations_field: _citations([part], params),
                "token_count": tokens.count(part.text),
                "truncated": part.truncated,
            }
            for part in kept
        ]
    whole = params.separator.join(part.text for part in kept)
    state.metadata["token_count"] = tokens.count(whole)
    return [
        {
            params.context_field: whole,
            params.citations_field: _citations(kept, params),
            "token_count": state.metadata["token_count"],
            "document_count": len(kept),
        }
    ]


async def _formatted(
    documents: Documents, params: Params, context: Context, enough: int | None, between: int
) -> list[_Part]:
    """The documents as text; those that certainly do not fit behind `enough` tokens are not even formatted."""
    field = known(params.content_field, context.names, "content_field")
    parts: list[_Part] = []
    total = missing = 0
    pause = context.clock.monotonic()
    for index, document in enumerate(documents, start=1):
        if enough is not None and total > enough:
            break
        content = _values.present(document, field)
        missing += content is None
        own = {"INDEX": index, "CITATION": _marker(index, document, params)}
        names = {
            **context.names,
            "CONTEXT": ChainMap(own, context.names["CONTEXT"]),
            "DOC": document if content is None else {**document, "content": content},
        }
        text = str(params.compiled.render(names))
        parts.append(_Part(index, document, content, text))
        total += tokens.count(text) + between
        if context.clock.monotonic() - pause > 0.02:
            # Rendering holds the event loop; other requests get their turn in between.
            await asyncio.sleep(0)
            pause = context.clock.monotonic()
    if missing:
        context.warnings.append(f"rag_prepare: {missing} documents have no {field!r}; set content_field")
    return parts


def _first(parts: Sequence[_Part], most: int, between: int, *, cut: bool) -> list[_Part]:
    kept: list[_Part] = []
    left = most
    for part in parts:
        left -= between if kept else 0
        need = tokens.count(part.text)
        if need <= left:
            kept.append(part)
            left -= need
            continue
        if cut and left > 0:
            kept += _cut(part, left)
        break
    return kept


def _proportional(parts: Sequence[_Part], most: int, between: int) -> list[_Part]:
    left = most - between * (len(parts) - 1)
    share: dict[int, int] = {}
    needs = sorted((tokens.count(part.text), part.index) for part in parts)
    for place, (need, index) in enumerate(needs):
        # The shortest first: what it leaves of an equal share is for those behind it.
        share[index] = max(0, min(need, left // (len(needs) - place)))
        left -= share[index]
    return [kept for part in parts for kept in _cut(part, share[part.index])]


def _cut(part: _Part, most: int) -> list[_Part]:
    text = tokens.start(part.text, most)
    if text == part.text:
        return [part]
    return [_Part(part.index, part.document, part.content, text, truncated=True)] if text.strip() else []


def _marker(index: int, document: Mapping[str, Any], params: Params) -> str:
    style = params.citation.style
    if style == "bracketed":
        return f"[{document.get('document_id', index)}]"
    return {"numbered": f"[{index}]", "footnote": str(index).translate(_SUPERSCRIPT), "none": ""}[style]


def _citations(parts: Sequence[_Part], params: Params) -> list[dict[str, Any]]:
    if params.citation.style == "none":
        return []
    found = []
    for part in parts:
        citation: dict[str, Any] = {"index": part.index, "marker": _marker(part.index, part.document, params)}
        for name in ("document_id", "collection_id", "score"):
            if name in part.document:
                citation[name] = part.document[name]
        if params.citation.include_title:
            citation["title"] = _one_of(part.document, _TITLES)
        if params.citation.include_url:
            citation["url"] = _one_of(part.document, _URLS)
        found.append(citation)
    return found


def _one_of(document: Mapping[str, Any], fields: Sequence[str]) -> Any:
    values = (paths.read(document, field) for field in fields)
    return next((value for value in values if isinstance(value, str) and value), None)


def _estimate(params: Params, documents: int) -> tuple[int, float, float]:
    return 1 if params.output_mode == "single_context" else documents, 0.0, 0.1 * documents


STAGE = Stage(
    StageInfo(
        "rag_prepare",
        "apply",
        "Format documents as the context of a language model, within a budget of tokens, with citations.",
        "file-text",
        Params,
    ),
    run,
    repeatable=True,
    estimate=_estimate,
)
