"""Every mistake in a declaration is found, at once, where the user wrote it, with what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from mixpeek_operator.core.catalog import ExtractorInfo, Need, StageInfo, VectorIndex
from mixpeek_operator.core.errors import Place, Problem
from mixpeek_operator.core.normal import normalise
from mixpeek_operator.generate.files import kind_schemas

SCHEMAS = kind_schemas()


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    chunk_size: int = 100


class SmallCatalog:
    """One extractor, and stages that are judged by their id."""

    def __init__(self) -> None:
        self.info = ExtractorInfo(
            name="text_extractor",
            version="v1",
            description="Text",
            icon="text",
            source="builtin",
            input_schema={"properties": {"text": {"type": "string"}}},
            output_schema={},
            parameters=Parameters,
            supported_input_types=("text",),
            vector_indexes=(),
        )

    def stages(self) -> Mapping[str, StageInfo]:
        return {}

    def extractors(self) -> Mapping[tuple[str, str], ExtractorInfo]:
        return {("text_extractor", "v1"): self.info}

    def vector_indexes(self, name: str, version: str, parameters: Mapping[str, Any]) -> tuple[VectorIndex, ...]:
        return ()

    def output_schema(self, name: str, version: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        return {}

    def check_stages(self, stages: list[Any], input_schema: Mapping[str, Any]) -> list[Any]:
        return [
            Problem("unknown_stage", f"unknown stage {stage['stage_id']!r}")
            for stage in stages
            if stage["stage_id"] == "nonsense"
        ]

    def stage_needs(self, stages: list[Any]) -> list[Need]:
        return []


COLLECTION = {"name": "c1", "namespace": "n1", "source": {"type": "bucket", "bucket_ids": ["b1"]}}
RETRIEVER = {"name": "r1", "namespace": "n1", "stages": [{"stage_id": "limit"}]}

CASES: list[tuple[str, str, dict[str, Any], tuple[str | int, ...], str]] = [
    ("missing field", "collection", {"name": "c1", "namespace": "n1"}, ("source",), "source is required"),
    ("no namespace", "retriever", {**RETRIEVER, "namespace": None}, ("namespace",), "expected text, found null"),
    (
        "number for text",
        "bucket",
        {"name": 3, "namespace": "n", "schema": {"properties": {}}},
        ("name",),
        "found the number 3",
    ),
    ("text for number", "namespace", {"name": "n", "ttl_seconds": "60"}, ("ttl_seconds",), "expected a whole number"),
    ("true for number", "namespace", {"name": "n", "ttl_seconds": True}, ("ttl_seconds",), "found true"),
    (
        "typo",
        "collection",
        {**COLLECTION, "feature_extracter": {}},
        ("feature_extracter",),
        "did you mean 'feature_extractor'?",
    ),
    ("camel typo", "bucket", {"name": "b", "namespace": "n", "bucketShema": {}}, ("bucketShema",), "did you mean"),
    (
        "wrong choice",
        "bucket",
        {"name": "b", "namespace": "n", "schema": {"properties": {"a": {"type": "txt"}}}},
        ("schema", "properties", "a", "type"),
        "did you mean text?",
    ),
    ("name", "namespace", {"name": "_x"}, ("name",), "is no usable name"),
    (
        "refused",
        "collection",
        {**COLLECTION, "source": {**COLLECTION["source"], "source_namespace_id": "ns_other"}},
        ("source", "source_namespace_id"),
        "nothing is read across namespaces",
    ),
    (
        "bucket and collection",
        "collection",
        {**COLLECTION, "source": {"type": "bucket", "bucket_ids": ["b"], "collection_ids": ["c"]}},
        ("source",),
        "has no collection_ids",
    ),
    (
        "two extractors",
        "collection",
        {**COLLECTION, "feature_extractors": [{}, {}]},
        (),
        "one feature extractor, found 2",
    ),
    ("no stages", "retriever", {**RETRIEVER, "stages": []}, ("stages",), "at least 1 item"),
    (
        "key in config",
        "retriever",
        {**RETRIEVER, "stages": [{"stage_name": "s", "config": {"stage_id": "limit", "limit": 3}}]},
        ("stages", 0, "config", "limit"),
        "unknown key",
    ),
    (
        "filter",
        "retriever",
        {**RETRIEVER, "stages": [{"stage_id": "limit", "pre_filters": {"field": "a", "operator": "equals"}}]},
        ("stages", 0, "pre_filters"),
        "equals",
    ),
    (
        "workers",
        "namespace",
        {"name": "n", "infrastructure": {"min_workers": 5, "max_workers": 2}},
        ("infrastructure",),
        "above max_workers",
    ),
    ("tag", "taxonomy", {"name": "t", "namespace": "n", "config": {"taxonomy_type": "round"}}, ("config",), "'flat'"),
    (
        "inside a tagged union",
        "taxonomy",
        {
            "name": "t",
            "namespace": "n",
            "config": {
                "taxonomy_type": "flat",
                "retriever_id": 3,
                "input_mappings": [],
                "source_collection": {"collection_id": "c"},
            },
        },
        ("config", "retriever_id"),
        "found the number 3",
    ),
    (
        "two sources",
        "extractor",
        {"name": "e", "namespace": "n", "version": "1", "source": {"url": "u", "path": "p"}},
        ("source",),
        "url, path",
    ),
    ("body", "bucket", ["name"], (), "expected a mapping"),  # type: ignore[list-item]
]


@pytest.mark.parametrize(
    ("kind", "body", "location", "message"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_mistake_is_explained_where_it_stands(
    kind: str, body: dict[str, Any], location: tuple[str | int, ...], message: str
) -> None:
    _spec, problems = normalise(SCHEMAS[kind], body, Place(file="m.yaml", line=3))
    assert any(item.location == location and message in item.message for item in problems), problems
    assert all(item.place.file == "m.yaml" for item in problems)


def test_all_mistakes_at_once_and_the_sound_part_remains() -> None:
    body = {
        "name": "c1",
        "namespace": 3,
        "source": {"type": "bucket", "bucket_id": "b1"},
        "enabld": True,
        "tags": ["a", 4],
    }
    spec, problems = normalise(SCHEMAS["collection"], body)
    assert {item.location for item in problems} == {("namespace",), ("enabld",), ("tags", 1)}
    assert spec["name"] == "c1"
    assert "namespace" not in spec


def test_whole_number_is_a_number() -> None:
    spec, problems = normalise(SCHEMAS["namespace"], {"name": "n", "spend_budget": {"daily_usd": 3}})
    assert problems == []
    assert spec["spend_budget"] == {"daily_usd": 3}


CHECKS: list[tuple[str, str, dict[str, Any], tuple[str | int, ...], str]] = [
    (
        "extractor",
        "collection",
        {**COLLECTION, "feature_extractor": {"feature_extractor_name": "text_extracter", "version": "v1"}},
        ("feature_extractor", "feature_extractor_name"),
        "did you mean 'text_extractor'?",
    ),
    (
        "version",
        "collection",
        {**COLLECTION, "feature_extractor": {"feature_extractor_name": "text_extractor", "version": "v9"}},
        ("feature_extractor", "version"),
        "it has v1",
    ),
    (
        "parameter",
        "collection",
        {
            **COLLECTION,
            "feature_extractor": {
                "feature_extractor_name": "text_extractor",
                "version": "v1",
                "parameters": {"chunk": 1},
            },
        },
        ("feature_extractor", "parameters", "chunk"),
        "text_extractor@v1",
    ),
    (
        "input",
        "collection",
        {
            **COLLECTION,
            "feature_extractor": {
                "feature_extractor_name": "text_extractor",
                "version": "v1",
                "input_mappings": {"txt": "a"},
            },
        },
        ("feature_extractor", "input_mappings", "txt"),
        "did you mean 'text'?",
    ),
    (
        "namespace",
        "namespace",
        {"name": "n", "feature_extractors": [{"feature_extractor_name": "nothing", "version": "v1"}]},
        ("feature_extractors", 0, "feature_extractor_name"),
        "unknown extractor",
    ),
    (
        "unique key",
        "bucket",
        {
            "name": "b",
            "namespace": "n",
            "bucket_schema": {"properties": {"sku": {"type": "string"}}},
            "unique_key": {"fields": ["skuu"]},
        },
        ("unique_key", "fields", 0),
        "did you mean 'sku'?",
    ),
    (
        "key of images",
        "bucket",
        {
            "name": "b",
            "namespace": "n",
            "bucket_schema": {"properties": {"pic": {"type": "image"}}},
            "unique_key": {"fields": ["pic"]},
        },
        ("unique_key", "fields", 0),
        "plain value",
    ),
    (
        "stage name twice",
        "retriever",
        {**RETRIEVER, "stages": [{"stage_id": "limit"}, {"stage_id": "limit"}]},
        ("stages", 1, "stage_name"),
        "taken by stages[0]",
    ),
    ("stage", "retriever", {**RETRIEVER, "stages": [{"stage_id": "nonsense"}]}, (), "unknown stage 'nonsense'"),
    (
        "cached stage",
        "retriever",
        {**RETRIEVER, "cache_config": {"cache_stage_names": ["x"]}},
        ("cache_config", "cache_stage_names", 0),
        "there is no stage",
    ),
]


@pytest.mark.parametrize(
    ("kind", "body", "location", "message"), [case[1:] for case in CHECKS], ids=[case[0] for case in CHECKS]
)
def test_check_against_the_catalog(
    kind: str, body: dict[str, Any], location: tuple[str | int, ...], message: str
) -> None:
    spec, problems = normalise(SCHEMAS[kind], body)
    assert problems == []
    found = SCHEMAS[kind].check(spec, SmallCatalog())
    assert any(item.location == location and message in item.message for item in found), found
