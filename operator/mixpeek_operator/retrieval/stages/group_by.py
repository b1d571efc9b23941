"""Gather documents that share the value of a field."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.retrieval.late import Late, known
from mixpeek_operator.retrieval.pagination import Order
from mixpeek_operator.retrieval.stage import Context, Documents, Stage, StageParams, State
from mixpeek_operator.retrieval.stages import _sorting, _values

_Groups = Annotated[int, Field(ge=1, le=10_000)]
_Mode = Literal["all", "first", "flatten"]
_By = Literal["count", "field", "score"]
_SORTED_BY = {"count": "count", "field": "key", "score": "score"}


class Params(StageParams):
    """Parameters of `group_by`; `group_by_field` and `max_per_group` are accepted as well."""

    field: Late[str] = Field(
        default="source_object_id",
        validation_alias=AliasChoices("field", "group_by_field"),
        description="Dotted path of the field. Documents without it are the group null.",
        examples=["category"],
    )
    max_groups: Late[_Groups] = Field(default=100, description="Most groups, after sorting them.", examples=[100])
    sort_groups_by: Late[_By] = Field(
        default="count",
        description="count: by how many documents a group has. field: by its value. score: by its best score.",
        examples=["count"],
    )
    sort_order: Late[Literal["asc", "desc"]] = Field(
        default="desc", description="Which groups come first; equal ones in order of their first documents."
    )
    docs_per_group: Late[_Groups] | None = Field(
        default=None,
        validation_alias=AliasChoices("docs_per_group", "max_per_group"),
        description="Most documents of a group, after sorting them; all when absent. Its count counts all.",
        examples=[5],
    )
    sort_docs_by: Late[str] = Field(
        default="score",
        description="Dotted path of what documents of a group are sorted by, highest first, or `_random`.",
        examples=["score"],
    )
    exclude_null: Late[bool] = Field(
        default=False, description="Whether documents without the field are left out.", examples=[False]
    )
    output_mode: Late[_Mode] = Field(
        default="all",
        description=(
            "all: one document for each group, {key, count, documents}, with the id, collection and score of its "
            "best. first: the first document of each group, with its group_key. flatten: the groups' documents, "
            "one group after the other."
        ),
        examples=["all"],
    )
    seed: Late[int] | None = Field(
        default=None, description="Makes `_random` repeatable; another order each time when absent.", examples=[42]
    )


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return the groups; each document is in one."""
    names = context.names
    field = known(params.field, names, "field")
    exclude = known(params.exclude_null, names, "exclude_null")
    members: dict[bytes, Documents] = {}
    keys: dict[bytes, Any] = {}
    for document in state.documents:
        value = _values.present(document, field)
        if value is None and exclude:
            continue
        mark = _values.mark(value)
        keys.setdefault(mark, value)
        members.setdefault(mark, []).append(document)
    sort_by = known(params.sort_docs_by, names, "sort_docs_by")
    chance = random.Random(None if params.seed is None else known(params.seed, names, "seed"))  # noqa: S311
    groups = [_group(keys[mark], _sorted(found, sort_by, chance)) for mark, found in members.items()]
    ordered = _sorting.sort(
        groups,
        _SORTED_BY[known(params.sort_groups_by, names, "sort_groups_by")],
        descending=known(params.sort_order, names, "sort_order") == "desc",
        missing_last=True,
    )
    state.metadata.update(field=field, total_groups=len(groups), total_documents=sum(map(len, members.values())))
    size = None if params.docs_per_group is None else known(params.docs_per_group, names, "docs_per_group")
    kept = ordered[: known(params.max_groups, names, "max_groups")]
    mode = known(params.output_mode, names, "output_mode")
    if mode == "first":
        return [{**group["documents"][0], "group_key": group["key"]} for group in kept]
    if mode == "flatten":
        return [document for group in kept for document in group["documents"][:size]]
    return [{**group, "documents": group["documents"][:size]} for group in kept]


def _sorted(documents: Documents, by: str, chance: random.Random) -> Documents:
    if by == "_random":
        return chance.sample(documents, len(documents))
    return _sorting.sort(documents, by, descending=True, missing_last=True)


def _group(key: Any, documents: Documents) -> dict[str, Any]:
    best = max(documents, key=_values.score)
    own: dict[str, Any] = {name: best[name] for name in ("document_id", "collection_id", "score") if name in best}
    return {**own, "key": key, "count": len(documents), "documents": documents}


def _order(params: Params, names: Mapping[str, Any]) -> Order | None:
    if known(params.output_mode, names) != "all":
        return None
    return Order(_SORTED_BY[known(params.sort_groups_by, names)], known(params.sort_order, names) == "desc")


def _estimate(params: Params, documents: int) -> tuple[int, float, float]:
    most = params.max_groups if isinstance(params.max_groups, int) else 100
    return min(most, (documents + 3) // 4), 0.0, 0.01 + 0.003 * documents


def _is_repeatable(params: Params) -> bool:
    return params.seed is not None or (isinstance(params.sort_docs_by, str) and params.sort_docs_by != "_random")


STAGE = Stage(
    StageInfo("group_by", "group", "Gather documents that share the value of a field.", "group", Params),
    run,
    repeatable=_is_repeatable,
    order=_order,
    estimate=_estimate,
)
