"""Evaluation datasets: queries, and which documents are relevant to each."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mixpeek_operator.core import ids
from mixpeek_operator.core.clock import Clock, timestamp
from mixpeek_operator.core.errors import AlreadyExistsError, NotFoundError
from mixpeek_operator.core.filters import equals
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.ingestion.records import namespace_of
from mixpeek_operator.ports.metadata import MetadataStore, Record

TABLE: Final = "datasets"
MAX_QUERIES: Final = 10_000


class JudgedQuery(BaseModel):
    """A query and the documents that are relevant to it."""

    model_config = ConfigDict(extra="forbid")

    query_id: str = Field(min_length=1, max_length=200, description="Unique in the dataset.")
    query_input: dict[str, Any] = Field(description="Inputs of the retriever.")
    relevant_documents: list[str] = Field(default=[], max_length=10_000, description="Relevant documents, by id.")
    relevance_scores: dict[str, int] | None = Field(
        default=None, description="Grade of each document, 0 for not relevant; 1 for a relevant one without a grade."
    )

    @model_validator(mode="after")
    def _grades(self) -> JudgedQuery:
        if any(not 0 <= grade <= 100 for grade in (self.relevance_scores or {}).values()):
            raise ValueError("grades are from 0 (not relevant) to 100")
        return self


class DatasetCreate(BaseModel):
    """A new dataset."""

    model_config = ConfigDict(extra="forbid")

    dataset_name: str = Field(min_length=1, max_length=200, description="Unique in the namespace.")
    description: str | None = Field(default=None, max_length=10_000, description="What it measures.")
    queries: list[JudgedQuery] = Field(min_length=1, max_length=MAX_QUERIES, description="Queries with judgments.")
    metadata: dict[str, Any] | None = Field(default=None, description="Free-form.")

    @model_validator(mode="after")
    def _distinct(self) -> DatasetCreate:
        seen: set[str] = set()
        for query in self.queries:
            if query.query_id in seen:
                raise ValueError(f"two queries have the query_id {query.query_id!r}")
            seen.add(query.query_id)
        return self


def judgments(query: dict[str, Any]) -> dict[str, float]:
    """Return the grade of each relevant document of a stored query; those graded 0 are left out."""
    scores = query.get("relevance_scores") or {}
    grades = {**dict.fromkeys(query.get("relevant_documents") or [], 1.0), **scores}
    return {id: float(grade) for id, grade in grades.items() if grade > 0}


class Datasets:
    """Datasets of a namespace, by id or name."""

    def __init__(self, metadata: MetadataStore, clock: Clock) -> None:
        self._metadata = metadata
        self._clock = clock

    async def create(self, scope: Scope, given: DatasetCreate) -> dict[str, Any]:
        """Store a dataset. Raises AlreadyExistsError when the name is taken."""
        namespace_id = namespace_of(scope)
        now = timestamp(self._clock.now())
        id = ids.derived("ds", namespace_id, given.dataset_name, length=16)
        body = {
            "dataset_id": id,
            **given.model_dump(mode="json"),
            "query_count": len(given.queries),
            "namespace_id": namespace_id,
            "internal_id": scope.organization,
            "created_at": now,
            "updated_at": now,
        }
        try:
            await self._metadata.put(TABLE, namespace_id, id, body, if_version=0)
        except AlreadyExistsError as error:
            raise AlreadyExistsError(f"there is a dataset {given.dataset_name!r} already") from error
        return body

    async def find(self, scope: Scope, *, page: int, page_size: int) -> tuple[list[dict[str, Any]], int]:
        """Return a page of datasets, newest first, and how many there are."""
        namespace_id = namespace_of(scope)
        records = await self._metadata.find(
            TABLE, namespace_id, sort=(("created_at", "desc"),), limit=page_size, offset=(page - 1) * page_size
        )
        return [dict(record.body) for record in records], await self._metadata.count(TABLE, namespace_id)

    async def get(self, scope: Scope, identifier: str) -> dict[str, Any]:
        """Return a dataset. Raises NotFoundError."""
        return dict((await self._record(namespace_of(scope), identifier)).body)

    async def delete(self, scope: Scope, identifier: str) -> None:
        """Delete a dataset; what was evaluated with it stays. Raises NotFoundError."""
        namespace_id = namespace_of(scope)
        await self._metadata.delete(TABLE, namespace_id, (await self._record(namespace_id, identifier)).id)

    async def _record(self, namespace_id: str, identifier: str) -> Record:
        record = await self._metadata.get(TABLE, namespace_id, identifier)
        if record is None:
            named = await self._metadata.find(TABLE, namespace_id, filter=equals("dataset_name", identifier), limit=1)
            record = named[0] if named else None
        if record is None:
            raise NotFoundError(f"there is no evaluation dataset {identifier!r} in this namespace")
        return record
