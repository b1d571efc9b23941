"""Parts of a declaration that several kinds share: an extractor in use, the schema of a field, a mapping of inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError

from mixpeek_operator.core.catalog import Catalog, ExtractorInfo
from mixpeek_operator.core.errors import Place, Problem
from mixpeek_operator.core.fields import Immutable
from mixpeek_operator.core.normal import describe_error, nearest, path_text
from mixpeek_operator.core.spec import FreeObject, SpecModel

FieldType = Literal[
    "string",
    "number",
    "integer",
    "float",
    "boolean",
    "object",
    "array",
    "date",
    "datetime",
    "text",
    "image",
    "audio",
    "video",
    "pdf",
    "excel",
]


class FieldSchema(SpecModel):
    """Schema of one field of an object."""

    type: FieldType = Field(description="Type of the field.", examples=["text"])
    required: bool = Field(default=False, description="Whether every object must have it.", examples=[True])
    default: Any = Field(default=None, description="Value when absent; null is no default.", examples=["unknown"])
    description: str | None = Field(default=None, description="What it holds.", examples=["Title of the article"])
    enum: list[Any] | None = Field(default=None, description="Allowed values.", examples=[["audio", "video"]])
    examples: list[Any] | None = Field(default=None, description="Example values.", examples=[["Wireless earbuds"]])
    items: FieldSchema | None = Field(
        default=None, description="Schema of an array's items.", examples=[{"type": "string"}]
    )
    properties: dict[str, FieldSchema] | None = Field(
        default=None, description="Schema of an object's fields.", examples=[{"sku": {"type": "string"}}]
    )

    @classmethod
    def canonical(cls, body: dict[str, Any]) -> dict[str, Any]:
        # Clients send `required: false, default: null` for each field: it says nothing.
        if body.get("required", True) is False or body.get("default", True) is None:
            body = {
                key: value
                for key, value in body.items()
                if not (key == "required" and value is False) and not (key == "default" and value is None)
            }
        return super().canonical(body)


class ObjectSchema(SpecModel):
    """Schema of objects: their fields by name."""

    properties: dict[str, FieldSchema] = Field(
        description="Fields by name.", examples=[{"title": {"type": "text", "required": True}}]
    )

    @classmethod
    def canonical(cls, body: dict[str, Any]) -> dict[str, Any]:
        # JSON Schema spelling: `type: object` at the root, and `required` as a list of names.
        if "type" not in body and "required" not in body:
            return super().canonical(body)
        properties, names = body.get("properties"), body.get("required")
        if not isinstance(properties, dict) or body.get("type", "object") != "object":
            return super().canonical(body)
        if names is not None and not (isinstance(names, list) and all(name in properties for name in names)):
            return super().canonical(body)
        merged = {
            key: {**value, "required": True} if names and key in names and isinstance(value, dict) else value
            for key, value in properties.items()
        }
        rest = {key: value for key, value in body.items() if key not in ("type", "required", "properties")}
        return super().canonical({**rest, "properties": merged})


class ExtractorUse(SpecModel):
    """A feature extractor at a version, with its parameters."""

    aliases: ClassVar[Mapping[str, str]] = {"name": "feature_extractor_name", "params": "parameters"}

    feature_extractor_name: Annotated[str, Immutable("its documents were made by the other extractor")] = Field(
        min_length=1, max_length=128, description="Name of the extractor.", examples=["text_extractor"]
    )
    version: Annotated[str, Immutable("its documents were made by the other version")] = Field(
        min_length=1, max_length=64, description="Version of the extractor.", examples=["v1"]
    )
    parameters: FreeObject | None = Field(
        default=None, description="Parameters of the extractor.", examples=[{"split_by": "sentences"}]
    )

    @classmethod
    def canonical(cls, body: dict[str, Any]) -> dict[str, Any]:
        params = body.get("params")
        if isinstance(params, dict) and isinstance(body.get("parameters"), dict):
            body = {**body, "parameters": {**params, **body["parameters"]}}
        return super().canonical(body)


class InputSource(SpecModel):
    """Where the value of an input comes from."""

    source_type: Literal["document_field", "constant", "source_blob"] = Field(
        description="A field of the document, a constant, or a blob of its object.", examples=["document_field"]
    )
    path: str | None = Field(default=None, description="Path of the field or name of the blob.", examples=["title"])
    value: Any = Field(default=None, description="The constant.", examples=["en"])


class EnrichmentInput(SpecModel):
    """One input of a retriever that runs over documents."""

    input_key: str = Field(min_length=1, description="Input of the retriever.", examples=["query"])
    source: InputSource = Field(
        description="Where its value comes from.", examples=[{"source_type": "document_field", "path": "title"}]
    )


class InputMapping(SpecModel):
    """One input built from a document: a path in it, or a literal."""

    input_key: str = Field(min_length=1, description="Input that is set.", examples=["query_text"])
    source_type: Literal["payload", "literal", "vector", "blob"] = Field(
        default="payload", description="Where its value comes from.", examples=["payload"]
    )
    path: str | None = Field(default=None, description="Dotted path in the document.", examples=["metadata.title"])
    override: Any = Field(default=None, description="The literal.", examples=["en"])


def find_extractor(use: Mapping[str, Any], catalog: Catalog) -> ExtractorInfo | None:
    """Return the extractor that a canonical `ExtractorUse` names, None when there is none."""
    return catalog.extractors().get((str(use.get("feature_extractor_name")), str(use.get("version"))))


def check_extractor(use: Mapping[str, Any], catalog: Catalog, location: tuple[str | int, ...]) -> list[Problem]:
    """Return what is wrong with an extractor in use: unknown name or version, wrong parameters."""
    name, version = use.get("feature_extractor_name"), use.get("version")
    if not isinstance(name, str) or not isinstance(version, str):
        return []
    info = find_extractor(use, catalog)
    if info is None:
        return [_unknown_extractor(name, version, catalog, location)]
    parameters = use.get("parameters") or {}
    try:
        info.parameters.model_validate(parameters)
    except ValidationError as error:
        found = []
        for item in error.errors(include_url=False):
            where = (*location, "parameters", *item["loc"])
            _code, message = describe_error(info.parameters, item)
            text = f"parameter of {name}@{version}: {message}"
            found.append(Problem("invalid_parameter", text, Place(path=path_text(where)), location=where))
        return found
    return []


def _unknown_extractor(name: str, version: str, catalog: Catalog, location: tuple[str | int, ...]) -> Problem:
    known = sorted(catalog.extractors())
    versions = [item for extractor, item in known if extractor == name]
    if versions:
        where = (*location, "version")
        message = f"{name} has no version {version!r}; it has {', '.join(versions)}"
    else:
        where = (*location, "feature_extractor_name")
        names = sorted({extractor for extractor, _version in known})
        guess = nearest(name, names)
        hint = f"did you mean {guess!r}?" if guess else f"known extractors are {', '.join(names) or 'none'}"
        message = f"unknown extractor {name!r}; {hint}"
    return Problem("unknown_extractor", message, Place(path=path_text(where)), location=where)
