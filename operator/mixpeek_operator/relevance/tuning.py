"""Signals of executions, and what they and the interactions say about how to tune a retriever."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from mixpeek_operator.core.clock import Clock, timestamp
from mixpeek_operator.core.directory import Directory, RetrieverInfo
from mixpeek_operator.core.filters import Compare, Filter, Operator, all_of, equals
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.ingestion.records import namespace_of
from mixpeek_operator.ports.metadata import MetadataStore
from mixpeek_operator.relevance.metrics import mean
from mixpeek_operator.relevance.statistics import percentile
from mixpeek_operator.retrieval.declaration import Declared
from mixpeek_operator.retrieval.feedback import TABLE as INTERACTIONS
from mixpeek_operator.retrieval.history import TABLE as EXECUTIONS
from mixpeek_operator.retrieval.history import History
from mixpeek_operator.retrieval.learned import REWARDS
from mixpeek_operator.retrieval.registry import StageRegistry

MAX_RECORDS: Final = 20_000
"""Newest executions and interactions that an analysis looks at."""
_ENOUGH: Final = 20
"""Observations below which nothing is recommended."""
_ENOUGH_TO_LEARN: Final = 100


@dataclass(frozen=True, slots=True)
class Observed:
    """What an analysis goes by."""

    retriever: RetrieverInfo
    stages: Sequence[Declared]
    executions: Sequence[Mapping[str, Any]]
    clicks: Sequence[Mapping[str, Any]]
    """Interactions that say a document was wanted."""


class Tuning:
    """Reads executions and interactions of a retriever."""

    def __init__(
        self, metadata: MetadataStore, directory: Directory, history: History, registry: StageRegistry, clock: Clock
    ) -> None:
        self._metadata = metadata
        self._directory = directory
        self._history = history
        self._registry = registry
        self._clock = clock

    async def signals(
        self, scope: Scope, retriever: str, *, signal_type: str | None, limit: int, hours: int
    ) -> list[dict[str, Any]]:
        """Return the newest signals of a retriever's executions. Raises NotFoundError for an unknown retriever."""
        found = await self._directory.retriever(namespace_of(scope), retriever)
        stages = {stage.name: stage for stage in self._registry.declare(found.stages)[0]}
        wanted: list[dict[str, Any]] = []
        for record in await self._records(scope, EXECUTIONS, "created_at", found.id, timedelta(hours=hours)):
            for signal in _signals(record, stages):
                if signal_type in (None, signal["signal_type"]):
                    wanted.append(signal)
                    if len(wanted) == limit:
                        return wanted
        return wanted

    async def analyze(self, scope: Scope, retriever: str, *, days: int) -> dict[str, Any]:
        """Return how a retriever did in the last days and what to change. Raises NotFoundError."""
        found = await self._directory.retriever(namespace_of(scope), retriever)
        span = timedelta(days=days)
        executions = await self._records(scope, EXECUTIONS, "created_at", found.id, span)
        interactions = await self._records(scope, INTERACTIONS, "timestamp", found.id, span)
        clicks = [item for item in interactions if any(REWARDS.get(name, 0) > 0 for name in item["interaction_type"])]
        observed = Observed(found, self._registry.declare(found.stages)[0], executions, clicks)
        now = self._clock.now()
        return {
            "retriever_id": found.id,
            "analysis_period": {"start": timestamp(now - span), "end": timestamp(now)},
            "recommendations": recommendations(observed),
            "current_performance": performance(observed, len(interactions)),
        }

    async def _records(
        self, scope: Scope, table: str, field: str, retriever_id: str, span: timedelta
    ) -> list[Mapping[str, Any]]:
        await self._history.flush()
        wanted: Filter | None = all_of(
            equals("retriever_id", retriever_id), Compare(field, Operator.GTE, timestamp(self._clock.now() - span))
        )
        records = await self._metadata.find(
            table, namespace_of(scope), filter=wanted, sort=((field, "desc"),), limit=MAX_RECORDS
        )
        return [record.body for record in records]


def performance(observed: Observed, interactions: int) -> dict[str, Any]:
    """Return the figures that recommendations start from; times in milliseconds, places from 0."""
    executions, clicks = observed.executions, observed.clicks
    durations = [float(item["duration_ms"]) for item in executions]
    searched = {item["execution_id"] for item in executions}
    clicked = {item.get("execution_id") for item in clicks} & searched
    return {
        "executions": len(executions),
        "failed_executions": sum(item["status"] == "failed" for item in executions),
        "avg_latency_ms": mean(durations),
        "p95_latency_ms": percentile(durations, 0.95),
        "avg_results": mean([float(item["total_returned"]) for item in executions]),
        "cache_hit_rate": mean([float(item.get("cache_hit_rate") or 0.0) for item in executions]),
        "interactions": interactions,
        "click_through_rate": len(clicked) / len(searched) if searched else 0.0,
        "avg_click_position": mean([float(item["position"]) for item in clicks]),
        "mean_reciprocal_rank": mean([1 / (int(item["position"]) + 1) for item in clicks]),
    }


def recommendations(observed: Observed) -> list[dict[str, Any]]:
    """Return what to change, the surest first."""
    found = [item for rule in _RULES for item in rule(observed)]
    return sorted(found, key=lambda item: -float(item["confidence"]))


def _result_size(observed: Observed) -> Iterator[dict[str, Any]]:
    shown = mean([float(item["total_returned"]) for item in observed.executions if item["status"] != "failed"])
    places = [float(item["position"]) + 1 for item in observed.clicks]
    if len(places) < _ENOUGH or shown < 1:
        return
    at_end = sum(place > 0.8 * shown for place in places) / len(places)
    most = percentile(places, 0.99)
    if at_end >= 0.2:
        yield _recommend(
            "increase_k",
            round(shown),
            round(2 * shown),
            "more of the documents that users want are among the results; searches take longer",
            len(places),
            f"{at_end:.0%} of {len(places)} clicks are in the last fifth of the {shown:.0f} results shown",
        )
    elif most < shown / 4 and shown > 10:
        yield _recommend(
            "decrease_k",
            round(shown),
            max(10, round(2 * most)),
            "faster searches and smaller answers at the same clicks",
            len(places),
            f"99 % of {len(places)} clicks are on the first {most:.0f} of the {shown:.0f} results shown",
        )


def _caching(observed: Observed) -> Iterator[dict[str, Any]]:
    asked = [repr(sorted(item["inputs"].items())) for item in observed.executions if item.get("inputs")]
    if len(asked) < _ENOUGH or observed.retriever.cache_config.get("enabled", True):
        return
    repeated = 1 - len(set(asked)) / len(asked)
    if repeated >= 0.2:
        yield _recommend(
            "enable_cache",
            False,
            True,
            f"about {repeated:.0%} of the executions would be answered from the cache",
            len(asked),
            f"{repeated:.0%} of {len(asked)} executions had inputs that were asked before, and the cache is off",
        )


def _fusing(observed: Observed) -> Iterator[dict[str, Any]]:
    for stage in observed.stages:
        if stage.stage.info.id != "feature_search" or len(stage.params.searches) < 2:
            continue
        if stage.params.fusion != "learned" and len(observed.clicks) >= _ENOUGH_TO_LEARN:
            yield _recommend(
                "use_learned_fusion",
                str(stage.params.fusion),
                "learned",
                "the searches that find what users want count more",
                len(observed.clicks),
                f"{stage.name} fuses {len(stage.params.searches)} searches by fixed weights, and there are "
                f"{len(observed.clicks)} interactions to learn from",
            )


def _ranking(observed: Observed) -> Iterator[dict[str, Any]]:
    places = [float(item["position"]) for item in observed.clicks]
    if len(places) < _ENOUGH or any(stage.stage.info.id == "rerank" for stage in observed.stages):
        return
    if (middle := percentile(places, 0.5)) >= 3:
        yield _recommend(
            "add_rerank",
            None,
            "rerank",
            "wanted documents move up; each search costs the time of the model",
            len(places),
            f"the median click is on result {middle + 1:.0f}, and no stage reranks",
        )


def _slowest(observed: Observed) -> Iterator[dict[str, Any]]:
    spent: dict[str, list[float]] = {}
    for item in observed.executions:
        for name, entry in item["stage_statistics"]["stages"].items():
            spent.setdefault(name, []).append(float(entry["duration_ms"]))
    total = sum(sum(values) for values in spent.values())
    if len(observed.executions) < _ENOUGH or len(spent) < 2 or not total:
        return
    name = max(spent, key=lambda key: sum(spent[key]))
    share = sum(spent[name]) / total
    stage = next((item for item in observed.stages if item.name == name), None)
    behaviour = None if stage is None else stage.params.cache_behavior
    if share >= 0.5 and mean(spent[name]) >= 20 and behaviour == "disabled":
        yield _recommend(
            "cache_stage",
            "disabled",
            "auto",
            f"up to {mean(spent[name]):.0f} ms less where the stage's input is the same",
            len(observed.executions),
            f"{name} takes {share:.0%} of the time and its output is not cached",
        )


_RULES: Final = (_result_size, _caching, _fusing, _ranking, _slowest)


def _recommend(
    kind: str, current: Any, recommended: Any, impact: str, observations: int, reasoning: str
) -> dict[str, Any]:
    return {
        "recommendation_type": kind,
        "current_value": current,
        "recommended_value": recommended,
        "expected_impact": impact,
        # Grows with what was seen: 0.78 for twenty observations, 0.9 for a hundred.
        "confidence": round(1 - 1 / observations**0.5, 3),
        "reasoning": reasoning,
    }


def _signals(record: Mapping[str, Any], stages: Mapping[str, Declared]) -> Iterator[dict[str, Any]]:
    """The signals of one execution: those it stored, and those that its statistics show."""
    told = {"timestamp": record["created_at"], "execution_id": record["execution_id"], "metadata": None}
    for signal in record.get("signals") or ():
        yield {**told, **signal}
    if record["status"] == "failed":
        return
    if (kept := record.get("answer_cache")) is not None:
        data = {"scope": "answer", "duration_ms": record["duration_ms"]}
        yield {**told, "signal_type": f"cache_{kept}", "signal_data": data}
    for name, entry in record["stage_statistics"]["stages"].items():
        stage = stages.get(name)
        data = {"scope": "stage", "stage_name": name, "duration_ms": entry["duration_ms"]}
        if entry.get("cache_hit"):
            yield {**told, "signal_type": "cache_hit", "signal_data": {**data, "cached_at": entry["cached_at"]}}
        elif stage is not None and stage.stage.costly:
            yield {**told, "signal_type": "cache_miss", "signal_data": data}
        if stage is None:
            continue
        counts = {"input_count": entry["input_count"], "output_count": entry["output_count"]}
        kind = _KINDS.get(stage.stage.info.id)
        if kind is not None:
            yield {**told, "signal_type": kind, "signal_data": {**data, **counts, **(entry.get("metadata") or {})}}


_KINDS: Final = {
    "attribute_filter": "filter_reduction",
    "llm_filter": "filter_reduction",
    "rerank": "rerank_scores",
    "query_expand": "expansion_results",
}
"""Signals that stages make by having run."""
