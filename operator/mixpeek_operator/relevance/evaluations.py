"""Evaluations: a retriever's answers to the queries of a dataset, measured against its judgments."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, field_validator

from mixpeek_operator.core import ids
from mixpeek_operator.core.clock import Clock, timestamp
from mixpeek_operator.core.directory import Directory
from mixpeek_operator.core.errors import ConflictError, MixpeekError, NotFoundError, SpecError
from mixpeek_operator.core.filters import Compare, Operator, all_of, equals
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.ingestion.records import namespace_of
from mixpeek_operator.ingestion.tasks import OPEN, Tasks, TaskStatus, task_record, task_write
from mixpeek_operator.ports.metadata import MetadataStore, Write
from mixpeek_operator.relevance.datasets import MAX_QUERIES, DatasetCreate, Datasets, JudgedQuery, judgments
from mixpeek_operator.relevance.interactions import InteractionType
from mixpeek_operator.relevance.metrics import METRICS, Judgments, mean
from mixpeek_operator.relevance.replay import Replayer
from mixpeek_operator.relevance.runs import PRIVATE, HeldRun
from mixpeek_operator.relevance.sessions import MAX_INTERACTIONS
from mixpeek_operator.retrieval.feedback import TABLE as INTERACTIONS

TABLE: Final = "evaluations"
TASK_TYPE: Final = "api_evaluations_run"
Status = Literal["pending", "in_progress", "completed", "failed"]
_AT_ONCE: Final = 4
_BETWEEN_SAVES: Final = 20
_Metric = Literal["precision", "recall", "f1", "f2", "map", "ndcg", "mrr"]


class EvaluationConfig(BaseModel):
    """What is measured."""

    model_config = ConfigDict(extra="forbid")

    k_values: Annotated[list[Annotated[int, Field(ge=1, le=1000)]], Field(min_length=1, max_length=50)] = Field(
        default=[1, 5, 10, 20], description="Each metric is measured over so many first documents."
    )
    metrics: Annotated[list[_Metric], Field(min_length=1)] = Field(
        default=["precision", "recall", "f1", "map", "ndcg", "mrr"], description="What to measure."
    )

    @field_validator("k_values", "metrics", mode="before")
    @classmethod
    def _absent(cls, value: Any, info: Any) -> Any:
        return cls.model_fields[info.field_name].default if value is None else value


class EvaluationStart(BaseModel):
    """A new evaluation."""

    model_config = ConfigDict(extra="forbid")

    dataset_name: str = Field(min_length=1, description="The dataset, by name or id.")
    evaluation_config: EvaluationConfig | None = Field(default=None, description="What is measured.")


class DatasetFromInteractions(BaseModel):
    """A dataset to be made of what users wanted."""

    model_config = ConfigDict(extra="forbid")

    dataset_name: str | None = Field(default=None, min_length=1, max_length=200, description="auto_<retriever>_<date>.")
    min_interactions: int = Field(default=5, ge=1, description="Least interactions of a query that is taken.")
    lookback_days: int = Field(default=30, ge=1, le=365, description="Days of interactions to look at.")
    positive_interaction_types: list[InteractionType] = Field(
        default=[InteractionType(name) for name in ("click", "purchase", "positive_feedback", "bookmark", "share")],
        min_length=1,
        description="Interactions that say a document was wanted.",
    )


class Evaluations:
    """Evaluations of retrievers; `run` is the work of `Runs`."""

    table = TABLE
    open = ("pending", "in_progress")

    def __init__(
        self,
        metadata: MetadataStore,
        directory: Directory,
        datasets: Datasets,
        tasks: Tasks,
        replayer: Replayer,
        clock: Clock,
    ) -> None:
        self._metadata = metadata
        self._directory = directory
        self._datasets = datasets
        self._tasks = tasks
        self._replayer = replayer
        self._clock = clock
        self.on_start: Callable[[], None] = lambda: None

    async def start(self, scope: Scope, retriever: str, given: EvaluationStart) -> dict[str, Any]:
        """Store an evaluation to be run. Raises NotFoundError for an unknown retriever or dataset."""
        namespace_id = namespace_of(scope)
        found = await self._directory.retriever(namespace_id, retriever)
        dataset = await self._datasets.get(scope, given.dataset_name)
        now = timestamp(self._clock.now())
        id = ids.random("eval")
        task = task_record(
            scope, TASK_TYPE, now, inputs=[found.id, dataset["dataset_id"]], additional_data={"evaluation_id": id}
        )
        config = given.evaluation_config or EvaluationConfig()
        body = {
            "evaluation_id": id,
            "retriever_id": found.id,
            "dataset_id": dataset["dataset_id"],
            "dataset_name": dataset["dataset_name"],
            "config": {"k_values": sorted(set(config.k_values)), "metrics": list(dict.fromkeys(config.metrics))},
            "status": "pending",
            "created_at": now,
            "updated_at": now,
            "completed_at": None,
            "namespace_id": namespace_id,
            "internal_id": scope.organization,
            "query_count": 0,
            "total_queries": dataset["query_count"],
            "evaluated_queries": 0,
            "skipped_queries": 0,
            "overall_metrics": None,
            "metrics_by_k": None,
            "query_results": None,
            "error_message": None,
            "task_id": task["task_id"],
            "state": "pending",
        }
        await self._metadata.transact([Write(TABLE, namespace_id, id, body, 0), task_write(scope.organization, task)])
        self.on_start()
        return {
            "task_id": task["task_id"],
            "evaluation_id": id,
            "task_type": TASK_TYPE,
            "status": "pending",
            "created_at": now,
        }

    async def dataset_of(self, scope: Scope, retriever: str, given: DatasetFromInteractions) -> dict[str, Any]:
        """Store a dataset of the queries and documents of a retriever's interactions.

        Raises SpecError when no query has enough, AlreadyExistsError when the name is taken.
        """
        namespace_id = namespace_of(scope)
        found = await self._directory.retriever(namespace_id, retriever)
        now = self._clock.now()
        since = Compare("timestamp", Operator.GTE, timestamp(now - timedelta(days=given.lookback_days)))
        records = await self._metadata.find(
            INTERACTIONS,
            namespace_id,
            filter=all_of(equals("retriever_id", found.id), since),
            sort=(("timestamp", "desc"),),
            limit=MAX_INTERACTIONS,
        )
        queries: dict[bytes, tuple[dict[str, Any], Counter[str]]] = {}
        for record in records:
            query = record.body.get("query_snapshot")
            if query and set(record.body["interaction_type"]) & set(given.positive_interaction_types):
                key = orjson.dumps(query, option=orjson.OPT_SORT_KEYS)
                queries.setdefault(key, (query, Counter()))[1][str(record.body["feature_id"])] += 1
        judged = [
            JudgedQuery(query_id=f"q{number}", query_input=query, relevant_documents=list(wanted))
            for number, (query, wanted) in enumerate(queries.values(), start=1)
            if wanted.total() >= given.min_interactions
        ]
        if not judged:
            raise SpecError(
                f"none of {len(queries)} queries has {given.min_interactions} interactions of the last "
                f"{given.lookback_days} days",
                code="too_few_interactions",
            )
        name = given.dataset_name or f"auto_{found.id}_{now:%Y-%m-%d}"
        metadata = {"retriever_id": found.id, "lookback_days": given.lookback_days}
        return await self._datasets.create(
            scope, DatasetCreate(dataset_name=name, queries=judged[:MAX_QUERIES], metadata=metadata)
        )

    async def find(
        self, scope: Scope, retriever: str, *, status: str | None, dataset_name: str | None, page: int, page_size: int
    ) -> tuple[list[dict[str, Any]], int]:
        """Return a page of a retriever's evaluations, newest first, and how many there are."""
        namespace_id = namespace_of(scope)
        wanted = all_of(
            equals("retriever_id", (await self._directory.retriever(namespace_id, retriever)).id),
            equals("status", status) if status else None,
            equals("dataset_name", dataset_name) if dataset_name else None,
        )
        records = await self._metadata.find(
            TABLE,
            namespace_id,
            filter=wanted,
            sort=(("created_at", "desc"),),
            limit=page_size,
            offset=(page - 1) * page_size,
        )
        return [_render(record.body) for record in records], await self._metadata.count(TABLE, namespace_id, wanted)

    async def get(self, scope: Scope, retriever: str, evaluation_id: str) -> dict[str, Any]:
        """Return one evaluation of a retriever. Raises NotFoundError."""
        namespace_id = namespace_of(scope)
        found = await self._directory.retriever(namespace_id, retriever)
        record = await self._metadata.get(TABLE, namespace_id, evaluation_id)
        if record is None or record.body["retriever_id"] != found.id:
            raise NotFoundError(f"retriever {found.name!r} has no evaluation {evaluation_id!r}")
        return _render(record.body)

    async def run(self, held: HeldRun) -> None:
        """Ask every query and store the measures. Raises NotFoundError when retriever or dataset are gone."""
        body = held.body
        scope = Scope(str(body["internal_id"]), str(body["namespace_id"]))
        await self._move(held, TaskStatus.IN_PROGRESS)
        await held.save(status="in_progress", state="in_progress")
        queries = (await self._datasets.get(scope, str(body["dataset_id"])))["queries"]
        depth = max(body["config"]["k_values"])
        turn = asyncio.Semaphore(_AT_ONCE)
        measured: list[tuple[list[str], Judgments]] = []
        outcomes: list[dict[str, Any]] = []

        async def asked(query: dict[str, Any]) -> tuple[dict[str, Any], list[str], Judgments]:
            judged = judgments(query)
            try:
                if not judged:
                    raise SpecError("no document is relevant to it, so nothing can be measured")
                async with turn:
                    answer = await self._replayer.ask(
                        scope, str(body["retriever_id"]), query["query_input"], depth=depth
                    )
            except MixpeekError as error:
                skipped = {"query_id": query["query_id"], "status": "skipped", "error": error.message}
                return skipped, [], {}
            outcome = {"query_id": query["query_id"], "status": "evaluated", "retrieved_count": len(answer.ranking)}
            return outcome, answer.ranking, judged

        for start in range(0, len(queries), _BETWEEN_SAVES):
            for outcome, ranking, judged in await asyncio.gather(*map(asked, queries[start : start + _BETWEEN_SAVES])):
                outcomes.append(outcome)
                if judged:
                    measured.append((ranking, judged))
            await self._check_task(held)
            await held.save(evaluated_queries=len(measured), skipped_queries=len(outcomes) - len(measured))
        if not measured:
            raise SpecError(f"no query could be evaluated; the first: {outcomes[0]['error']}")
        by_k = _measures(measured, body["config"]["k_values"], body["config"]["metrics"])
        await self._move(held, TaskStatus.COMPLETED, outputs=[held.id])
        await held.save(
            release=True,
            status="completed",
            state="completed",
            completed_at=held.now(),
            query_count=len(measured),
            metrics_by_k=by_k,
            overall_metrics=by_k[str(depth)],
            query_results=outcomes,
        )

    async def fail(self, held: HeldRun, reason: str) -> None:
        """Store that it failed, for its user to read."""
        await self._move(held, TaskStatus.FAILED, error=reason)
        await held.save(release=True, status="failed", state="failed", completed_at=held.now(), error_message=reason)

    async def _move(self, held: HeldRun, status: TaskStatus, **fields: Any) -> None:
        """Move the task along, unless it was canceled or deleted meanwhile."""
        scope = Scope(str(held.body["internal_id"]), str(held.body["namespace_id"]))
        try:
            task = await self._tasks.get(scope, str(held.body["task_id"]))
        except NotFoundError:
            return
        if task["status"] in OPEN:
            await self._tasks.update(scope, task["task_id"], status, **fields)

    async def _check_task(self, held: HeldRun) -> None:
        scope = Scope(str(held.body["internal_id"]), str(held.body["namespace_id"]))
        task = await self._tasks.get(scope, str(held.body["task_id"]))
        if task["status"] == TaskStatus.CANCELED:
            raise ConflictError("it was canceled")


def _measures(
    measured: Sequence[tuple[list[str], Judgments]], k_values: Sequence[int], metrics: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Mean of each metric over all queries, by k as text."""
    return {
        str(k): {name: mean([METRICS[name](ranking, judged, k) for ranking, judged in measured]) for name in metrics}
        for k in k_values
    }


def _render(body: Any) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in PRIVATE}
