"""What the operator counts. One registry per process part, no globals."""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from mixpeek_operator.core import conditions
from mixpeek_operator.core.engine import Engine
from mixpeek_operator.core.index import ResourceIndex
from mixpeek_operator.core.resource import ResourceKey
from mixpeek_operator.core.visit import Outcome

_BUCKETS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)


class Metrics:
    """The registry, and the numbers that are counted as things happen."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.reconciles = Counter(
            "mixpeek_reconciles",
            "Visits to a resource, by what follows.",
            ("kind", "again"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "mixpeek_reconcile_seconds", "Time of one visit.", ("kind",), buckets=_BUCKETS, registry=self.registry
        )

    def watch(self, index: ResourceIndex, *, gauges: Callable[[], Iterable[tuple[str, str, float]]]) -> None:
        """Add what is read when somebody asks: resources by state, and `gauges` as (name, help, value)."""
        self.registry.register(_State(index, gauges))


class Measured:
    """An engine whose visits are counted."""

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self._engine = engine
        self._metrics = metrics

    async def reconcile(self, key: ResourceKey, *, reading: Callable[[], None]) -> Outcome:
        """As the engine does."""
        began = time.perf_counter()
        again = "failed"
        try:
            outcome = await self._engine.reconcile(key, reading=reading)
            again = str(outcome.again)
            return outcome
        finally:
            self._metrics.reconciles.labels(key.kind, again).inc()
            self._metrics.seconds.labels(key.kind).observe(time.perf_counter() - began)


class _State(Collector):
    def __init__(self, index: ResourceIndex, gauges: Callable[[], Iterable[tuple[str, str, float]]]) -> None:
        self._index = index
        self._gauges = gauges

    def collect(self) -> Iterator[GaugeMetricFamily]:
        tally: Tally[tuple[str, str]] = Tally()
        for key in self._index.everything():
            resource = self._index.get(key)
            if resource is not None:
                ready = (conditions.read(resource.status, conditions.READY) or {}).get("status", "Unknown")
                tally[key.kind, str(ready)] += 1
        resources = GaugeMetricFamily("mixpeek_resources", "Resources by kind and readiness.", labels=("kind", "ready"))
        for labels, count in sorted(tally.items()):
            resources.add_metric(labels, count)
        yield resources
        for name, help, value in self._gauges():
            yield GaugeMetricFamily(name, help, value=value)
