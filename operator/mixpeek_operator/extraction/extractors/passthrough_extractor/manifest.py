"""What passthrough_extractor takes and writes: the inputs as they are, no vectors."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

metadata = {
    "feature_extractor_name": "passthrough_extractor",
    "version": "v1",
    "description": "Copies fields of the source into documents, without a model and without vectors.",
    "category": "metadata",
    "icon": "arrow-right",
}
supported_input_types = [
    "text", "string", "integer", "number", "float", "boolean", "object", "array", "date", "datetime", "json",
    "image", "video", "audio", "pdf", "document", "file",
]  # fmt: skip
max_inputs: dict[str, int] = {}
compute_profile = {"resource_type": "cpu", "batch_size": 4096}


class PassthroughExtractorParams(BaseModel):
    """Parameters of passthrough_extractor."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    extractor_type: Literal["passthrough_extractor"] = Field(
        default="passthrough_extractor", description="Names the extractor these parameters belong to."
    )
    preserve_metadata: Literal[True] = Field(
        default=True, description="Metadata of the source is always kept; choose fields with field_passthrough."
    )
    vector_fields: list[dict[str, Any]] | None = Field(
        default=None, description="Vectors computed elsewhere, by field; not available in this release."
    )
    row_format: str | None = Field(default=None, description="Format of the file for vector_fields.")

    @model_validator(mode="after")
    def _available(self) -> PassthroughExtractorParams:
        """Refuse what this release cannot do, rather than ignore it."""
        for name in ("vector_fields", "row_format"):
            if getattr(self, name) is not None:
                raise PydanticCustomError(
                    "not_available", "{name} is not available in this release; remove it", {"name": name}
                )
        return self


input_schema: dict[str, Any] = {
    "type": "object",
    "properties": {},
    "additionalProperties": True,
    "description": "Any fields; none is required.",
}
output_schema: dict[str, Any] = {
    "type": "object",
    "properties": {},
    "additionalProperties": True,
    "description": "The fields given as inputs.",
}
parameter_schema = PassthroughExtractorParams
features: list[dict[str, Any]] = []
