"""Reads and acts for a cluster: there are none."""

from __future__ import annotations

from mixpeek_operator.core.lifecycle import Backends, Step, Subject
from mixpeek_operator.kinds.cluster.plan import Have


class ClusterClient:
    """Nothing outside belongs to a cluster."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    async def observe(self, subject: Subject) -> Have:
        """Nothing to read."""
        return Have()

    async def act(self, subject: Subject, step: Step) -> None:
        """There is no step."""
        raise TypeError(f"no such step: {step!r}")

    async def forget(self, subject: Subject) -> None:
        """Nothing of it is cached."""
