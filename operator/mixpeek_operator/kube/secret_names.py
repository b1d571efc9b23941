"""Which secrets each organization has, by name: read when somebody asks, and kept until the watch tells of a change.

A reconcile of what uses secrets then costs no request. Values never come here.
"""

from __future__ import annotations

from collections.abc import Collection

from mixpeek_operator.core.clock import Clock
from mixpeek_operator.ports.names import Names


class SecretNames:
    """The `Names` port over another one."""

    def __init__(self, secrets: Names, clock: Clock, *, max_age_s: float) -> None:
        """`max_age_s` is how long a change may stay unknown that the watch missed."""
        self._secrets = secrets
        self._clock = clock
        self._max_age_s = max_age_s
        self._known: dict[str, tuple[float, Collection[str]]] = {}
        self._changes = 0

    async def names(self, organization: str) -> Collection[str]:
        """Return the names as they were at the last change. Raises what reading them raises."""
        now = self._clock.monotonic()
        read_at, names = self._known.get(organization, (-self._max_age_s, ()))
        if now - read_at < self._max_age_s:
            return names
        changes = self._changes
        names = frozenset(await self._secrets.names(organization))
        if changes == self._changes:
            # What was read while something changed may be from before it.
            self._known[organization] = (now, names)
        return names

    def changed(self, organization: str) -> None:
        """Read anew before the next answer."""
        self._changes += 1
        self._known.pop(organization, None)
