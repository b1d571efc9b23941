"""Walking a pipeline: one execution, its working set, statistics and budget."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

from mixpeek_operator.core.errors import InternalError, MixpeekError
from mixpeek_operator.core.filters import Filter, all_of, matches
from mixpeek_operator.retrieval import search
from mixpeek_operator.retrieval.budget import Budget, OverBudget
from mixpeek_operator.retrieval.compile import Pipeline, Step
from mixpeek_operator.retrieval.declaration import Declared
from mixpeek_operator.retrieval.known import ExecutionContext
from mixpeek_operator.retrieval.late import known
from mixpeek_operator.retrieval.outputs import Output, StageOutputs, Trail, merged, output_of
from mixpeek_operator.retrieval.pagination import Order
from mixpeek_operator.retrieval.stage import Context, Documents, State

Watch = Callable[[dict[str, Any]], None]
"""Takes an event: {event_type, execution_id, stage_name, …}."""


@dataclass(slots=True)
class _Ran:
    """How one step went."""

    step: Step
    alone: bool
    """Whether no other step runs at the same time."""
    given: int
    began: float
    output: Output | None = None
    """While it runs: what is done already, for the case that it has to stop."""
    error: MixpeekError | None = None
    stopped: OverBudget | None = None


class Execution:
    """One run of a pipeline.

    `outputs` keeps outputs of stages, `stamp` says what the collections are like; `watch` is told of every step.
    """

    def __init__(
        self,
        id: str,
        pipeline: Pipeline,
        context: Context,
        filter: Filter | None,
        *,
        outputs: StageOutputs | None = None,
        stamp: str = "",
        watch: Watch | None = None,
    ) -> None:
        self.id = id
        self.pipeline = pipeline
        self.context = context
        self.documents: Documents = []
        self.processed = 0
        self.told = Output([])
        """What its stages told besides documents."""
        self.order = Order()
        self.statistics: dict[str, dict[str, Any]] = {}
        self.degraded: list[dict[str, Any]] = []
        self.recorded = True
        self._filter = filter
        self._outputs = outputs
        self._watch = watch
        self._clock = context.clock
        self._budget = Budget(pipeline, context.clock)
        self._known = ExecutionContext(self)
        context.names["CONTEXT"] = self._known
        context.names["STAGE"] = {}
        self._trail = Trail(stamp, context.names["INPUT"], filter)

    @property
    def status(self) -> str:
        return "degraded" if self.degraded else "completed"

    @property
    def credits(self) -> float:
        """Spent so far."""
        return self._budget.credits

    def elapsed_ms(self) -> float:
        """Milliseconds since the execution began."""
        return self._budget.elapsed_ms()

    async def run(self) -> Documents:
        """Walk all steps, or as many as the budget allows. Raises what a stage raises unless it is to be skipped."""
        steps = self.pipeline.steps
        position = 0
        while position < len(steps):
            end = position + 1
            while end < len(steps) and steps[end].beside:
                end += 1
            together = steps[position:end]
            reason = self._budget.over(together, len(self.documents))
            if reason is None:
                reason = await self._together(together, first=position == 0)
                position = end
            if reason is not None:
                self._stop(steps[position:], reason)
                break
        return self.documents

    async def _together(self, steps: Sequence[Step], *, first: bool) -> str | None:
        """Run steps on the same documents, at the same time; why the execution has to stop, if it has to."""
        self._tell_start(steps)
        if len(steps) == 1:
            runs = [await self._attempt(steps[0], first, alone=True)]
        else:
            runs = await asyncio.gather(*(self._attempt(step, first, alone=False) for step in steps))
        for run in runs:
            if run.error is not None and not run.step.stage.skip_errors:
                raise run.error
        given = self.documents
        self.documents = _merged(given, runs)
        stopped: OverBudget | None = None
        whole = True
        for run in runs:
            if run.output is not None:
                made = len(run.output.documents)
                self.processed += made if first and not given else max(len(given), made)
            stopped = stopped or run.stopped
            whole = whole and run.output is not None and run.stopped is None
            self._finish(run, first)
        if whole:
            self._trail.pass_by(steps)
        else:
            self._trail.lose()
        if stopped is None:
            return None
        self._stop([run.step for run in runs if run.stopped], stopped.reason)
        return stopped.reason

    def _finish(self, run: _Ran, first: bool) -> None:
        """Take over what a step made and told."""
        step, item = run.step, run.step.stage
        if run.error is not None:
            self._degrade(item, run.error.message, "repair the stage; the documents before it were kept")
            self._count(item, run.given, run.given, run.began, error=run.error.message)
            self._tell("stage_error", item, error=run.error.message)
            return
        output = run.output
        if output is None:
            return
        self.context.searched = output.searched
        self.told.take(output)
        made = len(output.documents)
        seen = run.given if not first or run.given else made
        if item.stage.source and first:
            seen = 0
        for moved in step.before:
            self._count(moved, 0, 0, self._clock.monotonic(), metadata={"pushed_down": True})
        self._count(item, seen, made, run.began, metadata=output.metadata, cached_at=output.cached_at)
        for moved in step.after:
            self._count(moved, made, made, self._clock.monotonic(), metadata={"pushed_down": True})
        if item.stage.order is not None:
            self.order = item.stage.order(item.params, self.context.names) or self.order
        if item.output_alias is not None:
            self._known.keep(item.output_alias, output.documents)
        if run.stopped is None and self._watch is not None:
            for each in step.items:
                self._tell("stage_complete", each, documents=output.documents, statistics=self.statistics[each.name])

    async def _attempt(self, step: Step, first: bool, *, alone: bool) -> _Ran:
        """Run one step within the time there is."""
        run = _Ran(step, alone, len(self.documents), self._clock.monotonic())
        self.context.names["STAGE"]["name"] = step.stage.name
        left, reason = self._budget.time_left(step.stage)
        try:
            making = self._found(run, first) if self._may_be_kept(step) else self._compute(run, first)
            if left is None:
                run.output = await making
            else:
                async with asyncio.timeout(left):
                    run.output = await making
        except TimeoutError:
            if left is None or self._clock.monotonic() - run.began < left:
                raise
            run.stopped = OverBudget(reason)
        except OverBudget as over:
            run.stopped = over
        except MixpeekError as error:
            run.error = error
        if run.output is not None:
            self._budget.credits += run.output.credits
        if run.error is not None:
            run.output = None
        return run

    def _may_be_kept(self, step: Step) -> bool:
        return (
            self._outputs is not None and step.rule.ttl_s > 0 and (self._trail.at is not None or not _looks_back(step))
        )

    async def _found(self, run: _Ran, first: bool) -> Output:
        """What a step makes of the documents: found, or computed and kept."""
        outputs, step = self._outputs, run.step
        assert outputs is not None
        key = self._trail.key(step, self.documents, self.context.searched)
        found = await outputs.find(key)
        if found is not None:
            return found
        output = await self._compute(run, first)
        outputs.keep(key, output, step.rule.ttl_s)
        return output

    async def _compute(self, run: _Ran, first: bool) -> Output:
        step, item, names = run.step, run.step.stage, self.context.names
        documents = self.documents
        context = _silent(self.context if run.alone else copy(self.context))
        filters: tuple[Filter, ...] = ()
        if first or item.stage.searches or item.pre_filters is not None:
            documents, filters = await self._narrowed(step, first, context)
        if not first and item.stage.searches and not documents:
            return Output([], searched=context.searched)
        state = State(documents, first and item.stage.source, filters, step.plan)
        if item.batch_size is not None:
            state.batch_size = known(item.batch_size, names, "batch_size")
        if item.when is not None and not state.first:
            made = await self._run_where(run, state, context)
        elif state.batch_size is not None:
            made = await self._in_batches(run, state, context)
        else:
            made = await item.stage.run(state, item.params, context)
        return output_of(made, state, context)

    async def _narrowed(self, step: Step, first: bool, context: Context) -> tuple[Documents, tuple[Filter, ...]]:
        """The documents that a step runs on, and the filters that it has to apply while it searches."""
        item, names, documents = step.stage, self.context.names, self.documents
        filters: list[Filter | None] = []
        if first:
            filters.append(self._filter)
        for moved in (*step.before, *step.after):
            assert moved.stage.filter is not None
            filters.append(moved.stage.filter(moved.params, names))
            if moved.pre_filters is not None:
                filters.append(moved.pre_filters.value(names))
        own = None if item.pre_filters is None else item.pre_filters.value(names)
        if first and not item.stage.source:
            documents = await self._all_documents(all_of(self._filter, own), context)
        elif first or item.stage.searches:
            filters.append(own)
            if not first:
                filters.append(self._filter)
        elif own is not None:
            documents = [document for document in documents if matches(own, document)]
        return documents, tuple(part for part in filters if part is not None)

    async def _in_batches(self, run: _Ran, state: State, context: Context) -> Documents:
        """Run a stage on one part of its documents after the other, where that is the same and a size is declared.

        Between parts it looks at the budget; what is done by then stays done.
        """
        item, size, documents = run.step.stage, state.batch_size, state.documents
        if size is None or not item.stage.splits(item.params) or state.first or len(documents) <= size:
            return await item.stage.run(state, item.params, context)
        made: Documents = []
        for start in range(0, len(documents), size):
            if start:
                reason = self._budget.over_credits(item, min(size, len(documents) - start), state.credits)
                if reason is not None:
                    raise OverBudget(reason)
            state.documents = documents[start : start + size]
            made += await item.stage.run(state, item.params, context)
            if item.when is None:
                run.output = output_of(made + documents[start + size :], state, context)
        state.documents = documents
        return made

    async def _run_where(self, run: _Ran, state: State, context: Context) -> Documents:
        """Run the stage on the documents that satisfy its `when`; the others keep their place."""
        when, names = run.step.stage.when, context.names
        assert when is not None
        chosen = [matches(when.value({**names, "DOC": document}), document) for document in state.documents]
        whole = state.documents
        state.documents = [document for document, applies in zip(whole, chosen, strict=True) if applies]
        output = await self._in_batches(run, state, context)
        untouched = [document for document, applies in zip(whole, chosen, strict=True) if not applies]
        if len(output) != sum(chosen):
            return untouched + output
        changed = iter(output)
        return [next(changed) if applies else document for document, applies in zip(whole, chosen, strict=True)]

    async def _all_documents(self, filter: Filter | None, context: Context) -> Documents:
        """What a pipeline starts from whose first stage finds nothing itself."""
        if not self.pipeline.collections:
            return []
        scope = search.in_collections([collection.id for collection in self.pipeline.collections])
        documents, more = await search.scan(
            context.vectors,
            self.pipeline.namespace.vector_collection,
            all_of(scope, filter) or scope,
            limit=search.MAX_SCAN,
        )
        if more:
            context.warnings.append(f"the pipeline starts from the first {search.MAX_SCAN} documents only")
        return documents

    # -- what is told

    def _stop(self, steps: Sequence[Step], reason: str) -> None:
        for step in steps:
            for item in step.items:
                self._degrade(item, reason, "raise the retriever's budget_limits, or do less in its stages")
                self._tell("stage_error", item, error=reason)

    def _degrade(self, item: Declared, reason: str, next_step: str) -> None:
        self.degraded.append(
            {
                "resource": "stage",
                "id": item.stage.info.id,
                "reason": reason,
                "next_step": next_step,
                "stage": item.name,
            }
        )

    def _count(
        self,
        item: Declared,
        given: int,
        made: int,
        began: float,
        *,
        error: str | None = None,
        metadata: dict[str, Any] | None = None,
        cached_at: float | None = None,
    ) -> None:
        duration_ms = round((self._clock.monotonic() - began) * 1_000_000) / 1000
        entry: dict[str, Any] = {
            "input_count": given,
            "output_count": made,
            "duration_ms": duration_ms,
            "efficiency": 1.0 if made == given > 0 else round(made / given, 6) if given else 0.0,
            "cache_hit": cached_at is not None,
            "cached_at": cached_at,
        }
        if error is not None:
            entry["error"] = error
        if metadata:
            entry["metadata"] = metadata
        self.statistics[item.name] = entry
        score = self.documents[0].get("score") if self.documents else None
        seen = {"count": made, "input_count": given, "duration_ms": duration_ms, "top_score": score}
        stages = self.context.names["STAGE"]
        stages[item.name] = seen
        stages.setdefault(item.stage.info.id, seen)

    def _tell_start(self, steps: Sequence[Step]) -> None:
        if self._watch is None:
            return
        for step in steps:
            for item in step.items:
                self._tell("stage_start", item)

    def _tell(self, event: str, item: Declared, **more: Any) -> None:
        if self._watch is None:
            return
        self._watch(
            {
                "event_type": event,
                "execution_id": self.id,
                "stage_name": item.name,
                "stage_index": item.index,
                "total_stages": self.pipeline.stage_count,
                **more,
                "budget_used": {
                    "credits_used": self.credits,
                    "time_elapsed_ms": round(self.elapsed_ms(), 3),
                    "tokens_used": sum(_tokens(entry) for entry in self.statistics.values()),
                },
            }
        )


def _silent(context: Context) -> Context:
    """The context that nothing has been told yet: what one step tells is its output's alone."""
    context.facets, context.aggregations, context.warnings, context.limits, context.signals = [], {}, [], [], []
    return context


def _tokens(entry: Mapping[str, Any]) -> int:
    found = (entry.get("metadata") or {}).get("tokens_used", 0)
    return found if isinstance(found, int) else 0


def _looks_back(step: Step) -> bool:
    """Whether its templates use what earlier stages left behind."""
    return any(path[0] in ("STAGE", "CONTEXT") for item in step.items for path in item.uses)


def _merged(given: Documents, runs: Sequence[_Ran]) -> Documents:
    """The documents with what each step wrote; of several each wrote fields of its own into the same documents."""
    if len(runs) == 1:
        output = runs[0].output
        return given if output is None else output.documents
    outputs = [(run.step, run.output.documents) for run in runs if run.output is not None]
    whole = given
    for step, documents in outputs:
        if len(documents) != len(given):
            raise InternalError(f"the stage {step.stage.stage.info.id} says that it keeps every document, and does not")
        whole = [merged(document, changed, step.writes) for document, changed in zip(whole, documents, strict=True)]
    return whole
