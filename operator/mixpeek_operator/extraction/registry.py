"""Extractors by name and version: the facts the catalog lists, and the archives a runner runs."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ValidationError

from mixpeek_operator.core.catalog import ExtractorInfo, VectorIndex
from mixpeek_operator.core.errors import InternalError, ModelUnavailableError, NotFoundError, Place, Problem, SpecError
from mixpeek_operator.extraction import extractors as builtin
from mixpeek_operator.extraction.archive import Archive, load_archive
from mixpeek_operator.extraction.features import normal_version
from mixpeek_operator.extraction.models.registry import ModelRegistry


def builtin_archives() -> tuple[Archive, ...]:
    """The archives in the folder `extractors`, by name; imports their manifests only."""
    names = sorted(info.name for info in pkgutil.iter_modules(builtin.__path__) if info.ispkg)
    return tuple(load_archive(f"{builtin.__name__}.{name}") for name in names)


class ExtractorRegistry:
    """Serves the extractor half of `core.catalog.Catalog`."""

    def __init__(self, models: ModelRegistry, archives: Iterable[Archive] | None = None) -> None:
        self._models = models
        found: dict[tuple[str, str], Archive] = {}
        for archive in builtin_archives() if archives is None else archives:
            key = (archive.name, archive.version)
            if key in found:
                raise InternalError(f"the extractor {archive.name}@{archive.version} is registered twice")
            found[key] = archive
        self._archives = MappingProxyType(found)
        self._infos: Mapping[tuple[str, str], ExtractorInfo] | None = None

    def extractors(self) -> Mapping[tuple[str, str], ExtractorInfo]:
        """Every extractor by (name, version)."""
        if self._infos is None:
            self._infos = MappingProxyType({key: self._info(item) for key, item in self._archives.items()})
        return self._infos

    def info(self, name: str, version: str) -> ExtractorInfo:
        """Raises NotFoundError naming the nearest extractor."""
        archive = self.archive(name, version)
        return self.extractors()[(archive.name, archive.version)]

    def by_id(self, id: str) -> ExtractorInfo:
        """The extractor of an id such as `text_extractor_v1`."""
        for info in self.extractors().values():
            if info.id == id:
                return info
        raise NotFoundError(_unknown(id, [info.id for info in self.extractors().values()]))

    def archive(self, name: str, version: str) -> Archive:
        """The archive to run. Raises NotFoundError naming the nearest extractor."""
        for archive in self._archives.values():
            if archive.name == name and normal_version(archive.version) == normal_version(version):
                return archive
        versions = [archive.version for archive in self._archives.values() if archive.name == name]
        if versions:
            raise NotFoundError(
                f"the extractor {name!r} has no version {version!r}; it has {', '.join(versions)}",
                code="extractor_not_found",
            )
        names = sorted({archive.name for archive in self._archives.values()})
        raise NotFoundError(_unknown(name, names), code="extractor_not_found")

    def parameters(self, name: str, version: str, parameters: Mapping[str, Any]) -> BaseModel:
        """The parameters, checked and with defaults. Raises SpecError with every problem."""
        archive = self.archive(name, version)
        try:
            return archive.parameters.model_validate(dict(parameters))
        except ValidationError as error:
            raise SpecError.of([_problem(finding) for finding in error.errors()]) from None

    def check(self, name: str, version: str, parameters: Mapping[str, Any]) -> list[Problem]:
        """Every problem of the extractor's use: unknown extractor or model, bad parameters."""
        try:
            self.vector_indexes(name, version, parameters)
        except SpecError as error:
            return list(error.problems) or [Problem(error.code, error.message, _PARAMETERS)]
        except ModelUnavailableError as error:
            return [Problem(error.code, error.message, _PARAMETERS)]
        except NotFoundError as error:
            return [Problem(error.code, error.message, Place(path="feature_extractor_name"))]
        return []

    def vector_indexes(self, name: str, version: str, parameters: Mapping[str, Any]) -> tuple[VectorIndex, ...]:
        """The vectors written with these parameters.

        Raises NotFoundError for an unknown extractor, SpecError for parameters or a model that cannot be, and
        ModelUnavailableError for a model that only its files could describe and that is not here.
        """
        archive = self.archive(name, version)
        return self._indexes(archive, self.parameters(name, version, parameters))

    def output_schema(self, name: str, version: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """JSON schema of the fields and vectors written with these parameters."""
        archive = self.archive(name, version)
        return _output_schema(archive, self.vector_indexes(name, version, parameters))

    def _indexes(self, archive: Archive, parameters: BaseModel) -> tuple[VectorIndex, ...]:
        found = []
        for feature in archive.features_for(parameters):
            sparse = feature.feature_type == "sparse_embedding"
            model, dimensions = feature.inference_model or "", feature.embedding_dim
            if feature.inference_model is not None:
                facts = self._models.facts(feature.inference_model)
                if (facts.kind == "sparse") != sparse:
                    raise SpecError(
                        f"{facts.name} is a {facts.kind} model and cannot write {feature.feature_name}",
                        code="model_unsuitable",
                    )
                model, dimensions = facts.name, facts.dimensions or dimensions
            if dimensions is None and not sparse:
                raise SpecError(f"{archive.name} gives no embedding_dim for {feature.feature_name}")
            default_name = f"{archive.name}_{archive.version.replace('.', '_')}_{feature.feature_name}"
            found.append(
                VectorIndex(
                    name=feature.vector_name or default_name,
                    output=feature.feature_name,
                    description=feature.description or f"{feature.feature_name} written by {archive.name}.",
                    type="sparse" if sparse else "dense",
                    dimensions=None if sparse else dimensions,
                    distance="dot" if sparse else feature.distance_metric,
                    inference_model=model,
                    modifier=feature.modifier,
                )
            )
        return tuple(found)

    def _info(self, archive: Archive) -> ExtractorInfo:
        indexes = self._indexes(archive, archive.parameters())
        return ExtractorInfo(
            name=archive.name,
            version=archive.version,
            description=archive.description,
            icon=archive.icon,
            source=archive.source,
            input_schema=archive.input_schema,
            output_schema=_output_schema(archive, indexes),
            parameters=archive.parameters,
            supported_input_types=archive.supported_input_types,
            vector_indexes=indexes,
            max_inputs=archive.max_inputs,
        )


_PARAMETERS = Place(path="parameters")


def _problem(finding: Any) -> Problem:
    location = ("parameters", *finding["loc"])
    path = ".".join(str(part) for part in location)
    message = str(finding["msg"])
    if finding["type"] == "extra_forbidden":
        message = "unknown parameter"
    return Problem("parameters_invalid", message, Place(path=path), location=location)


def _unknown(name: str, names: list[str]) -> str:
    near = get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"there is no extractor {name!r}; {hint}There are: {', '.join(names)}"


def _output_schema(archive: Archive, indexes: Iterable[VectorIndex]) -> dict[str, Any]:
    properties = dict(archive.output_schema.get("properties") or {})
    for index in indexes:
        if index.type == "dense":
            properties[index.name] = {
                "type": "array",
                "items": {"type": "number"},
                "minItems": index.dimensions,
                "maxItems": index.dimensions,
                "description": index.description,
            }
        else:
            properties[index.name] = {
                "type": "object",
                "properties": {
                    "indices": {"type": "array", "items": {"type": "integer"}},
                    "values": {"type": "array", "items": {"type": "number"}},
                },
                "description": index.description,
            }
    return {**archive.output_schema, "type": "object", "properties": properties}
