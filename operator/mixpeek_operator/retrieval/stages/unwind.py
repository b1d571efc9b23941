"""Make one document of each element of a list."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.retrieval import paths
from mixpeek_operator.retrieval.late import Late, known
from mixpeek_operator.retrieval.stage import Context, Documents, Stage, StageParams, State

MAX_DOCUMENTS: Final = 100_000
"""Most documents one stage makes."""


class Params(StageParams):
    """Parameters of `unwind`."""

    field: Late[str] = Field(description="Dotted path of the list.", examples=["tags"])
    preserve_null_and_empty: Late[bool] = Field(
        default=False,
        description=(
            "Whether documents stay whose list is missing, null or empty; null takes the place of an empty list."
        ),
        examples=[False],
    )
    include_array_index: Late[str] | None = Field(
        default=None, description="Where the element's position goes, from 0.", examples=["tag_index"]
    )
    output_field: Late[str] | None = Field(
        default=None, description="Where the element goes; it takes the list's place when absent.", examples=["tag"]
    )


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return one document for each element, in order; a value that is no list passes unchanged.

    Raises SpecError when it would make more than MAX_DOCUMENTS.
    """
    names = context.names
    field = known(params.field, names, "field")
    output = field if params.output_field is None else known(params.output_field, names, "output_field")
    index = None if params.include_array_index is None else known(params.include_array_index, names)
    preserve = known(params.preserve_null_and_empty, names, "preserve_null_and_empty")
    made: Documents = []
    for document in state.documents:
        value = paths.read(document, field)
        if isinstance(value, list) and value:
            if len(made) + len(value) > MAX_DOCUMENTS:
                raise SpecError(
                    f"unwind makes more than {MAX_DOCUMENTS} documents of {field!r}; put a filter or limit before it",
                    code="too_many_documents",
                )
            made += [_element(document, item, position, output, index) for position, item in enumerate(value)]
        elif value is paths.ABSENT and preserve:
            made.append(document)
        elif value is None or value == []:
            if preserve:
                made.append(_element(document, None, None, output, index))
        elif value is not paths.ABSENT:
            made.append(document)
    return made


def _element(
    document: dict[str, Any], value: Any, position: int | None, output: str, index: str | None
) -> dict[str, Any]:
    made = paths.write(document, output, value)
    return made if index is None else paths.write(made, index, position)


def _estimate(params: Params, documents: int) -> tuple[int, float, float]:
    return 3 * documents, 0.0, 0.003 * documents


STAGE = Stage(
    StageInfo("unwind", "apply", "Make one document of each element of a list.", "unfold-vertical", Params),
    run,
    repeatable=True,
    by_document=True,
    estimate=_estimate,
)
