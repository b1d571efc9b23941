"""What a resource kind declares of itself. Everything generic derives from it: CRDs, manifests, REST, docs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from mixpeek_operator.core.catalog import Catalog
from mixpeek_operator.core.errors import Problem


@dataclass(frozen=True, slots=True)
class Reference:
    """One reference inside a spec: where it stands, the kind it names, and the id or name written there."""

    path: tuple[str | int, ...]
    kind: str
    value: str
    ordered: bool = True
    """False: checked and translated, but no edge in the graph."""
    in_key: bool = False
    """The last element of `path` is itself the name (a mapping keyed by resources)."""


@dataclass(frozen=True, slots=True)
class PrinterColumn:
    """A column of `kubectl get`."""

    name: str
    json_path: str
    type: str = "string"
    description: str = ""
    priority: int = 0


def no_references(spec: Mapping[str, Any]) -> list[Reference]:
    """A kind without references outside its typed fields."""
    return []


def no_problems(spec: Mapping[str, Any], catalog: Catalog) -> list[Problem]:
    """A kind whose model says all."""
    return []


@dataclass(frozen=True, slots=True)
class KindSchema:
    """The pure half of a kind. Lives as `SCHEMA` in `kinds/<kind>/spec.py`."""

    name: str
    """`Bucket`."""
    plural: str
    """`buckets`: the CRD's plural, the manifest's section and the REST path."""
    id_prefix: str
    short_names: tuple[str, ...]
    spec: type[BaseModel]
    """snake_case fields, camelCase aliases for custom resources; unknown keys are errors."""
    status: type[BaseModel]
    columns: tuple[PrinterColumn, ...]
    free_references: Callable[[Mapping[str, Any]], list[Reference]] = no_references
    """References in free-form parts (stage parameters); typed fields are found by their `Ref` markers."""
    check: Callable[[Mapping[str, Any], Catalog], list[Problem]] = no_problems
    """What needs the catalog to decide: unknown extractor, stage, feature URI, bad parameters."""
    example: Mapping[str, Any] = field(default_factory=dict)
    """A realistic spec in canonical form, for the docs and for discovery."""
