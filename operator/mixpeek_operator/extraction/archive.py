"""An extractor archive as facts: what its `manifest.py` declares, checked. Loading it runs no pipeline code."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from mixpeek_operator.core.errors import InternalError, Place, Problem, SpecError
from mixpeek_operator.extraction.sdk import ExtractorConfig, ExtractorRequest, PipelineStep


class FeatureSpec(BaseModel):
    """One entry of `features` in a manifest; the docs' four keys, and what built-ins add."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    feature_type: Literal["embedding", "sparse_embedding"]
    feature_name: str = Field(min_length=1)
    embedding_dim: int | None = Field(default=None, ge=1, le=65_536)
    distance_metric: Literal["cosine", "dot", "euclid", "manhattan"] = "cosine"
    vector_name: str | None = None
    """Name of the vector in the store; default `<extractor>_<version>_<feature_name>`."""
    inference_model: str | None = None
    """Model of the model registry that embeds it, and from which the dimensions follow."""
    modifier: Literal["idf"] | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class Archive:
    """A checked manifest, and the package its code is imported from when it runs."""

    name: str
    version: str
    description: str
    icon: str
    source: str
    package: str
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any]
    parameters: type[BaseModel]
    supported_input_types: tuple[str, ...]
    features: tuple[FeatureSpec, ...]
    select_features: Callable[[BaseModel], Sequence[Mapping[str, Any]]] | None
    """`select_features(parameters)` of a manifest whose features depend on them."""
    max_inputs: Mapping[str, int]
    batch_size: int
    """Rows per call of a processor."""

    def features_for(self, parameters: BaseModel) -> tuple[FeatureSpec, ...]:
        """The features written with these parameters."""
        if self.select_features is None:
            return self.features
        return tuple(FeatureSpec.model_validate(entry) for entry in self.select_features(parameters))

    def build_steps(self, parameters: BaseModel, container: Any) -> list[PipelineStep]:
        """Import `pipeline.py` and return its steps. Only for archives that may run in this process."""
        module = importlib.import_module(f"{self.package}.pipeline")
        config = ExtractorConfig(self.name, self.version, parameters.model_dump(exclude_unset=True))
        built = module.build_steps(ExtractorRequest(config), container=container)
        steps: list[PipelineStep] = list(built["steps"])
        return steps


def load_archive(package: str, *, source: str = "builtin") -> Archive:
    """Import `<package>.manifest` and return what it declares.

    Raises SpecError with every problem of the manifest; an import error is not swallowed.
    """
    module = importlib.import_module(f"{package}.manifest")
    return read_manifest(module, package=package, source=source)


def read_manifest(module: ModuleType, *, package: str, source: str) -> Archive:
    """Check a manifest module: facts in a `metadata` dict or at its top level, schemas as models or as dicts."""
    facts: dict[str, Any] = {**vars(module), **dict(getattr(module, "metadata", None) or {})}
    place = Place(file=f"{package.rpartition('.')[2]}/manifest.py")
    problems: list[Problem] = []

    def text(key: str, default: str | None = None) -> str:
        value = facts.get(key, default)
        if isinstance(value, str) and value.strip():
            return value
        problems.append(Problem("manifest_invalid", f"{key} must be a text that is not empty", place))
        return ""

    name, version, description = text("feature_extractor_name"), text("version"), text("description", "-")
    folder = package.rpartition(".")[2]
    if source == "builtin" and name != folder:
        raise InternalError(f"the folder {folder} holds the extractor {name!r}; both must have the same name")
    features = []
    for position, entry in enumerate(facts.get("features") or ()):
        try:
            features.append(FeatureSpec.model_validate(entry))
        except ValidationError as error:
            for finding in error.errors():
                path = ".".join(str(part) for part in ("features", position, *finding["loc"]))
                problems.append(Problem("manifest_invalid", finding["msg"], Place(file=place.file, path=path)))
    compute = facts.get("compute_profile") or {}
    batch_size = compute.get("batch_size", 64)
    if not isinstance(batch_size, int) or batch_size < 1:
        problems.append(Problem("manifest_invalid", "compute_profile.batch_size must be a positive integer", place))
    if problems:
        raise SpecError.of(problems)
    return Archive(
        name=name,
        version=version,
        description=description,
        icon=str(facts.get("icon") or "box"),
        source=source,
        package=package,
        input_schema=_schema(facts.get("input_schema")),
        output_schema=_schema(facts.get("output_schema")),
        parameters=_parameters(name, facts.get("parameter_schema")),
        supported_input_types=tuple(facts.get("supported_input_types") or ()),
        features=tuple(features),
        select_features=facts.get("select_features"),
        max_inputs=dict(facts.get("max_inputs") or {}),
        batch_size=batch_size,
    )


def _schema(declared: Any) -> dict[str, Any]:
    """A pydantic model, a JSON schema, or a bare mapping of properties, as a JSON schema."""
    if declared is None:
        return {"type": "object", "properties": {}}
    if isinstance(declared, type) and issubclass(declared, BaseModel):
        return declared.model_json_schema()
    if "properties" in declared or declared.get("type") == "object":
        return dict(declared)
    return {"type": "object", "properties": dict(declared)}


def _parameters(name: str, declared: Any) -> type[BaseModel]:
    if isinstance(declared, type) and issubclass(declared, BaseModel):
        return declared
    return create_model(f"{name}_parameters", __config__=ConfigDict(extra="forbid"))
