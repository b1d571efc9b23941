"""Walking a pipeline: one execution, its working set, statistics and budget."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from mixpeek_operator.core.errors import MixpeekError
from mixpeek_operator.core.filters import Filter, all_of, matches
from mixpeek_operator.retrieval import search
from mixpeek_operator.retrieval.compile import Pipeline, Step
from mixpeek_operator.retrieval.declaration import Declared
from mixpeek_operator.retrieval.pagination import Order
from mixpeek_operator.retrieval.stage import Context, Documents, State


class ExecutionContext(Mapping[str, Any]):
    """`CONTEXT` in templates: what the execution knows of itself, computed when it is asked for."""

    __slots__ = ("_execution", "_extra")

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._extra: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        if key in self._extra:
            return self._extra[key]
        execution = self._execution
        pipeline = execution.pipeline
        if key == "budget_remaining":
            return None if pipeline.max_credits is None else pipeline.max_credits - execution.credits
        if key == "credits_used":
            return execution.credits
        if key == "time_elapsed_ms":
            return execution.elapsed_ms()
        values = {
            "namespace_id": pipeline.namespace.id,
            "namespace": pipeline.namespace.name,
            "internal_id": pipeline.namespace.organization,
            "retriever_id": pipeline.retriever.id,
            "retriever_name": pipeline.retriever.name,
            "execution_id": execution.id,
            "document_count": len(execution.documents),
        }
        return values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(
            (*self._extra, "budget_remaining", "credits_used", "time_elapsed_ms", "namespace_id", "execution_id")
        )

    def __len__(self) -> int:
        return len(list(iter(self)))

    def keep(self, alias: str, value: Any) -> None:
        """Make a stage's output available as `CONTEXT.<alias>`."""
        self._extra[alias] = value


class Execution:
    """One run of a pipeline."""

    def __init__(self, id: str, pipeline: Pipeline, context: Context, filter: Filter | None) -> None:
        self.id = id
        self.pipeline = pipeline
        self.context = context
        self.documents: Documents = []
        self.credits = 0.0
        self.processed = 0
        self.order = Order()
        self.statistics: dict[str, dict[str, Any]] = {}
        self.degraded: list[dict[str, Any]] = []
        self.asked: dict[str, Any] = {}
        """What the history tells of the request: inputs, session_id, user_id."""
        self.recorded = True
        self._filter = filter
        self._clock = context.clock
        self._started = context.clock.monotonic()
        self._known = ExecutionContext(self)
        context.names["CONTEXT"] = self._known
        context.names["STAGE"] = {}

    @property
    def status(self) -> str:
        return "degraded" if self.degraded else "completed"

    def elapsed_ms(self) -> float:
        """Milliseconds since the execution began."""
        return (self._clock.monotonic() - self._started) * 1000

    async def run(self) -> Documents:
        """Walk all steps, or as many as the budget allows. Raises what a stage raises unless it is to be skipped."""
        for position, step in enumerate(self.pipeline.steps):
            reason = self._over_budget(step)
            if reason is not None:
                self._stop(self.pipeline.steps[position:], reason)
                break
            if not await self._step(position, step):
                break
        return self.documents

    async def _step(self, position: int, step: Step) -> bool:
        item, first = step.stage, position == 0
        began = self._clock.monotonic()
        names = self.context.names
        names["STAGE"]["name"] = item.name
        given = self.documents
        try:
            timeout = self._remaining_s()
            if timeout is None:
                output, state = await self._run(step, first)
            else:
                async with asyncio.timeout(timeout):
                    output, state = await self._run(step, first)
        except TimeoutError:
            if self._over_time() is None:
                raise
            self._stop(self.pipeline.steps[position:], "the execution's time is used up")
            return False
        except MixpeekError as error:
            if not item.skip_errors:
                raise
            self._degrade(item, error.message, "repair the stage; the documents before it were kept")
            self._count(item, len(given), len(given), began, error=error.message)
            return True
        self.credits += state.credits
        self.documents = output
        seen = len(given) if not first or given else len(output)
        if item.stage.source and first:
            seen = 0
        for filter_stage in step.before:
            self._count(filter_stage, 0, 0, self._clock.monotonic(), metadata={"pushed_down": True})
        self._count(item, seen, len(output), began, metadata=state.metadata)
        for filter_stage in step.after:
            self._count(filter_stage, len(output), len(output), self._clock.monotonic(), metadata={"pushed_down": True})
        if item.stage.order is not None:
            self.order = item.stage.order(item.params, names) or self.order
        if item.output_alias is not None:
            self._known.keep(item.output_alias, output)
        return True

    async def _run(self, step: Step, first: bool) -> tuple[Documents, State]:
        item, names = step.stage, self.context.names
        documents = self.documents
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
            documents = await self._all_documents(all_of(self._filter, own))
        elif first or item.stage.searches:
            filters.append(own)
            if not first:
                filters.append(self._filter)
        elif own is not None:
            documents = [document for document in documents if matches(own, document)]
        if not first and item.stage.searches and not documents:
            return [], State([], first=False)
        present = tuple(part for part in filters if part is not None)
        state = State(documents, first=first and item.stage.source, filters=present, plan=step.plan)
        if item.when is None or state.first:
            output = await item.stage.run(state, item.params, self.context)
        else:
            output = await self._run_where(item, state)
        self.processed += max(len(documents), len(output))
        return output, state

    async def _run_where(self, item: Declared, state: State) -> Documents:
        """Run the stage on the documents that satisfy its `when`; the others keep their place."""
        assert item.when is not None
        names = self.context.names
        chosen = [matches(item.when.value({**names, "DOC": document}), document) for document in state.documents]
        whole = state.documents
        state.documents = [document for document, applies in zip(whole, chosen, strict=True) if applies]
        output = await item.stage.run(state, item.params, self.context)
        untouched = [document for document, applies in zip(whole, chosen, strict=True) if not applies]
        if len(output) != len(state.documents):
            return untouched + output
        changed = iter(output)
        return [next(changed) if applies else document for document, applies in zip(whole, chosen, strict=True)]

    async def _all_documents(self, filter: Filter | None) -> Documents:
        """What a pipeline starts from whose first stage finds nothing itself."""
        if not self.pipeline.collections:
            return []
        scope = search.in_collections([collection.id for collection in self.pipeline.collections])
        documents, more = await search.scan(
            self.context.vectors,
            self.pipeline.namespace.vector_collection,
            all_of(scope, filter) or scope,
            limit=search.MAX_SCAN,
        )
        if more:
            self.context.warnings.append(f"the pipeline starts from the first {search.MAX_SCAN} documents only")
        return documents

    def _over_time(self) -> str | None:
        limit = self.pipeline.max_time_ms
        return "the execution's time is used up" if limit is not None and self.elapsed_ms() >= limit else None

    def _remaining_s(self) -> float | None:
        limit = self.pipeline.max_time_ms
        return None if limit is None else max(0.001, (limit - self.elapsed_ms()) / 1000)

    def _over_budget(self, step: Step) -> str | None:
        late = self._over_time()
        if late is not None:
            return late
        limit, estimate = self.pipeline.max_credits, step.stage.stage.estimate
        if limit is None or estimate is None:
            return None
        _, cost, _ = estimate(step.stage.params, len(self.documents))
        if cost > 0 and self.credits + cost > limit:
            return f"the stage may cost {cost:g} credits and {max(0.0, limit - self.credits):g} are left"
        return None

    def _stop(self, steps: tuple[Step, ...], reason: str) -> None:
        for step in steps:
            for item in (*step.before, step.stage, *step.after):
                self._degrade(item, reason, "raise the retriever's budget_limits, or do less in its stages")

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
    ) -> None:
        duration_ms = round((self._clock.monotonic() - began) * 1000, 3)
        entry: dict[str, Any] = {
            "input_count": given,
            "output_count": made,
            "duration_ms": duration_ms,
            "efficiency": round(made / given, 6) if given else 0.0,
            "cache_hit": False,
            "cached_at": None,
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
