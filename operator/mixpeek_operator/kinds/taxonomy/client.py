"""Reads and acts for a taxonomy: there are none."""

from __future__ import annotations

from mixpeek_operator.core.lifecycle import Backends, Step, Subject
from mixpeek_operator.kinds.taxonomy.plan import Have


class TaxonomyClient:
    """Nothing outside belongs to a taxonomy."""

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
