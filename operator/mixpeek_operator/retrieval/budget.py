"""What one execution may take, in credits and time; that of a pipeline (`budget_limits`) and those of its stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mixpeek_operator.core.clock import Clock
from mixpeek_operator.retrieval.compile import Pipeline, Step
from mixpeek_operator.retrieval.declaration import Declared

_NO_TIME: Final = "the execution's time is used up"


class OverBudget(Exception):
    """A step has to stop before its end."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Budget:
    """What is spent and what is left, from now on. Nothing that is not bounded is looked at."""

    def __init__(self, pipeline: Pipeline, clock: Clock) -> None:
        self.credits = 0.0
        """Spent."""
        self._pipeline = pipeline
        self._clock = clock
        self._started = clock.monotonic()

    def elapsed_ms(self) -> float:
        """Milliseconds since the execution began."""
        return (self._clock.monotonic() - self._started) * 1000

    def time_left(self, item: Declared) -> tuple[float | None, str]:
        """Seconds a stage may take, None for any number, and what to say when they are over."""
        if not self._pipeline.bounded:
            return None, _NO_TIME
        whole, own = self._pipeline.max_time_ms, item.max_time_ms
        left = None if whole is None else max(0.001, (whole - self.elapsed_ms()) / 1000)
        if own is not None and (left is None or own / 1000 < left):
            return own / 1000, f"the time of the stage {item.name!r} is used up"
        return left, _NO_TIME

    def over(self, steps: Sequence[Step], documents: int) -> str | None:
        """Why steps may not begin on so many documents; None when they may."""
        if not self._pipeline.bounded:
            return None
        limit = self._pipeline.max_time_ms
        if limit is not None and self.elapsed_ms() >= limit:
            return _NO_TIME
        for step in steps:
            reason = self.over_credits(step.stage, documents, 0.0)
            if reason is not None:
                return reason
        return None

    def over_credits(self, item: Declared, documents: int, used: float) -> str | None:
        """Why a stage that has used credits may not go on with so many documents; None when it may."""
        limit, own, estimate = self._pipeline.max_credits, item.max_credits, item.stage.estimate
        if estimate is None or (limit is None and own is None):
            return None
        _, cost, _ = estimate(item.params, documents)
        for most, spent in ((limit, self.credits + used), (own, used)):
            if most is not None and cost > 0 and spent + cost > most:
                return f"the stage may cost {cost:g} credits and {max(0.0, most - spent):g} are left"
        return None
