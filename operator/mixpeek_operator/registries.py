"""The catalog from the registries: what a declaration can use. Imports no model and no web framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixpeek_operator.core.catalog import ExtractorInfo, Need, StageInfo, VectorIndex
from mixpeek_operator.extraction.registry import ExtractorRegistry
from mixpeek_operator.retrieval.registry import StageRegistry


class Registries:
    """The catalog: extractors and stages as their registries found them."""

    def __init__(self, extractors: ExtractorRegistry, stages: StageRegistry) -> None:
        self._extractors = extractors
        self._stages = stages

    def stages(self) -> Mapping[str, StageInfo]:
        return self._stages.stages()

    def extractors(self) -> Mapping[tuple[str, str], ExtractorInfo]:
        return self._extractors.extractors()

    def vector_indexes(self, name: str, version: str, parameters: Mapping[str, Any]) -> tuple[VectorIndex, ...]:
        return self._extractors.vector_indexes(name, version, parameters)

    def output_schema(self, name: str, version: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        return self._extractors.output_schema(name, version, parameters)

    def check_stages(self, stages: list[Any], input_schema: Mapping[str, Any]) -> list[Any]:
        return self._stages.check_stages(stages, input_schema)

    def stage_needs(self, stages: list[Any]) -> list[Need]:
        return self._stages.needs(stages)
