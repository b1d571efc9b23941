"""A retriever needs nothing made for it, but every feature it searches must exist. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mixpeek_operator.core.catalog import Catalog, Need
from mixpeek_operator.core.directory import Feature
from mixpeek_operator.core.errors import NotFoundError, Place, Problem, SpecError
from mixpeek_operator.core.lifecycle import Step, Subject
from mixpeek_operator.core.normal import path_text
from mixpeek_operator.core.resource import Resource
from mixpeek_operator.extraction import features


@dataclass(frozen=True, slots=True)
class Want:
    """The features that the stages search, as resolved."""

    uris: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Have:
    """What executions left behind, counted for a deletion only; and what its stages need and is not there."""

    namespace_id: str
    retriever_id: str
    records: Mapping[str, int]
    lacking: tuple[Need, ...] = ()


@dataclass(frozen=True, slots=True)
class DeleteHistory(Step):
    """Delete what executions of the retriever left behind."""

    namespace_id: str
    retriever_id: str
    tables: tuple[str, ...]

    verb: ClassVar[str] = "delete"
    past: ClassVar[str] = "Deleted"
    destroys: ClassVar[bool] = True

    def what(self) -> str:
        return f"{' and '.join(self.tables)} of {self.retriever_id}"


def want(subject: Subject) -> Want:
    """Return the features its stages search.

    Raises SpecError with every feature URI that none of its collections writes.
    """
    identifiers = subject.spec.get("collection_identifiers") or ()
    collections = [subject.refs.get("Collection", name) for name in identifiers]
    available = [feature for item in collections if item is not None for feature in features_of(item, subject.catalog)]
    problems: list[Problem] = []
    uris: list[str] = []
    for location, uri in _feature_uris(subject.spec):
        try:
            uris.append(features.resolve(uri, available).uri if available else str(features.parse(uri)))
        except SpecError as error:
            problems.append(Problem(error.code, error.message, Place(path=path_text(location)), location=location))
    if problems:
        raise SpecError.of(problems)
    return Want(tuple(dict.fromkeys(uris)))


def plan(want: Want | None, have: Have) -> Sequence[Step]:
    """Return nothing, or for a deletion the end of its history."""
    tables = tuple(sorted(table for table, count in have.records.items() if count))
    if want is not None or not tables:
        return []
    return [DeleteHistory(have.namespace_id, have.retriever_id, tables)]


def features_of(collection: Resource, catalog: Catalog) -> Sequence[Feature]:
    """Return the features that a collection writes, none for an extractor that is unknown."""
    use = collection.spec.get("feature_extractor")
    if not isinstance(use, Mapping):
        return ()
    name, version = str(use["feature_extractor_name"]), str(use["version"])
    try:
        indexes = catalog.vector_indexes(name, version, use.get("parameters") or {})
    except NotFoundError:
        return ()
    return features.features_of(name, version, indexes)


def _feature_uris(spec: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    for index, stage in enumerate(spec.get("stages") or ()):
        if stage.get("stage_id") == "feature_search":
            yield from _in(stage.get("parameters"), ("stages", index, "parameters"))


def _in(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key == "feature_uri" and isinstance(item, str):
                if "{{" not in item:
                    yield (*path, key), item
            else:
                yield from _in(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _in(item, (*path, index))
