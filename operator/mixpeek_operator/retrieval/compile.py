"""From a declaration to an executable pipeline: once per retriever and version, never per request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mixpeek_operator.core.directory import CollectionInfo, NamespaceInfo, RetrieverInfo
from mixpeek_operator.core.errors import MixpeekError, Place, Problem, SpecError
from mixpeek_operator.retrieval.declaration import Declared
from mixpeek_operator.retrieval.inputs import InputSchema
from mixpeek_operator.retrieval.keeping import NEVER, AnswerRule, StageRule, answer_rule, stage_rule, telling
from mixpeek_operator.retrieval.registry import StageRegistry
from mixpeek_operator.retrieval.stage import Compilation

Mark = tuple[str, str, str] | None
"""A collection's id, its incarnation and the signature of its configuration; None for one that does not exist."""


def mark_of(collection: CollectionInfo) -> Mark:
    """Return what a compiled pipeline depends on of a collection."""
    return collection.id, collection.incarnation, collection.config_signature


@dataclass(frozen=True, slots=True)
class Step:
    """One stage to run, with the filter stages that moved into it."""

    stage: Declared
    plan: Any
    before: tuple[Declared, ...] = ()
    after: tuple[Declared, ...] = ()
    rule: StageRule = NEVER
    """Whether its output is kept."""
    writes: tuple[str, ...] = ()
    """The paths it writes, of a step that may run beside another; () for one that may not."""
    beside: bool = False
    """Whether it runs at the same time as the step before it, on the same documents."""

    @property
    def items(self) -> tuple[Declared, ...]:
        """Its stages in the order of the declaration."""
        return (*self.before, self.stage, *self.after)


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
    reads: tuple[CollectionInfo, ...]
    """Every collection it is known to read: its own, and those that its stages name."""
    answers: AnswerRule
    """Whether its answers are kept."""
    bounded: bool
    """Whether anything bounds what it or one of its stages may cost."""


async def compile_pipeline(
    registry: StageRegistry,
    retriever: RetrieverInfo,
    namespace: NamespaceInfo,
    collections: tuple[CollectionInfo, ...],
    find_collection: Callable[[str], Awaitable[CollectionInfo]],
) -> Pipeline:
    """Validate every stage and resolve what it names. Raises SpecError with every problem."""
    declared, problems = registry.declare(retriever.stages)
    problems += [problem for item in declared if not item.skip_errors for problem in registry.without_model(item)]
    if problems:
        raise SpecError.of(problems)
    if not collections and any(stage.stage.source and stage.stage.searches for stage in declared[:1]):
        raise SpecError(f"the retriever {retriever.name!r} names no collection to search", code="no_collections")
    named: dict[str, Mark] = {}
    reads = {collection.id: collection for collection in collections}

    async def find(identifier: str) -> CollectionInfo:
        named[identifier] = None
        found = await find_collection(identifier)
        named[identifier] = mark_of(found)
        reads[found.id] = found
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
    max_credits, max_time_ms = _positive(limits, "max_credits"), _positive(limits, "max_time_ms")
    bounds = [max_credits, max_time_ms, *(bound for item in declared for bound in (item.max_credits, item.max_time_ms))]
    return Pipeline(
        retriever,
        namespace,
        collections,
        tuple(_ruled(retriever, _steps(declared, plans))),
        InputSchema(retriever.input_schema),
        len(declared),
        max_credits,
        max_time_ms,
        named,
        tuple(reads.values()),
        answer_rule(retriever, declared),
        any(bound is not None for bound in bounds),
    )


def _ruled(retriever: RetrieverInfo, steps: Sequence[Step]) -> Iterator[Step]:
    """Say of each step whether its output is kept, and whether it runs beside the one before."""
    running: list[Step] = []
    told = telling(retriever, [item for step in steps for item in step.items])
    for position, step in enumerate(steps):
        moved = (*step.before, *step.after)
        ruled = replace(step, rule=stage_rule(retriever, step.stage, moved, told), writes=_writes(step))
        # The first step is what finds the documents that the others share.
        beside = position > 1 and _independent(ruled, running)
        ruled = replace(ruled, beside=beside)
        running = [*(running if beside else ()), ruled]
        yield ruled


def _writes(step: Step) -> tuple[str, ...]:
    """The fields a step writes, () unless nothing else of it can be felt outside."""
    item = step.stage
    if item.stage.writes is None or item.output_alias is not None or item.max_credits is not None:
        return ()
    # What STAGE and CONTEXT tell depends on what has run before.
    if any(path[0] in ("STAGE", "CONTEXT") for path in item.uses):
        return ()
    return tuple(item.stage.writes(item.params))


def _independent(step: Step, running: Sequence[Step]) -> bool:
    """Whether it neither reads nor writes what the steps write that it would run beside, nor they what it writes."""
    if not step.writes or not all(other.writes for other in running):
        return False
    reads = _reads(step)
    for other in running:
        theirs = _reads(other)
        if reads is None or theirs is None or _overlap((*reads, *step.writes), other.writes):
            return False
        if _overlap(theirs, step.writes):
            return False
    return True


def _reads(step: Step) -> tuple[str, ...] | None:
    """Paths of the documents that a step reads; None for anything."""
    item = step.stage
    own = item.stage.reads(item.params) if item.stage.reads is not None else ()
    used = [path[1:] for path in item.uses if path[0] == "DOC"]
    if any(not path for path in used):
        return None
    filtered: set[str] = set()
    for late in (item.when, item.pre_filters, getattr(item.params, "when", None)):
        if late is not None:
            filtered |= late.fields
    if any("{" in path for path in (*own, *filtered)):
        return None
    return (*own, *filtered, *(".".join(path) for path in used))


def _overlap(ones: Iterable[str], others: Sequence[str]) -> bool:
    """Whether a path is, holds or is inside another one."""
    return any(
        f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.") for one in ones for other in others
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
