"""Reads and acts for a retriever."""

from __future__ import annotations

from mixpeek_operator.core.catalog import Need
from mixpeek_operator.core.filters import equals
from mixpeek_operator.core.lifecycle import Backends, Step, Subject
from mixpeek_operator.core.needs import lacking, there
from mixpeek_operator.kinds.retriever.plan import DeleteHistory, Have

TABLES = ("executions", "interactions", "evaluations", "signatures")
"""Tables whose records name their retriever."""


class RetrieverClient:
    """Through the ports, what a retriever leaves behind."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    async def observe(self, subject: Subject) -> Have:
        """What the stages lack; of a deletion that is under way, how many records there are."""
        records: dict[str, int] = {}
        if subject.resource.deleting and subject.namespace_id:
            for table in TABLES:
                records[table] = await self._backends.metadata.count(
                    table, subject.namespace_id, equals("retriever_id", subject.id)
                )
        lack = [] if subject.resource.deleting else await self._lacking(subject)
        return Have(subject.namespace_id, subject.id, records, tuple(lack))

    async def _lacking(self, subject: Subject) -> list[Need]:
        needs = subject.catalog.stage_needs(subject.spec.get("stages") or [])
        names = await there(
            needs,
            subject.resource.metadata.organization,
            secrets=self._backends.secrets,
            connections=self._backends.connections,
        )
        return lacking(needs, names)

    async def act(self, subject: Subject, step: Step) -> None:
        """Carry out one step."""
        match step:
            case DeleteHistory():
                wanted = equals("retriever_id", step.retriever_id)
                for table in step.tables:
                    await self._backends.metadata.delete_where(table, step.namespace_id, wanted)
            case _:
                raise TypeError(f"no such step: {step!r}")

    async def forget(self, subject: Subject) -> None:
        """Its cached answers."""
        if subject.namespace_id:
            await self._backends.cache.delete_prefix(f"{subject.namespace_id}:retriever:{subject.id}:")
