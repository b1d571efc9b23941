"""Timing and printing. A figure is always a ratio against the bare part in the same run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of repeated calls."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def p99(self) -> float:
        ordered = sorted(self.samples)
        return ordered[min(len(ordered) - 1, round(0.99 * (len(ordered) - 1)))]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    what: str
    ours: str
    bare: str
    result: str
    aim: str


def timed(call: Callable[[], object], *, repeat: int, warm_up: int = 5) -> Timing:
    """Return the time of each of `repeat` calls after `warm_up` uncounted ones."""
    for _ in range(warm_up):
        call()
    return Timing(tuple(_once(call) for _ in range(repeat)))


def paired(
    one: Callable[[], object], other: Callable[[], object], *, repeat: int, warm_up: int = 5, block: int = 1
) -> tuple[Timing, Timing]:
    """Time two calls in turn, so that both see the same weather on the machine.

    `block` is how often each is called before the other's turn: more than once where a server goes on working behind
    its answer, which its own next call has to wait for and not the other's.
    """
    for _ in range(warm_up):
        one()
        other()
    ones: list[float] = []
    others: list[float] = []
    while len(ones) < repeat:
        ones += [_once(one) for _ in range(block)]
        others += [_once(other) for _ in range(block)]
    return Timing(tuple(ones)), Timing(tuple(others))


def milliseconds(timing: Timing) -> str:
    """`0.62 ms (p99 0.91)`."""
    return f"{timing.median * 1000:.2f} ms (p99 {timing.p99 * 1000:.2f})"


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    from mixpeek_operator.cli import output

    columns = ["WHAT", "OURS", "BARE", "RESULT", "AIM"]
    output.table(columns, [(row.what, row.ours, row.bare, row.result, row.aim) for row in rows])


def _once(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
