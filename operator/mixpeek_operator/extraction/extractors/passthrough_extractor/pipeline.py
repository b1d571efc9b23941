"""Batch pipeline of passthrough_extractor."""

from __future__ import annotations

from typing import Any

from mixpeek_operator.extraction.extractors.passthrough_extractor.manifest import metadata
from mixpeek_operator.extraction.extractors.passthrough_extractor.processors.copy import CopyProcessor
from mixpeek_operator.extraction.sdk import (
    ExtractorRequest,
    PipelineDefinition,
    StepDefinition,
    build_pipeline_steps,
)


def build_steps(extractor_request: ExtractorRequest, **_: Any) -> dict[str, Any]:
    """Steps for one run."""
    pipeline = PipelineDefinition(
        name=metadata["feature_extractor_name"],
        version=metadata["version"],
        steps=[StepDefinition(service_class=CopyProcessor)],
    )
    return {"steps": build_pipeline_steps(pipeline)}
