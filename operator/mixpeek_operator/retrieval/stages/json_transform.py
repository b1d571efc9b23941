"""Replace each document by what a Jinja template makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from pydantic import Field, PrivateAttr, model_validator

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.retrieval.stage import Context, Documents, Stage, StageParams, State
from mixpeek_operator.retrieval.templating.errors import TemplateError
from mixpeek_operator.retrieval.templating.template import Template, compile_json

MAX_SECONDS = 10.0
"""Time one stage may spend rendering."""


class Params(StageParams):
    """Parameters of `json_transform`."""

    template: str = Field(
        min_length=1,
        description=(
            "Jinja template that makes one JSON object of DOC, INPUT, CONTEXT and STAGE. Values are inserted as "
            "escaped text inside JSON strings and as JSON elsewhere."
        ),
        examples=['{"id": "{{DOC.document_id}}", "title": "{{DOC.title}}", "price": {{DOC.price}}}'],
    )
    fail_on_error: bool = Field(
        default=False,
        description="Whether a document that cannot be transformed fails the retriever; else it is left out.",
        examples=[False],
    )
    _compiled: Template = PrivateAttr()

    @property
    def compiled(self) -> Template:
        """The compiled template."""
        return self._compiled

    def own_templates(self) -> Mapping[str, frozenset[tuple[str, ...]]]:
        return {"template": self._compiled.paths}

    @model_validator(mode="after")
    def _compile(self) -> Params:
        self._compiled = compile_json(self.template)
        return self


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return the transformed documents; what fails is left out and counted, unless `fail_on_error`."""
    made: Documents = []
    failures: list[str] = []
    started = pause = context.clock.monotonic()
    for document in state.documents:
        try:
            value: Any = params.compiled.render({**context.names, "DOC": document})
            if not isinstance(value, dict):
                raise TemplateError("the template must make a JSON object", code="template_not_json")
            made.append(value)
        except TemplateError as error:
            if params.fail_on_error:
                raise TemplateError(
                    f"document {document.get('document_id')}: {error.message}", code=error.code
                ) from None
            failures.append(error.message)
        now = context.clock.monotonic()
        if now - started > MAX_SECONDS:
            raise TemplateError(f"json_transform may take {MAX_SECONDS:g} s; transform fewer documents")
        if now - pause > 0.02:
            # Rendering holds the event loop; other requests get their turn in between.
            await asyncio.sleep(0)
            pause = context.clock.monotonic()
    if failures:
        state.metadata["failed_count"] = len(failures)
        context.warnings.append(f"json_transform left out {len(failures)} documents; the first: {failures[0]}")
    return made


def _estimate(params: Params, documents: int) -> tuple[int, float, float]:
    return documents, 0.0, documents * 0.03


STAGE = Stage(
    StageInfo(
        "json_transform", "apply", "Reshape each document with a Jinja template that makes JSON.", "code", Params
    ),
    run,
    repeatable=True,
    by_document=True,
    opaque=frozenset({"template"}),
    estimate=_estimate,
)
