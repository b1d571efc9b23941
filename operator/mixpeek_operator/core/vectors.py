"""Vectors and payload indexes as plain values, and the steps that make them: what several kinds need alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mixpeek_operator.core.catalog import VectorIndex
from mixpeek_operator.core.lifecycle import Step
from mixpeek_operator.ports.vectors import CollectionState, VectorParams, VectorStore


@dataclass(frozen=True, slots=True)
class AddVector(Step):
    """Add a named vector to a live collection."""

    collection: str
    name: str
    params: VectorParams

    verb: ClassVar[str] = "add"
    past: ClassVar[str] = "Added"

    def what(self) -> str:
        return f"vector {self.name} to {self.collection}"


@dataclass(frozen=True, slots=True)
class CreatePayloadIndex(Step):
    """Index a document field."""

    collection: str
    field_name: str
    type: str

    verb: ClassVar[str] = "create"
    past: ClassVar[str] = "Created"

    def what(self) -> str:
        return f"{self.type} index on {self.field_name} in {self.collection}"


def params_of(index: VectorIndex) -> VectorParams:
    """Return what the vector store has to know of a vector index."""
    return VectorParams(index.type, index.dimensions, index.distance, index.modifier)


def same(one: VectorParams, other: VectorParams) -> bool:
    """Whether vectors made for one fit into the other."""
    if one.kind != other.kind:
        return False
    if one.kind == "sparse":
        return one.modifier == other.modifier
    return (one.size, one.distance) == (other.size, other.distance)


def described(params: VectorParams) -> str:
    """Return `dense, 384 numbers, cosine` for a message."""
    return "sparse" if params.kind == "sparse" else f"dense, {params.size} numbers, {params.distance}"


def mismatches(want: Mapping[str, VectorParams], have: CollectionState) -> list[str]:
    """Return a message for each vector that exists and is another than the wanted one."""
    return [
        f"vector {name} is {described(have.vectors[name])} and should be {described(params)}"
        for name, params in sorted(want.items())
        if name in have.vectors and not same(params, have.vectors[name])
    ]


def missing(want: Mapping[str, VectorParams], indexes: Mapping[str, str], have: CollectionState) -> list[Step]:
    """Return the steps that add what a live collection lacks."""
    steps: list[Step] = [
        AddVector(have.name, name, params) for name, params in sorted(want.items()) if name not in have.vectors
    ]
    steps += [
        CreatePayloadIndex(have.name, field_name, type)
        for field_name, type in sorted(indexes.items())
        if field_name not in have.payload_indexes
    ]
    return steps


def payload_indexes(declared: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return field → type for declarations of payload indexes."""
    return {str(item["field_name"]): str(item.get("type") or "keyword") for item in declared}


async def act(store: VectorStore, step: AddVector | CreatePayloadIndex) -> None:
    """Carry out one of the steps of this module."""
    match step:
        case AddVector():
            await store.add_vector(step.collection, step.name, step.params)
        case CreatePayloadIndex():
            await store.create_payload_index(step.collection, step.field_name, step.type)
