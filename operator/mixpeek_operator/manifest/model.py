"""What a manifest holds once it is read: entries per resource, parameters, seeds and acceptance steps.

Plain values; nothing here reads a file, a store or a clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mixpeek_operator.core.errors import Place, Problem
from mixpeek_operator.core.resource import metadata_name
from mixpeek_operator.manifest.text import Path, Source, path_text

VERSION = "1.0"

Scalar = str | int | float | bool


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ParameterSpec(_Section):
    """One value a manifest needs from whoever applies it, written `${{ params.<name> }}`."""

    name: str = Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$", description="Name in `${{ params.<name> }}`.")
    type: Literal["string", "integer", "number", "boolean", "array"] = Field(
        default="string", description="Type of the value; an array is a list of scalars and a field's whole value."
    )
    items: Literal["string", "integer", "number", "boolean"] | None = Field(
        default=None, description="Type of each item of an array; string when unset."
    )
    enum: list[Scalar] | None = Field(
        default=None, min_length=1, description="Allowed values; of every item when the type is array."
    )
    required: bool = Field(default=True, description="Whether a value must be given; ignored with a default.")
    default: Scalar | list[Scalar] | None = Field(default=None, description="Value when none is given.")
    description: str | None = Field(default=None, max_length=1000, description="What the value is for.")


class SeedSpec(_Section):
    """Objects ingested into a bucket after an apply, as one batch."""

    bucket: str = Field(min_length=1, description="Name of the bucket.")
    namespace: str = Field(min_length=1, description="Name of the bucket's namespace.")
    objects: list[dict[str, Any]] = Field(
        min_length=1, max_length=10_000, description="Bodies as `POST /v1/buckets/{id}/objects` takes them."
    )
    collections: list[str] | None = Field(
        default=None, description="Names of the collections to process; every collection of the bucket when unset."
    )


class Expect(_Section):
    """What must hold for a step to pass; every field that is set is checked."""

    results: int | None = Field(default=None, ge=0, description="Exact number of results of a query.")
    min_results: int | None = Field(default=None, ge=0, description="Fewest results of a query.")
    max_results: int | None = Field(default=None, ge=0, description="Most results of a query.")
    contains: list[dict[str, Any]] | None = Field(
        default=None, description="For each entry some result has all these fields (dotted paths) with these values."
    )
    excludes: list[dict[str, Any]] | None = Field(default=None, description="No result matches any of these.")
    top: dict[str, Any] | None = Field(default=None, description="The first result has these fields.")
    top_field: str | None = Field(default=None, description="Field of the first result to compare with top_value.")
    top_value: Any = Field(default=None, description="Value of top_field in the first result.")
    min_top_score: float | None = Field(default=None, description="Lowest score of the first result.")
    max_top_score: float | None = Field(default=None, description="Highest score of the first result.")
    min_score: float | None = Field(default=None, description="Lowest score of any result.")
    max_latency_ms: float | None = Field(default=None, gt=0, description="Longest time of the query, milliseconds.")
    documents: int | None = Field(default=None, ge=0, description="Exact number of documents of a collection.")
    min_documents: int | None = Field(default=None, ge=0, description="Fewest documents of a collection.")
    max_documents: int | None = Field(default=None, ge=0, description="Most documents of a collection.")


class AcceptanceStep(_Section):
    """One check of a namespace: a query with its expected answer, or the documents of a collection."""

    name: str = Field(min_length=1, description="Name in the result.")
    kind: Literal["query", "documents", "alert", "realtime"] = Field(
        default="query",
        description=(
            "`query` runs a retriever, `documents` counts the documents of a collection. The other two are known and "
            "refused: this server does not run them."
        ),
    )
    namespace: str = Field(min_length=1, description="Name of the namespace.")
    retriever: str | None = Field(default=None, description="Name of the retriever a query runs.")
    collection: str | None = Field(default=None, description="Name of the collection whose documents are counted.")
    inputs: dict[str, Any] = Field(default_factory=dict, description="Inputs of the query.")
    filters: dict[str, Any] | None = Field(default=None, description="Filters of the query.")
    limit: int | None = Field(default=None, ge=1, le=1000, description="Number of results to ask for.")
    expect: Expect = Field(description="What must hold.")


class AcceptanceSpec(_Section):
    """The checks that run after an apply with `run_acceptance`."""

    max_cost_usd: float | None = Field(default=None, ge=0, description="Most the steps may cost together.")
    steps: list[AcceptanceStep] = Field(min_length=1, description="Run in this order.")


@dataclass(frozen=True, slots=True)
class Entry:
    """One resource of a manifest. `spec` is canonical snake_case with references by name."""

    kind: str
    spec: dict[str, Any]
    path: Path
    """Where it stands: `("buckets", 3)`, or `("spec",)` of a Kubernetes document."""
    source: int = 0
    """Index of its file among the manifest's."""
    document: int = 0
    kubernetes: Mapping[str, Any] = field(default_factory=dict)
    """What Kubernetes metadata says beyond the spec: name, namespace, labels, annotations."""

    @property
    def name(self) -> str:
        return str(self.spec.get("name", ""))

    @property
    def namespace(self) -> str | None:
        value = self.spec.get("namespace")
        return None if value is None else str(value)

    @property
    def metadata_name(self) -> str:
        """Name of the resource in its organization."""
        given = self.kubernetes.get("name")
        return str(given) if given else metadata_name(self.namespace, self.name)

    @property
    def identity(self) -> tuple[str, str | None, str]:
        return self.kind, self.namespace, self.name

    @property
    def label(self) -> str:
        """`Bucket video/raw` in messages."""
        return f"{self.kind} {self.name if self.namespace is None else f'{self.namespace}/{self.name}'}"

    @property
    def location(self) -> str:
        """`buckets[3]`, as lint results name it."""
        return path_text(self.path) if self.path != ("spec",) else f"document[{self.document}]"


@dataclass(slots=True)
class Manifest:
    """A manifest as written, in its own order; it may be spread over several files."""

    sources: list[Source]
    version: str = VERSION
    metadata: dict[str, Any] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    parameters: list[ParameterSpec] = field(default_factory=list)
    seed: list[SeedSpec] = field(default_factory=list)
    acceptance: AcceptanceSpec | None = None
    problems: list[Problem] = field(default_factory=list)
    """What is wrong, each with its place; a manifest with problems is never applied."""
    warnings: list[Problem] = field(default_factory=list)

    def place(self, entry: Entry, path: Sequence[str | int] = ()) -> Place:
        """Return where `path` of an entry's spec stands in its file."""
        source = self.sources[entry.source]
        # The canonical form of a stage has no `config`, which the wire's form has.
        where = (*entry.path, *path)
        return source.place(where, document=entry.document, resource=entry.label, through=("config",))

    def mentions(self, text: str) -> bool:
        """Whether any file holds this text: a cheap way to skip a search through all values."""
        return any(text in source.text for source in self.sources)

    def of_kind(self, kind: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.kind == kind]
