"""Realtime service of text_extractor: embeds a query with the model that embedded the documents."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.extraction.extractors.text_extractor.manifest import (
    SPARSE_OUTPUT,
    SPARSE_VECTOR,
    TextExtractorParams,
)
from mixpeek_operator.extraction.sdk import BaseInferenceService


class InferenceService(BaseInferenceService):
    """`{text | texts, vector_index?}` → `{embedding}`, or `{embedding, embeddings}` for several texts."""

    async def run_inference(self, inputs: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Embed the text or texts as queries."""
        texts = inputs.get("texts") or ([inputs["text"]] if inputs.get("text") else [])
        if self.container is None or not texts:
            raise SpecError("text_extractor needs inputs.text or inputs.texts")
        params = TextExtractorParams.model_validate(dict(parameters))
        sparse = inputs.get("vector_index") in (SPARSE_VECTOR, SPARSE_OUTPUT)
        model = params.sparse_model if sparse else params.embedding_model or "default"
        vectors = await asyncio.to_thread(self.container.inference.embed, model, texts, purpose="query")
        return {"embedding": vectors[0], "embeddings": vectors}
