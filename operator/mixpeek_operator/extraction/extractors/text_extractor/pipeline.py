"""Batch pipeline of text_extractor: chunks, then embeddings over all chunks of the batch at once."""

from __future__ import annotations

from typing import Any

from mixpeek_operator.extraction.extractors.text_extractor.manifest import (
    DENSE_OUTPUT,
    SPARSE_OUTPUT,
    TextExtractorParams,
    metadata,
)
from mixpeek_operator.extraction.extractors.text_extractor.processors.text import (
    ChunkConfig,
    ChunkProcessor,
    EmbedConfig,
    EmbedProcessor,
)
from mixpeek_operator.extraction.sdk import (
    Container,
    ExtractorRequest,
    PipelineDefinition,
    ResourceType,
    StepDefinition,
    build_pipeline_steps,
)


def build_steps(extractor_request: ExtractorRequest, container: Container, **_: Any) -> dict[str, Any]:
    """Steps for one run."""
    params = TextExtractorParams.model_validate(dict(extractor_request.extractor_config.parameters))
    pipeline = PipelineDefinition(
        name=metadata["feature_extractor_name"],
        version=metadata["version"],
        steps=[
            StepDefinition(
                service_class=ChunkProcessor,
                config=ChunkConfig(params.split_by, params.chunk_size, params.chunk_overlap),
            ),
            StepDefinition(
                service_class=EmbedProcessor,
                resource_type=ResourceType.CPU,
                enabled=params.dense_embedding,
                config=EmbedConfig(container.inference, params.embedding_model or "default", DENSE_OUTPUT),
            ),
            StepDefinition(
                service_class=EmbedProcessor,
                enabled=params.sparse_embedding,
                config=EmbedConfig(container.inference, params.sparse_model, SPARSE_OUTPUT),
            ),
        ],
    )
    return {"steps": build_pipeline_steps(pipeline)}
