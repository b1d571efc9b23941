"""Grouping of search results by a field."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from mixpeek_operator.retrieval import paths
from mixpeek_operator.retrieval.stage import Documents


class GroupBy(BaseModel):
    """How to group."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    field: str = Field(min_length=1, description="Dotted path to group by.", examples=["metadata.parent_id"])
    max_per_group: int = Field(
        default=1,
        ge=1,
        le=1000,
        validation_alias=AliasChoices("max_per_group", "group_size", "docs_per_group"),
        description="Most documents per group, best first.",
    )
    limit: int = Field(default=25, ge=1, le=5000, description="Most groups; wins over final_top_k.")
    output_mode: Literal["first", "all", "flatten"] = Field(
        default="all",
        description=(
            "first: the best document of each group. all: groups in order of their best document, each document with "
            "its group_key. flatten: the same documents by score, without group_key."
        ),
    )


def group(documents: Documents, by: GroupBy, final: int) -> Documents:
    """Return the documents of the best groups; a document without the field is a group of its own."""
    groups: dict[Any, Documents] = {}
    for index, document in enumerate(documents):
        value = paths.read(document, by.field)
        key = ("alone", index) if value is paths.ABSENT or value is None else ("value", repr(value))
        groups.setdefault(key, []).append(document)
    size = 1 if by.output_mode == "first" else by.max_per_group
    chosen = [members[:size] for members in list(groups.values())[: by.limit]]
    if by.output_mode == "flatten":
        flat = [document for members in chosen for document in members]
        return sorted(flat, key=lambda document: -float(document.get("score") or 0.0))
    keyed = []
    for members in chosen:
        value = paths.read(members[0], by.field)
        keyed += [{**document, "group_key": None if value is paths.ABSENT else value} for document in members]
    return keyed
