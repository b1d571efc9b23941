"""Port: what kept answers depend on. A signature changes with every write to a collection, after it and before the
writer is told that it is done; so whoever reads signatures first and documents next may keep what was made of them
for as long as the signatures stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mixpeek_operator.core.directory import CollectionInfo


class IndexSignatures(Protocol):
    """Signatures of collections, and of what is kept for a retriever."""

    async def signatures(self, collections: Sequence[CollectionInfo]) -> list[str]:
        """One for each collection, in order; all of one namespace."""
        ...

    async def stamp(self, namespace_id: str, retriever_id: str, collections: Sequence[CollectionInfo]) -> str:
        """One signature of a retriever and all of its collections, with one read."""
        ...

    async def renew(self, namespace_id: str, retriever_id: str) -> None:
        """Change the retriever's stamp, so that nothing that was kept for it is found again."""
        ...
