"""Stages and extractors as the API lists them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixpeek_operator.core.catalog import ExtractorInfo, StageInfo, VectorIndex
from mixpeek_operator.core.rest import vector_index


def in_category(info: StageInfo, category: str | None) -> bool:
    """Whether a list of a category holds the stage; those of group are in the list of reduce, too."""
    return category in (None, info.category, _category(info))


def stage_item(info: StageInfo) -> dict[str, Any]:
    """Return a stage as `GET /v1/retrievers/stages` lists it."""
    return {
        "stage_id": info.id,
        "description": info.description,
        "category": _category(info),
        "icon": info.icon,
        "parameter_schema": info.parameters.model_json_schema(),
    }


def stage_discovery(info: StageInfo) -> dict[str, Any]:
    """Return a stage as `GET /v1/discovery/stages` lists it, with an example."""
    item = stage_item(info)
    parameters = _example(item["parameter_schema"])
    return {
        **item,
        "example_config": {
            "stage_name": info.id,
            "stage_type": _category(info),
            "config": {"stage_id": info.id, "parameters": parameters},
        },
    }


def extractor_item(info: ExtractorInfo) -> dict[str, Any]:
    """Return an extractor as `GET /v1/collections/features/extractors` lists it."""
    schema = info.parameters.model_json_schema()
    return {
        "feature_extractor_name": info.name,
        "version": info.version,
        "feature_extractor_id": info.id,
        "description": info.description,
        "icon": info.icon,
        "source": info.source,
        "input_schema": dict(info.input_schema),
        "output_schema": dict(info.output_schema),
        "parameter_schema": schema,
        "supported_input_types": list(info.supported_input_types),
        "max_inputs": dict(info.max_inputs),
        "default_parameters": _defaults(schema),
        "required_vector_indexes": [vector_item(info, index) for index in info.vector_indexes],
        "required_payload_indexes": [dict(index) for index in info.required_payload_indexes],
    }


def extractor_discovery(info: ExtractorInfo) -> dict[str, Any]:
    """Return an extractor as `GET /v1/discovery/extractors` lists it."""
    item = extractor_item(info)
    item["name"] = item.pop("feature_extractor_name")
    item["supported_modalities"] = item["supported_input_types"]
    item["output_features"] = [
        {"name": index.output, "type": index.type, "dimensions": index.dimensions, "feature_uri": uri(info, index)}
        for index in info.vector_indexes
    ]
    return item


def vector_item(info: ExtractorInfo, index: VectorIndex) -> dict[str, Any]:
    """Return a vector index as the lists of extractors show it: what it is for, and the index itself."""
    return {
        "name": index.output,
        "description": index.description,
        "type": "single",
        "feature_uri": uri(info, index),
        "index": vector_index(index),
    }


def uri(info: ExtractorInfo, index: VectorIndex) -> str:
    """Return the feature URI of one output of an extractor."""
    return f"mixpeek://{info.name}@{info.version}/{index.output}"


def _category(info: StageInfo) -> str:
    """The category in an answer: client libraries refuse one that they do not know, and do not know group."""
    return "reduce" if info.category == "group" else info.category


def _defaults(schema: Mapping[str, Any]) -> dict[str, Any]:
    properties: Mapping[str, Mapping[str, Any]] = schema.get("properties", {})
    return {name: field["default"] for name, field in properties.items() if field.get("default") is not None}


def _example(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The model's own example, else one from the examples of its required fields."""
    examples = schema.get("examples")
    if isinstance(examples, list) and examples:
        return dict(examples[0])
    properties: Mapping[str, Mapping[str, Any]] = schema.get("properties", {})
    return {name: field["examples"][0] for name, field in properties.items() if field.get("examples")}
