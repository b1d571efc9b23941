"""What text_extractor takes, writes and can be told. Imports nothing heavy: the catalog reads it everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError

metadata = {
    "feature_extractor_name": "text_extractor",
    "version": "v1",
    "description": (
        "Splits text into chunks and writes a dense embedding for search by meaning and a BM25-style sparse "
        "embedding for search by words."
    ),
    "category": "text",
    "icon": "text",
}
supported_input_types = ["text", "string"]
max_inputs = {"text": 1}
compute_profile = {"resource_type": "cpu", "batch_size": 1024}

DENSE_VECTOR = "text_extractor_v1_embedding"
SPARSE_VECTOR = "text_extractor_v1_sparse_embedding"
DENSE_OUTPUT = "text_embedding"
SPARSE_OUTPUT = "text_sparse_embedding"


class TextInput(BaseModel):
    """Inputs of text_extractor."""

    text: str = Field(description="Text to process; what a model cannot take in at once is cut per chunk.")


class TextOutput(BaseModel):
    """Document fields written by text_extractor."""

    text: str = Field(description="The text of this document: a chunk, or the whole text when it is not split.")


class TextExtractorParams(BaseModel):
    """Parameters of text_extractor: how to split, and which embeddings to write."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    extractor_type: Literal["text_extractor"] = Field(
        default="text_extractor", description="Names the extractor these parameters belong to."
    )
    source_type: Literal["text", "youtube"] = Field(
        default="text", description="Where the text comes from; only `text` is available in this release."
    )
    split_by: Literal[
        "characters", "words", "sentences", "paragraphs", "pages", "none", "time_segments", "markdown"
    ] = Field(
        default="none",
        description=(
            "Unit that chunks are made of: characters, words, sentences, paragraphs (separated by blank lines), "
            "pages (separated by form feeds), or none to keep the text whole."
        ),
    )
    chunk_size: int = Field(
        default=1000, ge=1, le=10_000, description="Most units per chunk, counted in the unit of split_by."
    )
    chunk_overlap: int = Field(
        default=0, ge=0, le=5_000, description="Units a chunk repeats from the one before; less than chunk_size."
    )
    segment_length_seconds: int = Field(
        default=120, ge=30, le=600, description="Seconds per segment of a transcript; for split_by time_segments."
    )
    language: str = Field(default="en", description="Language of captions; for source_type youtube.")
    extract_captions: bool = Field(default=True, description="Whether to read captions; for source_type youtube.")
    response_shape: str | dict[str, Any] | None = Field(
        default=None, description="Structured output by a language model; not available in this release."
    )
    llm_provider: str | None = Field(default=None, description="Provider for response_shape.")
    llm_model: str | None = Field(default=None, description="Model for response_shape.")
    llm_api_key: SecretStr | None = Field(default=None, description="Key for response_shape.")
    embedding_model: str | None = Field(
        default=None,
        validation_alias=AliasChoices("embedding_model", "model"),
        description="Model of the dense embedding; default: the server's MIXPEEK_EMBEDDING_MODEL.",
    )
    embedding_task: Literal["retrieval_document"] | None = Field(
        default=None, description="Task hint for the model; documents are always embedded for retrieval."
    )
    dense_embedding: bool = Field(default=True, description="Whether to write the dense embedding.")
    sparse_embedding: bool = Field(default=True, description="Whether to write the BM25-style sparse embedding.")
    sparse_model: str = Field(
        default="bm25-english",
        pattern=r"^bm25-[a-z]+$",
        description="Model of the sparse embedding: `bm25-` and the language of stop words and stemming.",
    )

    @model_validator(mode="after")
    def _available(self) -> TextExtractorParams:
        """Refuse what this release cannot do, rather than ignore it."""
        for name in ("response_shape", "llm_provider", "llm_model", "llm_api_key"):
            if getattr(self, name) is not None:
                raise PydanticCustomError(
                    "not_available",
                    "structured extraction by a language model ({name}) is not available in this release; "
                    "remove {name}",
                    {"name": name},
                )
        if self.source_type == "youtube":
            raise PydanticCustomError(
                "not_available", "source_type 'youtube' is not available in this release; use 'text'", {}
            )
        if self.split_by in ("time_segments", "markdown"):
            raise PydanticCustomError(
                "not_available",
                "split_by '{unit}' is not available in this release; use characters, words, sentences, "
                "paragraphs, pages or none",
                {"unit": self.split_by},
            )
        if self.chunk_overlap >= self.chunk_size:
            raise PydanticCustomError(
                "chunk_overlap",
                "chunk_overlap ({overlap}) must be less than chunk_size ({size})",
                {"overlap": self.chunk_overlap, "size": self.chunk_size},
            )
        return self


input_schema = TextInput
output_schema = TextOutput
parameter_schema = TextExtractorParams

DENSE_FEATURE: Mapping[str, Any] = {
    "feature_type": "embedding",
    "feature_name": DENSE_OUTPUT,
    "vector_name": DENSE_VECTOR,
    "distance_metric": "cosine",
    "inference_model": "default",
    "description": "Dense embedding of the text, normalised, for search by meaning.",
}
SPARSE_FEATURE: Mapping[str, Any] = {
    "feature_type": "sparse_embedding",
    "feature_name": SPARSE_OUTPUT,
    "vector_name": SPARSE_VECTOR,
    "distance_metric": "dot",
    "inference_model": "bm25-english",
    "modifier": "idf",
    "description": "BM25-style sparse embedding of the text, for search by words.",
}
features = [DENSE_FEATURE, SPARSE_FEATURE]


def select_features(parameters: BaseModel) -> list[Mapping[str, Any]]:
    """The features written with these parameters."""
    chosen = TextExtractorParams.model_validate(parameters, from_attributes=True)
    selected: list[Mapping[str, Any]] = []
    if chosen.dense_embedding:
        selected.append({**DENSE_FEATURE, "inference_model": chosen.embedding_model or "default"})
    if chosen.sparse_embedding:
        selected.append({**SPARSE_FEATURE, "inference_model": chosen.sparse_model})
    return selected
