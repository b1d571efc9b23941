"""Reads and acts for an extractor."""

from __future__ import annotations

from mixpeek_operator.core.lifecycle import Backends, Step, Subject
from mixpeek_operator.kinds.extractor.plan import Have, blob_key


class ExtractorClient:
    """Looks at the archive that an extractor's owner uploaded."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    async def observe(self, subject: Subject) -> Have:
        """The stored archive, None when there is none."""
        key = blob_key(subject)
        return Have(None if key is None else await self._backends.blobs.head(key))

    async def act(self, subject: Subject, step: Step) -> None:
        """There is no step."""
        raise TypeError(f"no such step: {step!r}")

    async def forget(self, subject: Subject) -> None:
        """Nothing of it is cached."""
