"""Benchmarks: retrievers head to head, by replaying what users searched and seeing where their choices would be."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field

from mixpeek_operator.core import ids
from mixpeek_operator.core.clock import Clock, timestamp
from mixpeek_operator.core.directory import Directory, RetrieverInfo
from mixpeek_operator.core.errors import MixpeekError, NotFoundError, SpecError
from mixpeek_operator.core.filters import Compare, Operator, Or, all_of, equals
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.ingestion.records import namespace_of
from mixpeek_operator.ports.metadata import MetadataStore
from mixpeek_operator.relevance import alignment
from mixpeek_operator.relevance.replay import Answer, Replayer
from mixpeek_operator.relevance.runs import PRIVATE, HeldRun
from mixpeek_operator.relevance.sessions import MAX_INTERACTIONS, Session, SessionFilter, sample, sessions_of
from mixpeek_operator.retrieval.feedback import TABLE as INTERACTIONS

TABLE: Final = "benchmarks"
_BETWEEN_SAVES: Final = 50


class BenchmarkCreate(BaseModel):
    """A new benchmark."""

    model_config = ConfigDict(extra="forbid")

    benchmark_name: str = Field(min_length=1, max_length=255, description="What it is called.")
    baseline_retriever_id: str = Field(min_length=1, description="The retriever to compare with, by id or name.")
    candidate_retriever_ids: list[str] = Field(
        min_length=1, max_length=20, description="The retrievers that may replace it, by id or name."
    )
    session_filter: SessionFilter | None = Field(default=None, description="Which sessions are replayed.")
    session_count: int = Field(default=1000, ge=10, le=10_000, description="Most sessions that are replayed.")


class Benchmarks:
    """Benchmarks of a namespace; `run` is the work of `Runs`."""

    table = TABLE
    open = ("pending", "building_sessions", "replaying", "computing_metrics")

    def __init__(self, metadata: MetadataStore, directory: Directory, replayer: Replayer, clock: Clock) -> None:
        self._metadata = metadata
        self._directory = directory
        self._replayer = replayer
        self._clock = clock
        self.on_start: Callable[[], None] = lambda: None

    async def create(self, scope: Scope, given: BenchmarkCreate) -> dict[str, Any]:
        """Store a benchmark to be run. Raises NotFoundError for a retriever that is not in the namespace."""
        namespace_id = namespace_of(scope)
        baseline = await self._directory.retriever(namespace_id, given.baseline_retriever_id)
        named = [await self._directory.retriever(namespace_id, name) for name in given.candidate_retriever_ids]
        candidates = list(dict.fromkeys(item.id for item in named))
        if baseline.id in candidates:
            raise SpecError(f"{baseline.name!r} is the baseline, so no candidate", code="candidate_is_baseline")
        chosen = (given.session_filter or SessionFilter()).model_dump(mode="json", exclude_none=True)
        if chosen.get("retriever_ids"):
            of = [await self._directory.retriever(namespace_id, name) for name in chosen["retriever_ids"]]
            chosen["retriever_ids"] = [item.id for item in of]
        now = timestamp(self._clock.now())
        id = ids.random("bench")
        body = {
            "benchmark_id": id,
            "benchmark_name": given.benchmark_name,
            "baseline_retriever_id": baseline.id,
            "candidate_retriever_ids": candidates,
            "session_filter": chosen,
            "session_count": given.session_count,
            "status": "pending",
            "results": None,
            "comparison": None,
            "created_at": now,
            "updated_at": now,
            "started_at": None,
            "completed_at": None,
            "error_message": None,
            "namespace_id": namespace_id,
            "internal_id": scope.organization,
            "state": "pending",
        }
        await self._metadata.put(TABLE, namespace_id, id, body, if_version=0)
        self.on_start()
        return _render(body)

    async def find(
        self, scope: Scope, *, retriever: str | None, status: str | None, page: int, page_size: int
    ) -> tuple[list[dict[str, Any]], int]:
        """Return a page of benchmarks, newest first, and how many there are; of one retriever, or all."""
        namespace_id = namespace_of(scope)
        mine = None
        if retriever is not None:
            id = (await self._directory.retriever(namespace_id, retriever)).id
            mine = Or((equals("baseline_retriever_id", id), Compare("candidate_retriever_ids", Operator.CONTAINS, id)))
        wanted = all_of(mine, equals("status", status.lower()) if status else None)
        records = await self._metadata.find(
            TABLE,
            namespace_id,
            filter=wanted,
            sort=(("created_at", "desc"),),
            limit=page_size,
            offset=(page - 1) * page_size,
        )
        return [_render(record.body) for record in records], await self._metadata.count(TABLE, namespace_id, wanted)

    async def get(self, scope: Scope, benchmark_id: str) -> dict[str, Any]:
        """Return one benchmark. Raises NotFoundError."""
        record = await self._metadata.get(TABLE, namespace_of(scope), benchmark_id)
        if record is None:
            raise _absent(benchmark_id)
        return _render(record.body)

    async def delete(self, scope: Scope, benchmark_id: str) -> None:
        """Delete a benchmark; one that runs stops. Raises NotFoundError."""
        if not await self._metadata.delete(TABLE, namespace_of(scope), benchmark_id):
            raise _absent(benchmark_id)

    async def run(self, held: HeldRun) -> None:
        """Replay the sessions against every retriever and store how they compare."""
        body = held.body
        scope = Scope(str(body["internal_id"]), str(body["namespace_id"]))
        names = [str(body["baseline_retriever_id"]), *map(str, body["candidate_retriever_ids"])]
        retrievers = [await self._directory.retriever(str(scope.namespace_id), name) for name in names]
        await _advance(held, "building_sessions", started_at=held.now())
        sessions = await self._sessions(held)
        await _advance(held, "replaying", session_count=len(sessions))
        replays: list[list[tuple[Session, Answer | None]]] = [[] for _ in retrievers]
        errors: list[Counter[str]] = [Counter() for _ in retrievers]
        for turn, session in enumerate(sessions):
            # Each retriever goes first as often as the others, so that none has warmer caches below.
            for offset in range(len(retrievers)):
                index = (turn + offset) % len(retrievers)
                answer, error = await self._replayed(scope, retrievers[index], session)
                replays[index].append((session, answer))
                if error is not None:
                    errors[index][error] += 1
            if turn % _BETWEEN_SAVES == _BETWEEN_SAVES - 1:
                await held.save()
        await _advance(held, "computing_metrics")
        results, comparisons = [], []
        for index, retriever in enumerate(retrievers):
            against = alignment.pairs(replays[0], replays[index])
            results.append(
                {
                    "retriever_id": retriever.id,
                    "retriever_name": retriever.name,
                    "pipeline_hash": _hash(retriever),
                    "metrics": alignment.metrics(replays[index], against),
                    "taxonomy_deltas": None,
                    "latency": alignment.latency(replays[index]),
                    "failed_sessions": errors[index].total(),
                    "error_summary": dict(errors[index]),
                }
            )
            if index:
                comparisons.append(alignment.compare(retriever.id, against))
        comparison = {
            "baseline_retriever_id": retrievers[0].id,
            "comparisons": comparisons,
            "recommendation": alignment.recommendation(
                comparisons, {item.id: item.name for item in retrievers}, len(sessions)
            ),
        }
        await _advance(held, "completed", release=True, completed_at=held.now(), results=results, comparison=comparison)

    async def fail(self, held: HeldRun, reason: str) -> None:
        """Store that it failed, for its user to read."""
        await _advance(held, "failed", release=True, completed_at=held.now(), error_message=reason)

    async def _sessions(self, held: HeldRun) -> list[Session]:
        chosen = SessionFilter.model_validate(held.body["session_filter"])
        records = await self._metadata.find(
            INTERACTIONS,
            str(held.body["namespace_id"]),
            filter=chosen.condition(),
            sort=(("timestamp", "desc"),),
            limit=MAX_INTERACTIONS,
        )
        sessions = sessions_of((record.body for record in records), chosen)
        if not sessions:
            raise SpecError(
                f"none of {len(records)} interactions makes a session to replay: it needs a query_snapshot (or the "
                "execution_id of an execution that is still in the history) and a document that users wanted",
                code="no_sessions",
            )
        return sample(sessions, int(held.body["session_count"]), chosen.sample_strategy, held.id)

    async def _replayed(
        self, scope: Scope, retriever: RetrieverInfo, session: Session
    ) -> tuple[Answer | None, str | None]:
        try:
            answer = await self._replayer.ask(
                scope, retriever.id, session.query, depth=alignment.DEPTH, user_id=session.user_id
            )
        except MixpeekError as error:
            return None, error.code
        return answer, None


async def _advance(held: HeldRun, status: str, *, release: bool = False, **changes: Any) -> None:
    await held.save(release=release, status=status, state=status, **changes)


def _hash(retriever: RetrieverInfo) -> str:
    parts = [retriever.stages, retriever.collection_ids]
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS, default=dict)).hexdigest()[:16]


def _absent(benchmark_id: str) -> NotFoundError:
    return NotFoundError(f"there is no benchmark {benchmark_id!r} in this namespace")


def _render(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in PRIVATE}
