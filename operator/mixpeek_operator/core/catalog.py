"""What can be used in a declaration: stages and extractors, as facts. Filled by registries, passed in from main."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """A named vector an extractor writes, as `GET /v1/collections/{id}` lists it."""

    name: str
    """Name of the vector in Qdrant, e.g. `text_extractor_v1_embedding`."""
    output: str
    """Name of the output in a feature URI, e.g. `text_embedding`."""
    description: str
    type: str
    """`dense` or `sparse`."""
    dimensions: int | None
    """None for sparse."""
    distance: str = "cosine"
    """`cosine`, `dot`, `euclid` or `manhattan`; sparse vectors use `dot`."""
    datatype: str = "float32"
    inference_model: str = ""
    """Id of the model in the model registry that embeds documents and queries."""
    modifier: str | None = None
    """`idf` for BM25-style sparse vectors."""


@dataclass(frozen=True, slots=True)
class ExtractorInfo:
    """A feature extractor as `GET /v1/collections/features/extractors` lists it."""

    name: str
    version: str
    description: str
    icon: str
    source: str
    """`builtin` or `custom`."""
    input_schema: Mapping[str, Any]
    """JSON schema; its properties are the extractor's inputs."""
    output_schema: Mapping[str, Any]
    """JSON schema of the document fields it writes."""
    parameters: type[BaseModel]
    """Model of `feature_extractor.parameters`; forbids unknown keys."""
    supported_input_types: tuple[str, ...]
    vector_indexes: tuple[VectorIndex, ...]
    """With default parameters."""
    max_inputs: Mapping[str, int] = field(default_factory=dict)
    required_payload_indexes: tuple[Mapping[str, Any], ...] = ()

    @property
    def id(self) -> str:
        """`text_extractor_v1`."""
        return f"{self.name}_{self.version.replace('.', '_')}"


@dataclass(frozen=True, slots=True)
class StageInfo:
    """A retriever stage as `GET /v1/retrievers/stages` lists it."""

    id: str
    category: str
    """`filter`, `sort`, `reduce`, `group`, `apply` or `enrich`."""
    description: str
    icon: str
    parameters: type[BaseModel]


@dataclass(frozen=True, slots=True)
class Need:
    """Something of the organization that a stage names, which no manifest makes: it should be there before."""

    kind: Literal["secret", "connection"]
    name: str
    """Of a connection its name or id."""
    location: tuple[str | int, ...]
    """What names it."""


class Catalog(Protocol):
    """Lookup of stages and extractors; pure, answers from memory."""

    def stages(self) -> Mapping[str, StageInfo]:
        """Every stage by id."""
        ...

    def extractors(self) -> Mapping[tuple[str, str], ExtractorInfo]:
        """Every extractor by (name, version)."""
        ...

    def vector_indexes(self, name: str, version: str, parameters: Mapping[str, Any]) -> tuple[VectorIndex, ...]:
        """The vectors an extractor writes with these parameters. Raises NotFoundError for an unknown extractor."""
        ...

    def output_schema(self, name: str, version: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """JSON schema of the fields it writes with these parameters."""
        ...

    def check_stages(self, stages: list[Any], input_schema: Mapping[str, Any]) -> list[Any]:
        """Every Problem in a retriever's stages (unknown stage, bad parameter, template that does not parse)."""
        ...

    def stage_needs(self, stages: list[Any]) -> list[Need]:
        """The secrets and connections that a retriever's stages name, those that are right."""
        ...
