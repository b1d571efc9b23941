"""From a declaration to an executable pipeline: once per retriever and version, never per request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mixpeek_operator.core.directory import CollectionInfo, NamespaceInfo, RetrieverInfo
from mixpeek_operator.core.errors import MixpeekError, Place, Problem, SpecError
from mixpeek_operator.retrieval.declaration import Declared
from mixpeek_operator.retrieval.inputs import InputSchema
from mixpeek_operator.retrieval.registry import StageRegistry
from mixpeek_operator.retrieval.stage import Compilation

Mark = tuple[str, str] | None
"""A collection's id and the signature of its configuration; None for one that does not exist."""


def mark_of(collection: CollectionInfo) -> Mark:
    """Return what a compiled pipeline depends on of a collection."""
    return collection.id, collection.config_signature


@dataclass(frozen=True, slots=True)
class Step:
    """One stage to run, with the filter stages that moved into it."""

    stage: Declared
    plan: Any
    before: tuple[Declared, ...] = ()
    after: tuple[Declared, ...] = ()


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A compiled retriever."""

    retriever: RetrieverInfo
    namespace: NamespaceInfo
    collections: tuple[CollectionInfo, ...]
    steps: tuple[Step, ...]
    inputs: InputSchema
    stage_count: int
    max_credits: float | None
    max_time_ms: float | None
    named: Mapping[str, Mark]
    """What the collections were that its stages name, by the identifier they use."""


async def compile_pipeline(
    registry: StageRegistry,
    retriever: RetrieverInfo,
    namespace: NamespaceInfo,
    collections: tuple[CollectionInfo, ...],
    find_collection: Callable[[str], Awaitable[CollectionInfo]],
) -> Pipeline:
    """Validate every stage and resolve what it names. Raises SpecError with every problem."""
    declared, problems = registry.declare(retriever.stages)
    if problems:
        raise SpecError.of(problems)
    if not collections and any(stage.stage.source for stage in declared[:1]):
        raise SpecError(f"the retriever {retriever.name!r} names no collection to search", code="no_collections")
    named: dict[str, Mark] = {}

    async def find(identifier: str) -> CollectionInfo:
        named[identifier] = None
        found = await find_collection(identifier)
        named[identifier] = mark_of(found)
        return found

    compilation = Compilation(namespace, collections, find)
    plans: dict[int, Any] = {}
    for item in declared:
        if item.stage.prepare is None:
            continue
        try:
            plans[item.index] = await item.stage.prepare(item.params, compilation)
        except MixpeekError as error:
            if item.skip_errors and not item.stage.source:
                continue
            where = f"stages[{item.index}].parameters"
            problems.append(
                Problem(error.code, error.message, Place(path=where), location=("stages", item.index, "parameters"))
            )
    if problems:
        raise SpecError.of(problems)
    limits = retriever.budget_limits or {}
    return Pipeline(
        retriever,
        namespace,
        collections,
        tuple(_steps(declared, plans)),
        InputSchema(retriever.input_schema),
        len(declared),
        _positive(limits, "max_credits"),
        _positive(limits, "max_time_ms"),
        named,
    )


def _steps(declared: list[Declared], plans: Mapping[int, Any]) -> list[Step]:
    """Place the stages; filters beside a search move into it where that means the same.

    Behind a search a filter narrows what is searched, so the search still returns as many documents as it should;
    it stays where it is when the search groups or counts facets, when it depends on documents, or when its errors
    are to be skipped.
    """
    steps: list[Step] = []
    position = 0
    leading: list[Declared] = []
    while position < len(declared) and not steps and _movable(declared[position]):
        leading.append(declared[position])
        position += 1
    if not (leading and position < len(declared) and declared[position].stage.searches):
        steps += [Step(item, plans.get(item.index)) for item in leading]
        leading = []
    while position < len(declared):
        item = declared[position]
        position += 1
        after: list[Declared] = []
        absorbs = item.stage.absorbs is not None and item.stage.absorbs(item.params) and item.output_alias is None
        while absorbs and position < len(declared) and _movable(declared[position]):
            after.append(declared[position])
            position += 1
        steps.append(Step(item, plans.get(item.index), tuple(leading), tuple(after)))
        leading = []
    return steps


def _movable(item: Declared) -> bool:
    return (
        item.stage.movable is not None
        and item.stage.movable(item.params)
        and not item.skip_errors
        and item.when is None
        and item.output_alias is None
        and (item.pre_filters is None or item.pre_filters.namespaces <= {"INPUT", "CONTEXT"})
    )


def _positive(limits: Mapping[str, Any], name: str) -> float | None:
    value = limits.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
