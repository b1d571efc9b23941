"""Keeps trying to hold the Lease, and knows until when it may act."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from mixpeek_operator.core.clock import Clock
from mixpeek_operator.core.errors import AlreadyExistsError, ConflictError, MixpeekError
from mixpeek_operator.kube.lease import Move, Seen, decide, look, released, written
from mixpeek_operator.ports.leases import Leases

_log = structlog.get_logger(__name__)


class Election:
    """One candidate. `held` and `lost` follow what `run` finds out.

    Whoever holds the lease must have stopped acting when `holds()` turns False; `lost()` returns `margin_s` earlier, or
    at once when somebody else has it.
    """

    def __init__(self, leases: Leases, me: str, *, clock: Clock, duration_s: float) -> None:
        self.me = me
        self.margin_s = duration_s / 3
        self._leases = leases
        self._clock = clock
        self._duration_s = duration_s
        self._retry_s = duration_s / 6
        self._seen: Seen | None = None
        self._until = float("-inf")
        self._reached = clock.monotonic()
        self._changed = asyncio.Condition()

    def holds(self) -> bool:
        """Whether we may act at this moment."""
        return self._clock.monotonic() < self._until

    def unreachable(self) -> str:
        """What keeps this candidate from ever being elected; "" while the lease answers, whoever holds it."""
        silent_s = self._clock.monotonic() - self._reached
        return f"the lease was not reached for {silent_s:.0f} s" if silent_s > self._duration_s else ""

    async def held(self) -> None:
        """Return as soon as we hold the lease with time to work."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._left() > self.margin_s)

    async def lost(self) -> None:
        """Return as soon as we have to stop acting."""
        async with self._changed:
            while (left := self._left() - self.margin_s) > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), timeout=left)

    async def run(self) -> None:
        """Take, renew or wait, for ever."""
        while True:
            began = self._clock.monotonic()
            try:
                # An answer that comes later is worth nothing: the lease would be renewed too late.
                async with asyncio.timeout(self._duration_s / 3):
                    await self.turn()
                self._reached = self._clock.monotonic()
            except (MixpeekError, TimeoutError) as error:
                _log.warning("the lease was not reached", error=str(error) or "no answer in time", holding=self.holds())
            took = self._clock.monotonic() - began
            await asyncio.sleep(max(0.0, self._retry_s - took))

    async def turn(self) -> Move:
        """Do what is to be done now, once. Raises what the store of the lease raises."""
        if self._seen is None or self._seen.lease.holder != self.me:
            self._seen = look(self._seen, await self._leases.read(), self._clock.monotonic())
        lease = self._seen.lease
        move = decide(self._seen, self.me, self._clock.monotonic())
        if move is Move.WAIT:
            await self._set(float("-inf"))
            return move
        began = self._clock.monotonic()
        try:
            after = await self._leases.write(written(lease, self.me, self._duration_s))
        except (ConflictError, AlreadyExistsError):
            # Another was faster, or our own last answer was lost; reading tells which.
            self._seen = look(self._seen, await self._leases.read(), self._clock.monotonic())
            if self._seen.lease.holder != self.me:
                await self._set(float("-inf"))
            return Move.WAIT
        except BaseException:
            # Whether it was written is not known.
            self._seen = None
            raise
        self._seen = Seen(after, self._clock.monotonic())
        if move is Move.TAKE:
            _log.info("taking the lead", identity=self.me, transitions=after.transitions)
        await self._set(began + self._duration_s)
        return move

    async def release(self) -> None:
        """Give the lease back, if it is ours, so that another need not wait. Raises what the store raises."""
        held, self._until = self.holds(), float("-inf")
        if held and self._seen is not None and self._seen.lease.holder == self.me:
            with contextlib.suppress(ConflictError):
                await self._leases.write(released(self._seen.lease))
        self._seen = None

    def _left(self) -> float:
        return self._until - self._clock.monotonic()

    async def _set(self, until: float) -> None:
        async with self._changed:
            self._until = until
            self._changed.notify_all()
