"""Interactions: what users did with the documents of an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from mixpeek_operator.core import ids
from mixpeek_operator.core.clock import Clock, timestamp
from mixpeek_operator.core.directory import Directory
from mixpeek_operator.core.errors import AlreadyExistsError, NotFoundError, SpecError
from mixpeek_operator.core.filters import Compare, Filter, Operator, all_of, equals
from mixpeek_operator.core.listing import ListPage, ListQuery
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.ingestion.records import list_records, namespace_of
from mixpeek_operator.ports.metadata import MetadataStore, Write
from mixpeek_operator.retrieval.feedback import TABLE, Feedback
from mixpeek_operator.retrieval.history import History
from mixpeek_operator.retrieval.learned import credits_of

MAX_BULK: Final = 1000
_NAMED: Final = ("execution_id", "session_id", "user_id", "feature_id")
"""Fields that a list compares as they are."""
FILTERS: Final = (*_NAMED, "retriever_id", "interaction_type")
"""Fields that a list may be narrowed by, each to one value."""
_RENDERED: Final = (
    "interaction_id", "feature_id", "interaction_type", "position", "metadata", "user_id", "session_id",
    "execution_id", "retriever_id", "query_snapshot", "document_score", "result_set_size", "feature_uri",
    "occurred_at", "timestamp",
)  # fmt: skip


class InteractionType(StrEnum):
    """What a user can do with a result; what clients of the API know."""

    IMPRESSION = "impression"
    VIEW = "view"
    CLICK = "click"
    DWELL = "dwell"
    POSITIVE_FEEDBACK = "positive_feedback"
    NEGATIVE_FEEDBACK = "negative_feedback"
    PURCHASE = "purchase"
    ADD_TO_CART = "add_to_cart"
    WISHLIST = "wishlist"
    LONG_VIEW = "long_view"
    SHARE = "share"
    BOOKMARK = "bookmark"
    QUERY_REFINEMENT = "query_refinement"
    ZERO_RESULTS = "zero_results"
    FILTER_TOGGLE = "filter_toggle"
    SKIP = "skip"
    RETURN_TO_RESULTS = "return_to_results"
    PLAY = "play"
    DOWNLOAD = "download"
    SAVE = "save"
    ADD_TO_PROJECT = "add_to_project"
    RATING = "rating"


class Interaction(BaseModel):
    """One interaction, as a client reports it."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    feature_id: str = Field(
        min_length=1,
        max_length=500,
        validation_alias=AliasChoices("feature_id", "document_id"),
        description="The document, by the document_id of the answer.",
    )
    interaction_type: Annotated[
        list[InteractionType], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
    ] = Field(min_length=1, max_length=20, description="What the user did; one or several.")
    position: int = Field(ge=0, le=1_000_000, description="Place of the document in the answer; 0 is the first.")
    metadata: dict[str, Any] | None = Field(default=None, description="Anything else, e.g. duration_ms or device.")
    user_id: str | None = Field(default=None, max_length=500, description="Who, over all sessions.")
    session_id: str | None = Field(default=None, max_length=500, description="The session of the search.")
    execution_id: str | None = Field(default=None, max_length=200, description="The execution that answered.")
    retriever_id: str | None = Field(
        default=None, max_length=500, description="The retriever, by id or name; the execution's when left out."
    )
    query_snapshot: dict[str, Any] | None = Field(
        default=None, description="The inputs of the search; the execution's when left out."
    )
    document_score: float | None = Field(default=None, description="Score the document was shown with.")
    result_set_size: int | None = Field(default=None, ge=0, description="How many documents were shown.")
    feature_uri: str | None = Field(
        default=None, max_length=500, description="Feature that found the document, for learned fusion."
    )
    occurred_at: datetime | None = Field(
        default=None, description="When it happened, if not now; UTC unless it says otherwise."
    )

    @field_validator("occurred_at")
    @classmethod
    def _aware(cls, value: datetime | None) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


class Interactions(BaseModel):
    """Several interactions at once."""

    model_config = ConfigDict(extra="forbid")

    interactions: list[dict[str, Any]] = Field(
        min_length=1, max_length=MAX_BULK, description=f"1 to {MAX_BULK} interactions; each stands for itself."
    )


class InteractionLog:
    """Records interactions and shows them; every call stays in the namespace of its scope."""

    def __init__(
        self, metadata: MetadataStore, directory: Directory, history: History, feedback: Feedback, clock: Clock
    ) -> None:
        self._metadata = metadata
        self._directory = directory
        self._history = history
        self._feedback = feedback
        self._clock = clock

    async def record(self, scope: Scope, given: Interaction) -> dict[str, Any]:
        """Store one interaction and return it in wire shape.

        The same types for the same document of the same execution are stored once: the answer then says
        `deduplicated`. Raises NotFoundError for a retriever that is not in the namespace.
        """
        namespace_id = namespace_of(scope)
        body, warning = await self._body(namespace_id, given)
        answer = {**render(body), "deduplicated": False, **({"warning": warning} if warning else {})}
        try:
            await self._metadata.put(TABLE, namespace_id, body["interaction_id"], body, if_version=0)
        except AlreadyExistsError:
            return {**answer, "interaction_id": None, "deduplicated": True}
        self._feedback.added(namespace_id, str(body.get("retriever_id", "")))
        return answer

    async def record_many(self, scope: Scope, given: Sequence[Interaction | SpecError]) -> dict[str, Any]:
        """Store each interaction that can be, in one write; an error in the place of one that cannot be read.

        What is wrong with one of them fails that one; a store that is away fails the call.
        """
        namespace_id = namespace_of(scope)
        results: list[dict[str, Any]] = []
        errors: list[str] = []
        bodies: dict[int, dict[str, Any]] = {}
        for index, item in enumerate(given):
            try:
                if isinstance(item, SpecError):
                    raise item
                bodies[index], _ = await self._body(namespace_id, item)
            except (SpecError, NotFoundError) as error:
                errors.append(f"interaction {index}: {error.message}")
            id = str(bodies[index]["interaction_id"]) if index in bodies else ""
            results.append({"index": index, "interaction_id": id, "status": "created" if id else "failed"})
        asked = [str(body["interaction_id"]) for body in bodies.values()]
        seen = {record.id for record in await self._metadata.get_many(TABLE, namespace_id, asked)}
        writes: list[Write] = []
        for index, body in bodies.items():
            id = str(body["interaction_id"])
            if id in seen:
                results[index]["status"] = "deduplicated"
                continue
            seen.add(id)
            writes.append(Write(TABLE, namespace_id, id, body))
        await self._metadata.transact(writes)
        for retriever_id in {str(body.get("retriever_id", "")) for body in bodies.values()}:
            self._feedback.added(namespace_id, retriever_id)
        return {"created": len(writes), "failed": len(errors), "errors": errors, "results": results}

    async def find(self, scope: Scope, named: Mapping[str, Any], query: ListQuery) -> ListPage:
        """Return interactions, newest first unless sorted; `named` narrows single fields to one value each.

        Raises NotFoundError for a retriever that is not in the namespace.
        """
        namespace_id = namespace_of(scope)
        wanted: list[Filter | None] = [equals(name, named[name]) for name in _NAMED if named.get(name)]
        if named.get("retriever_id"):
            retriever = await self._directory.retriever(namespace_id, str(named["retriever_id"]))
            wanted.append(equals("retriever_id", retriever.id))
        if named.get("interaction_type"):
            wanted.append(Compare("interaction_type", Operator.CONTAINS, str(named["interaction_type"])))
        if not query.sort:
            query = replace(query, sort=(("timestamp", "desc"),))
        return await list_records(
            self._metadata,
            TABLE,
            namespace_id,
            query,
            base=all_of(*wanted),
            name=f"interactions/{namespace_id}/{sorted(named.items())}",
            render=render,
        )

    async def get(self, scope: Scope, interaction_id: str) -> dict[str, Any]:
        """Return one interaction. Raises NotFoundError."""
        record = await self._metadata.get(TABLE, namespace_of(scope), interaction_id)
        if record is None:
            raise NotFoundError(f"there is no interaction {interaction_id!r} in this namespace")
        return render(record.body)

    async def delete(self, scope: Scope, interaction_id: str) -> bool:
        """Delete an interaction, so that nothing is learned from it; whether there was one."""
        namespace_id = namespace_of(scope)
        record = await self._metadata.get(TABLE, namespace_id, interaction_id)
        if record is None:
            return False
        await self._metadata.delete(TABLE, namespace_id, interaction_id)
        self._feedback.removed(namespace_id, str(record.body.get("retriever_id", "")))
        return True

    async def _body(self, namespace_id: str, given: Interaction) -> tuple[dict[str, Any], str | None]:
        """Return the record of an interaction, and a warning if there is reason for one."""
        body = given.model_dump(mode="json", exclude_none=True)
        warning = await self._complete(namespace_id, body, given)
        now = self._clock.now()
        body["timestamp"] = timestamp(min(now, given.occurred_at or now))
        body["interaction_id"] = ids.random("int")
        if given.execution_id is not None:
            # Clients send again what they are not sure has arrived.
            same = (namespace_id, given.execution_id, given.feature_id, *sorted(given.interaction_type))
            body["interaction_id"] = ids.derived("int", *same, length=16)
        return body, warning

    async def _complete(self, namespace_id: str, body: dict[str, Any], given: Interaction) -> str | None:
        """Fill in what the execution knows. Returns what is wrong with it and is no reason to refuse it."""
        if given.retriever_id is not None:
            body["retriever_id"] = (await self._directory.retriever(namespace_id, given.retriever_id)).id
        if given.execution_id is None:
            return None
        try:
            execution = await self._history.get(namespace_id, given.execution_id)
        except NotFoundError:
            return f"no execution {given.execution_id!r} is known in this namespace, so nothing was added from it"
        if execution.get("retriever_id"):
            body.setdefault("retriever_id", execution["retriever_id"])
        for name, source in (("query_snapshot", "inputs"), ("session_id", "session_id"), ("user_id", "user_id")):
            if execution.get(source):
                body.setdefault(name, execution[source])
        if ranks := _ranks(await self._origin(namespace_id, execution), given.feature_id):
            body["_credits"] = credits_of(ranks)
        return None

    async def _origin(self, namespace_id: str, execution: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the execution that made the answer: another one when the answer was kept."""
        if not execution.get("made_by"):
            return execution
        try:
            return await self._history.get(namespace_id, execution["made_by"])
        except NotFoundError:
            return execution


def render(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return an interaction in wire shape."""
    return {name: body.get(name) for name in _RENDERED}


def _ranks(execution: Mapping[str, Any], document_id: str) -> Mapping[str, int]:
    """The document's rank in each search of the execution's learned fusion."""
    for signal in execution.get("signals") or ():
        found = signal["signal_data"].get("ranks", {}).get(document_id)
        if found:
            return dict(found)
    return {}
