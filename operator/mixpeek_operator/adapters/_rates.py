"""How often a host is called: a sliding window for each tenant, host and rate, in this process."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from mixpeek_operator.core.clock import Clock
from mixpeek_operator.core.errors import RateLimitedError
from mixpeek_operator.ports.outbound import Rate

_MINUTE_S: Final = 60.0
_HOUR_S: Final = 3600.0
_MAX_WINDOWS: Final = 10_000

_Key = tuple[str, str, Rate]


class Rates:
    """Gives turns. Callers take them in the order in which they ask."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._turns: dict[_Key, deque[float]] = {}

    async def turn(self, tenant: str, host: str, rate: Rate, patience_s: float) -> None:
        """Return when the host may be called. Raises RateLimitedError at once when that is later than `patience_s`."""
        wait = self.reserve(tenant, host, rate, patience_s)
        if wait > 0:
            await asyncio.sleep(wait)

    def reserve(self, tenant: str, host: str, rate: Rate, patience_s: float) -> float:
        """Take the next turn and return the seconds until then."""
        now = self._clock.monotonic()
        key = (tenant, host, rate)
        if key not in self._turns and len(self._turns) >= _MAX_WINDOWS:
            self._forget(now)
        turns = self._turns.setdefault(key, deque(maxlen=max(rate.per_minute or 1, rate.per_hour or 1)))
        moment = now
        for count, window in ((rate.per_minute, _MINUTE_S), (rate.per_hour, _HOUR_S)):
            if count is not None and len(turns) >= count:
                moment = max(moment, turns[-count] + window)
        if moment - now > patience_s:
            raise RateLimitedError(
                f"{host} may be called {_told(rate)}; the next turn is in {moment - now:.0f} s", code="rate_limited"
            )
        turns.append(moment)
        return moment - now

    def _forget(self, now: float) -> None:
        """Drop the windows whose turns all lie so far back that they no longer count."""
        for key in [key for key, turns in self._turns.items() if not turns or turns[-1] + _HOUR_S < now]:
            del self._turns[key]


def _told(rate: Rate) -> str:
    limits = [(rate.per_minute, "minute"), (rate.per_hour, "hour")]
    return " and ".join(f"{count} times a {unit}" for count, unit in limits if count is not None)
