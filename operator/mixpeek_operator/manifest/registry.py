"""The schemas of all kinds, found in their folders."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import mixpeek_operator.kinds
from mixpeek_operator.core.errors import InternalError
from mixpeek_operator.core.kind import KindSchema

_FIRST = ("Namespace", "Bucket", "Extractor", "Collection", "Taxonomy", "Cluster", "Retriever")
"""Order of the sections in what we write; a reader finds what is referred to above what refers."""


@cache
def schemas() -> Mapping[str, KindSchema]:
    """Return kind → schema in the order of a manifest's sections."""
    found: dict[str, KindSchema] = {}
    for info in pkgutil.iter_modules(mixpeek_operator.kinds.__path__):
        if not info.ispkg:
            continue
        schema = importlib.import_module(f"mixpeek_operator.kinds.{info.name}.spec").SCHEMA
        if not isinstance(schema, KindSchema):
            raise InternalError(f"kinds/{info.name}/spec.py must define SCHEMA")
        found[schema.name] = schema
    return in_order(found)


def in_order(found: Mapping[str, KindSchema]) -> Mapping[str, KindSchema]:
    """Return the schemas in the order of a manifest's sections, whatever order they were found in."""
    ordered = sorted(found, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name))
    return MappingProxyType({name: found[name] for name in ordered})
