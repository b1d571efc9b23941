"""Counts of field values over everything that passes a search's filters."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from mixpeek_operator.core.filters import Filter, matches
from mixpeek_operator.ports.vectors import scroll_all
from mixpeek_operator.retrieval import paths
from mixpeek_operator.retrieval.search import divide
from mixpeek_operator.retrieval.stage import Context


class FacetField(BaseModel):
    """One field to count; its path alone will do."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    key: str = Field(
        min_length=1, validation_alias=AliasChoices("key", "field"), description="Dotted path.", examples=["category"]
    )
    limit: int = Field(default=10, ge=1, le=1000, description="Most values, the most frequent first.")
    exact: bool = Field(default=False, description="Accepted: counts are always exact.")

    @model_validator(mode="before")
    @classmethod
    def _path(cls, value: Any) -> Any:
        return {"key": value} if isinstance(value, str) else value


async def count(fields: list[FacetField], filter: Filter | None, context: Context) -> list[dict[str, Any]]:
    """Return `{key, values: [{value, count}]}` per field, most frequent first, ties by value."""
    collection = context.namespace.vector_collection
    pushed, rest = divide(context.vectors, filter)
    state = await context.vectors.describe(collection)
    indexed = set(state.payload_indexes) if state is not None and rest is None else set()
    result: dict[str, list[tuple[Any, int]]] = {}
    for field in fields:
        if field.key in indexed:
            result[field.key] = await context.vectors.facet(collection, field.key, filter=pushed, limit=field.limit)
    counted = [field for field in fields if field.key not in result]
    if counted:
        tallies: dict[str, Counter[Any]] = {field.key: Counter() for field in counted}
        async for point in scroll_all(context.vectors, collection, filter=pushed):
            if rest is None or matches(rest, point.payload):
                for field in counted:
                    tallies[field.key].update(_values(paths.read(point.payload, field.key)))
        for field in counted:
            ranked = sorted(tallies[field.key].items(), key=lambda item: (-item[1], str(item[0])))
            result[field.key] = ranked[: field.limit]
    return [
        {"key": field.key, "values": [{"value": value, "count": number} for value, number in result[field.key]]}
        for field in fields
    ]


def _values(value: Any) -> set[Any]:
    items = value if isinstance(value, list) else [value]
    return {item for item in items if isinstance(item, str | int | float)}
