"""Reads and acts for a collection."""

from __future__ import annotations

from mixpeek_operator.core import vectors
from mixpeek_operator.core.filters import equals
from mixpeek_operator.core.lifecycle import Backends, Step, Subject
from mixpeek_operator.extraction.embedders import TABLE, record_id
from mixpeek_operator.kinds.collection.plan import DeleteDocuments, DeleteSignature, Have
from mixpeek_operator.ports.metadata import Write

_NEW_S = 0.25
"""How old a look at the vector collection may be for a collection that has never been reconciled."""


class CollectionClient:
    """Through the ports, a collection's part of the namespace's vector collection."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    async def observe(self, subject: Subject) -> Have:
        """The namespace's vector collection and the number of our documents."""
        store = self._backends.vectors
        # New ones come by the hundred, and there is nothing of theirs yet: one look will do for several.
        new = not subject.resource.deleting and not subject.resource.status.get("conditions")
        old_s = _NEW_S if new else 0.0
        state = await store.describe(subject.namespace_id, max_age_s=old_s) if subject.namespace_id else None
        documents = 0
        # What is to be deleted is counted whatever the collection as a whole says.
        if state is not None and (state.points or subject.resource.deleting):
            documents = await store.count(state.name, equals("collection_id", subject.id))
        signed = False
        if subject.resource.deleting and subject.namespace_id:
            ids = [subject.id, record_id(subject.id)]
            signed = bool(await self._backends.metadata.get_many(TABLE, subject.namespace_id, ids))
        return Have(subject.id, state, documents, subject.namespace_id if signed else None)

    async def act(self, subject: Subject, step: Step) -> None:
        """Carry out one step."""
        store = self._backends.vectors
        match step:
            case vectors.AddVector() | vectors.CreatePayloadIndex():
                await vectors.act(store, step)
            case DeleteDocuments():
                await store.delete_by_filter(step.vector_collection, equals("collection_id", step.collection_id))
            case DeleteSignature():
                await self._backends.metadata.transact(
                    [
                        Write(TABLE, step.namespace_id, id, None)
                        for id in (step.collection_id, record_id(step.collection_id))
                    ]
                )
            case _:
                raise TypeError(f"no such step: {step!r}")

    async def forget(self, subject: Subject) -> None:
        """Answers that hold its documents."""
        if subject.namespace_id:
            await self._backends.cache.delete_prefix(f"{subject.namespace_id}:retriever:")
