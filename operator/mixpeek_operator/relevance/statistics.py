"""Whether a difference between two retrievers is more than chance. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

_STEPS = 300


def t_test(differences: Sequence[float]) -> tuple[float, tuple[float, float]] | None:
    """Return p of the paired t-test (two-sided, difference 0) and the 95 % confidence interval of the mean.

    None for fewer than two pairs. Equal differences leave nothing to chance: p is then 0, or 1 when they are 0.
    """
    count = len(differences)
    if count < 2:
        return None
    middle = math.fsum(differences) / count
    error = math.sqrt(math.fsum((value - middle) ** 2 for value in differences) / (count - 1) / count)
    if error <= 1e-15 * max(1.0, abs(middle)):
        return (1.0 if middle == 0 else 0.0), (middle, middle)
    freedom = count - 1
    t = middle / error
    spread = error * _critical(freedom)
    return two_sided(t, freedom), (middle - spread, middle + spread)


def two_sided(t: float, freedom: int) -> float:
    """Return the probability of a value of Student's t at least as far from 0."""
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularized incomplete beta function, by its continued fraction."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        # The fraction converges quickly on the other side only.
        return 1 - incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))

    def step(n: int) -> float:
        m, odd = divmod(n, 2)
        if odd:
            return -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        return m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))

    return front / a / _fraction(step)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` (0 to 1) of the values are, between two of them linearly; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _critical(freedom: int) -> float:
    """The t that 5 % lie beyond, on either side together."""
    low, high = 0.0, 13.0
    for _ in range(80):
        middle = (low + high) / 2
        if two_sided(middle, freedom) > 0.05:
            low = middle
        else:
            high = middle
    return high


def _fraction(step: Callable[[int], float]) -> float:
    """1 + step(1) / (1 + step(2) / (1 + …)), by Lentz's method."""
    tiny = 1e-300
    value, c, d = 1.0, 1.0, 0.0
    for n in range(1, _STEPS):
        part = step(n)
        d = 1 / ((1 + part * d) or tiny)
        c = (1 + part / c) or tiny
        change = c * d
        value *= change
        if abs(change - 1) < 1e-15:
            break
    return value
