"""Keep a sample of the documents: random, the same share of each group, or every nth."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, model_validator

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.retrieval.late import Late, known
from mixpeek_operator.retrieval.stage import Context, Documents, Stage, StageParams, State
from mixpeek_operator.retrieval.stages import _values

_Count = Annotated[int, Field(ge=0, le=10_000)]
_PerGroup = Annotated[int, Field(ge=1, le=10_000)]
_Method = Literal["random", "stratified", "systematic", "reservoir"]
_Allocation = Literal["equal", "proportional"]


class Params(StageParams):
    """Parameters of `sample`; `strategy`, `count` and `stratify_by` are accepted as well."""

    method: Late[_Method] = Field(
        default="random",
        validation_alias=AliasChoices("method", "strategy"),
        description=(
            "random: any documents. stratified: from each group. systematic: every nth. reservoir: the same as random."
        ),
        examples=["random"],
    )
    size: Late[_Count] = Field(
        default=10,
        validation_alias=AliasChoices("size", "count"),
        description="Documents to keep; all when there are no more. With samples_per_group only when it is given.",
        examples=[10],
    )
    seed: Late[int] | None = Field(
        default=None, description="Makes the sample repeatable; another one each time when absent.", examples=[42]
    )
    group_field: Late[str] | None = Field(
        default=None,
        validation_alias=AliasChoices("group_field", "stratify_by"),
        description="Dotted path of the field that makes the groups; documents without it are a group of their own.",
        examples=["category"],
    )
    samples_per_group: Late[_PerGroup] | None = Field(
        default=None, description="Documents of each group, as far as there are so many.", examples=[3]
    )
    allocation: Late[_Allocation] = Field(
        default="equal",
        description=(
            "How size is divided between groups without samples_per_group. equal: as many of each. proportional: by "
            "the groups' sizes; the default with stratify_by."
        ),
        examples=["equal"],
    )
    min_per_stratum: Late[_Count] = Field(
        default=1, description="Fewest documents of a group with proportional, as far as size allows.", examples=[1]
    )
    preserve_top_k: Late[_Count] = Field(
        default=0, description="Documents of the highest score that are always kept; size includes them.", examples=[0]
    )

    @model_validator(mode="before")
    @classmethod
    def _documented_default(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "stratify_by" in values and "allocation" not in values:
            # This spelling comes with a default of its own.
            return {**values, "allocation": "proportional"}
        return values

    @model_validator(mode="after")
    def _groups(self) -> Params:
        if self.method == "stratified" and self.group_field is None:
            raise ValueError("a stratified sample needs group_field")
        return self


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return the sample in the order of the documents; `sample` of each tells how it was chosen."""
    names, documents = context.names, state.documents
    method = known(params.method, names, "method")
    size = known(params.size, names, "size")
    chance = random.Random(None if params.seed is None else known(params.seed, names, "seed"))  # noqa: S311
    top = min(known(params.preserve_top_k, names, "preserve_top_k"), size)
    kept = sorted(range(len(documents)), key=lambda index: -_values.score(documents[index]))[:top]
    rest = sorted(set(range(len(documents))) - set(kept))
    state.metadata.update(method=method, total_input=len(documents))
    strata: dict[int, Any] = {}
    if method == "stratified":
        chosen = _stratified(rest, size - top, params, chance, state, context, strata)
    elif method == "systematic":
        count = min(size - top, len(rest))
        chosen = [rest[index * len(rest) // count] for index in range(count)]
    else:
        chosen = chance.sample(rest, min(size - top, len(rest)))
    positions = sorted([*kept, *chosen])
    state.metadata["sample_size"] = len(positions)
    return [
        {
            **documents[position],
            "sample": {
                "method": method,
                **({"stratum": strata[position]} if position in strata else {}),
                "sample_index": index,
            },
        }
        for index, position in enumerate(positions)
    ]


def _stratified(
    positions: Sequence[int],
    size: int,
    params: Params,
    chance: random.Random,
    state: State,
    context: Context,
    strata: dict[int, Any],
) -> list[int]:
    names = context.names
    field = known(params.group_field or "", names, "group_field")
    groups: dict[bytes, list[int]] = {}
    for position in positions:
        value = _values.present(state.documents[position], field)
        strata[position] = value
        groups.setdefault(_values.mark(value), []).append(position)
    sizes = [len(members) for members in groups.values()]
    if params.samples_per_group is not None:
        each = known(params.samples_per_group, names, "samples_per_group")
        counts = [min(each, count) for count in sizes]
        if "size" in params.model_fields_set and sum(counts) > size:
            counts = _allocate(counts, size, lambda index, taken: taken)
    elif known(params.allocation, names, "allocation") == "equal":
        counts = _allocate(sizes, size, lambda index, taken: taken)
    else:
        least = known(params.min_per_stratum, names, "min_per_stratum")
        counts = _allocate(sizes, size, lambda index, taken: (taken >= least, (2 * taken + 1) / sizes[index]))
    if positions and list(groups) == [_values.mark(None)]:
        context.warnings.append(f"sample: no document has {field!r}; they are sampled as one group")
    state.metadata["strata"] = [
        {"stratum": strata[members[0]], "input": len(members), "sampled": count}
        for members, count in zip(groups.values(), counts, strict=True)
    ]
    return [
        position
        for members, count in zip(groups.values(), counts, strict=True)
        for position in chance.sample(members, count)
    ]


def _allocate(sizes: Sequence[int], total: int, priority: Callable[[int, int], Any]) -> list[int]:
    """Give out `total` one by one, each to the group of the lowest priority(group, what it has) that has room."""
    counts = [0] * len(sizes)
    waiting = [(priority(index, 0), index) for index, size in enumerate(sizes) if size]
    heapq.heapify(waiting)
    for _ in range(min(total, sum(sizes))):
        _, index = heapq.heappop(waiting)
        counts[index] += 1
        if counts[index] < sizes[index]:
            heapq.heappush(waiting, (priority(index, counts[index]), index))
    return counts


def _estimate(params: Params, documents: int) -> tuple[int, float, float]:
    size = params.size if isinstance(params.size, int) else 10
    return min(size, documents), 0.0, 0.02 + 0.001 * documents


STAGE = Stage(
    StageInfo("sample", "reduce", "Keep a random, stratified or systematic sample of the documents.", "dices", Params),
    run,
    repeatable=lambda params: params.seed is not None,
    estimate=_estimate,
)
