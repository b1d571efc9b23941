"""Keep at most so many documents, optionally after skipping some."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.retrieval.late import Late, known
from mixpeek_operator.retrieval.stage import Context, Documents, Stage, StageParams, State

_Count = Annotated[int, Field(ge=1, le=10_000)]
_Skip = Annotated[int, Field(ge=0, le=10_000)]


class Params(StageParams):
    """Parameters of `limit`."""

    limit: Late[_Count] = Field(default=10, description="Most documents to keep.", examples=[10])
    offset: Late[_Skip] = Field(default=0, description="Documents to skip first.", examples=[0])


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return `limit` documents from `offset` on."""
    offset = known(params.offset, context.names, "offset")
    return state.documents[offset : offset + known(params.limit, context.names, "limit")]


def _estimate(params: Params, documents: int) -> tuple[int, float, float]:
    limit = params.limit if isinstance(params.limit, int) else 10
    offset = params.offset if isinstance(params.offset, int) else 0
    return max(0, min(limit, documents - offset)), 0.0, 0.01


STAGE = Stage(
    StageInfo("limit", "reduce", "Keep the first documents, after an optional offset.", "list-end", Params),
    run,
    repeatable=True,
    estimate=_estimate,
)
