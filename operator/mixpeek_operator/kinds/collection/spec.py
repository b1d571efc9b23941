"""Collection: what feeds it, and how an extractor makes documents from that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from mixpeek_operator.core.catalog import Catalog
from mixpeek_operator.core.declared import (
    EnrichmentInput,
    ExtractorUse,
    ObjectSchema,
    check_extractor,
    find_extractor,
)
from mixpeek_operator.core.errors import Place, Problem
from mixpeek_operator.core.fields import Immutable, Ref
from mixpeek_operator.core.kind import KindSchema, PrinterColumn, Reference
from mixpeek_operator.core.normal import nearest
from mixpeek_operator.core.spec import Filters, FreeObject, NamespacedSpec, ResourceStatus, SpecModel


class FieldPassthrough(SpecModel):
    """One field that is copied from the source to the document."""

    source_path: str = Field(min_length=1, description="Dotted path in the source.", examples=["metadata.author"])
    target_path: str | None = Field(
        default=None,
        description="Field of the document; the last part of source_path when absent.",
        examples=["author"],
    )
    default: Any = Field(default=None, description="Value when the source lacks it.", examples=["unknown"])
    required: bool = Field(default=False, description="Whether a source without it fails.", examples=[False])


class CollectionExtractor(ExtractorUse):
    """The extractor of a collection and how the source feeds it."""

    input_mappings: dict[str, str] | None = Field(
        default=None, description="Input of the extractor → dotted path in the source.", examples=[{"text": "title"}]
    )
    field_passthrough: list[FieldPassthrough] | None = Field(
        default=None,
        max_length=256,
        description="Fields copied from the source to the document.",
        examples=[[{"source_path": "category"}]],
    )
    include_all_source_fields: bool = Field(
        default=False, description="Copy every field of the source.", examples=[True]
    )

    @classmethod
    def canonical(cls, body: dict[str, Any]) -> dict[str, Any]:
        body = super().canonical(body)
        for key in ("input_mappings", "inputMappings"):
            if isinstance(body.get(key), list):
                body = {**body, key: _mapping(body[key])}
        return body


def _mapping(entries: list[Any]) -> Any:
    """Return the mapping for the wire's list of `{input_key, source_type, path}`."""
    result: dict[str, str] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("input_key"), str):
            return entries
        if entry.get("source_type") not in (None, "payload", "blob") or not isinstance(entry.get("path"), str):
            raise PydanticCustomError(
                "input_mapping",
                "input {key} must name a path in the source (source_type payload or blob)",
                {"key": entry["input_key"]},
            )
        result[entry["input_key"]] = entry["path"]
    return result


class SourceFilters(SpecModel):
    """Which objects or documents of the source are taken."""

    filters: Filters | None = Field(
        default=None,
        description="Structured filter.",
        examples=[{"field": "status", "operator": "eq", "value": "active"}],
    )

    @classmethod
    def canonical(cls, body: dict[str, Any]) -> dict[str, Any]:
        if body and "filters" not in body:
            return {"filters": body}
        return body


class Source(SpecModel):
    """What feeds a collection: buckets (tier 0) or other collections (tier n)."""

    aliases: ClassVar[Mapping[str, str]] = {"source_type": "type"}
    refused: ClassVar[Mapping[str, str]] = {
        "source_namespace_id": "nothing is read across namespaces",
        "inherited_bucket_ids": "it follows from the source collections",
    }
    rules: ClassVar[tuple[tuple[str, str], ...]] = (
        ("(self.type == 'bucket') == has(self.bucketIds)", "bucketIds belong to type bucket, which needs them"),
        (
            "(self.type == 'collection') == has(self.collectionIds)",
            "collectionIds belong to type collection, which needs them",
        ),
    )

    type: Literal["bucket", "collection", "none", "direct_upsert"] = Field(
        description="bucket or collection; none when documents are written directly.", examples=["bucket"]
    )
    bucket_ids: list[Annotated[str, Ref("Bucket")]] | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="Buckets (names or ids), for type bucket. `bucket_id` for one.",
        examples=[["articles"]],
    )
    collection_ids: list[Annotated[str, Ref("Collection")]] | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="Collections (names or ids), for type collection. `collection_id` for one.",
        examples=[["article_texts"]],
    )
    source_filters: SourceFilters | None = Field(
        default=None,
        description="Which of their objects or documents are taken.",
        examples=[{"filters": {"field": "language", "operator": "eq", "value": "en"}}],
    )
    field_map: dict[str, list[FieldPassthrough]] | None = Field(
        default=None,
        description="Fields copied, by source, when several sources differ.",
        examples=[{"articles": [{"source_path": "headline", "target_path": "title"}]}],
    )

    @classmethod
    def canonical(cls, body: dict[str, Any]) -> dict[str, Any]:
        body = super().canonical(body)
        for one, many in (("bucket_id", "bucket_ids"), ("collection_id", "collection_ids")):
            camel_one, camel_many = one[:-2] + "Id", many[:-3] + "Ids"
            for single in (one, camel_one):
                if single not in body:
                    continue
                value = body[single]
                body = {key: item for key, item in body.items() if key != single}
                if value is not None and body.get(many) is None and body.get(camel_many) is None:
                    body[many] = [value]
        if body.get("type") is None and "source_type" not in body:
            kind = "bucket" if body.get("bucket_ids") else "collection" if body.get("collection_ids") else None
            body = {**body, "type": kind} if kind else body
        return body

    @model_validator(mode="after")
    def _matches_type(self) -> Source:
        if self.type == "bucket" and not self.bucket_ids:
            raise ValueError("a source of type bucket needs bucket_ids")
        if self.type == "collection" and not self.collection_ids:
            raise ValueError("a source of type collection needs collection_ids")
        if self.type != "bucket" and self.bucket_ids:
            raise ValueError(f"a source of type {self.type} has no bucket_ids")
        if self.type != "collection" and self.collection_ids:
            raise ValueError(f"a source of type {self.type} has no collection_ids")
        return self


class Schedule(SpecModel):
    """When the collection is processed again by itself."""

    trigger_type: Literal["cron", "interval"] = Field(description="Kind of schedule.", examples=["cron"])
    schedule_config: FreeObject = Field(
        description="cron: cron_expression, timezone; interval: interval_seconds, start_immediately.",
        examples=[{"cron_expression": "0 3 * * *", "timezone": "UTC"}],
    )
    description: str | None = Field(default=None, description="What it is for.", examples=["Every night"])


Phase = Literal[1, 2, 3, 4]


class TaxonomyApplication(SpecModel):
    """A taxonomy that labels the collection's documents."""

    taxonomy_id: Annotated[str, Ref("Taxonomy", ordered=False)] = Field(
        description="Taxonomy (name or id).", examples=["product_categories"]
    )
    execution_mode: Literal["materialize", "on_demand"] = Field(
        default="materialize", description="Write the labels at ingestion, or on demand.", examples=["materialize"]
    )
    target_collection_id: Annotated[str | None, Ref("Collection", ordered=False)] = Field(
        default=None, description="Collection that gets them; this one when absent.", examples=["labelled_products"]
    )
    scroll_filters: Filters | None = Field(
        default=None,
        description="Which documents are labelled.",
        examples=[{"field": "status", "operator": "eq", "value": "active"}],
    )
    execution_phase: Phase = Field(
        default=1, description="1 taxonomies, 2 clusters, 3 alerts, 4 retriever enrichments.", examples=[1]
    )
    priority: int = Field(default=0, description="Higher runs first within the phase.", examples=[0])
    hierarchical_enrichment_style: Literal["full_chain", "best_match", "combined"] | None = Field(
        default=None, description="How the tiers of a hierarchy are written.", examples=["best_match"]
    )


class ClusterApplication(SpecModel):
    """A cluster that runs when a batch of the collection is done."""

    cluster_id: Annotated[str, Ref("Cluster", ordered=False)] = Field(
        description="Cluster (name or id).", examples=["product_topics"]
    )
    auto_execute_on_batch: bool = Field(default=True, description="Run after each batch.", examples=[True])
    min_document_threshold: int | None = Field(
        default=None, ge=0, description="Fewest documents to run for.", examples=[100]
    )
    cooldown_seconds: int = Field(default=3600, ge=0, description="Seconds between two runs.", examples=[3600])
    execution_phase: Phase = Field(
        default=2, description="1 taxonomies, 2 clusters, 3 alerts, 4 retriever enrichments.", examples=[2]
    )
    priority: int = Field(default=0, description="Higher runs first within the phase.", examples=[0])


class AlertApplication(SpecModel):
    """An alert that judges new documents."""

    alert_id: str = Field(description="Alert.", examples=["alert_price_drop"])
    execution_mode: Literal["on_ingest", "scheduled", "on_demand"] = Field(
        default="on_ingest", description="When it runs.", examples=["on_ingest"]
    )
    input_mappings: list[EnrichmentInput] = Field(
        min_length=1,
        max_length=64,
        description="Retriever input → document field or constant.",
        examples=[[{"input_key": "query", "source": {"source_type": "document_field", "path": "title"}}]],
    )
    execution_phase: Phase = Field(
        default=3, description="1 taxonomies, 2 clusters, 3 alerts, 4 retriever enrichments.", examples=[3]
    )
    priority: int = Field(default=0, description="Higher runs first within the phase.", examples=[0])


class WriteBack(SpecModel):
    """A field of a retriever's result that is written to the document."""

    source_field: str = Field(description="Dotted path in the result.", examples=["metadata.category"])
    target_field: str = Field(description="Field of the document.", examples=["category"])
    mode: Literal["first", "all_as_array", "concat"] = Field(
        default="first", description="What to take of several results.", examples=["first"]
    )


class RetrieverEnrichment(SpecModel):
    """A retriever whose results are written to new documents."""

    retriever_id: Annotated[str, Ref("Retriever", ordered=False)] = Field(
        description="Retriever (name or id).", examples=["similar_products"]
    )
    input_mappings: list[EnrichmentInput] = Field(
        min_length=1,
        max_length=64,
        description="Retriever input → document field or constant.",
        examples=[[{"input_key": "query", "source": {"source_type": "document_field", "path": "title"}}]],
    )
    write_back_fields: list[WriteBack] = Field(
        min_length=1,
        max_length=64,
        description="Fields that are written.",
        examples=[[{"source_field": "category", "target_field": "suggested_category"}]],
    )
    execution_phase: Phase = Field(
        default=4, description="1 taxonomies, 2 clusters, 3 alerts, 4 retriever enrichments.", examples=[4]
    )
    priority: int = Field(default=0, description="Higher runs first within the phase.", examples=[0])
    scroll_filters: Filters | None = Field(
        default=None,
        description="Which documents are enriched.",
        examples=[{"field": "category", "operator": "exists", "value": False}],
    )
    enabled: bool = Field(default=True, description="Whether it runs.", examples=[True])


class RetrieverTransform(SpecModel):
    """A retriever that builds the collection from its source."""

    retriever_id: Annotated[str | None, Ref("Retriever", ordered=False)] = Field(
        default=None, description="Retriever (name or id).", examples=["daily_summary"]
    )
    retriever_version: int | None = Field(default=None, ge=1, description="Version to pin.", examples=[1])
    stages: list[FreeObject] | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="Stages in place of a retriever.",
        examples=[[{"stage_id": "limit"}]],
    )
    input_mappings: list[EnrichmentInput] | None = Field(
        default=None, max_length=64, description="Retriever input → field of the source.", examples=[[]]
    )
    write_back_fields: list[WriteBack] | None = Field(
        default=None, max_length=64, description="Fields that are written.", examples=[[]]
    )
    unique_id_field: list[str] | None = Field(
        default=None, max_length=16, description="Fields that identify a result.", examples=[["category"]]
    )

    @classmethod
    def canonical(cls, body: dict[str, Any]) -> dict[str, Any]:
        body = super().canonical(body)
        for key in ("unique_id_field", "uniqueIdField"):
            if isinstance(body.get(key), str):
                body = {**body, key: [body[key]]}
        return body


class CollectionSpec(NamespacedSpec):
    """A set of documents and the recipe that makes them."""

    aliases: ClassVar[Mapping[str, str]] = {"collection_name": "name"}
    refused: ClassVar[Mapping[str, str]] = {"features": "name the extractor in feature_extractor instead"}
    rules: ClassVar[tuple[tuple[str, str], ...]] = (
        (
            "!(has(self.featureExtractor) && has(self.retrieverTransform))",
            "featureExtractor and retrieverTransform exclude each other",
        ),
    )

    source: Annotated[Source, Immutable("its documents were made from the other source")] = Field(
        description="What feeds it.", examples=[{"type": "bucket", "bucket_ids": ["articles"]}]
    )
    feature_extractor: CollectionExtractor | None = Field(
        default=None,
        description="The extractor that makes its documents; passthrough when absent.",
        examples=[{"feature_extractor_name": "text_extractor", "version": "v1", "input_mappings": {"text": "title"}}],
    )
    input_schema: ObjectSchema | None = Field(
        default=None,
        description="Schema of the source; taken from the source when absent.",
        examples=[{"properties": {"title": {"type": "text"}}}],
    )
    enabled: bool = Field(default=True, description="Whether batches feed it.", examples=[True])
    metadata: FreeObject | None = Field(default=None, description="Your own data.", examples=[{"team": "catalog"}])
    tags: list[str] | None = Field(default=None, max_length=64, description="Labels.", examples=[["prod"]])
    schedule: Schedule | None = Field(
        default=None,
        description="When it is processed again by itself.",
        examples=[{"trigger_type": "interval", "schedule_config": {"interval_seconds": 3600}}],
    )
    taxonomy_applications: list[TaxonomyApplication] | None = Field(
        default=None,
        max_length=64,
        description="Taxonomies that label its documents.",
        examples=[[{"taxonomy_id": "product_categories"}]],
    )
    cluster_applications: list[ClusterApplication] | None = Field(
        default=None,
        max_length=64,
        description="Clusters that run after its batches.",
        examples=[[{"cluster_id": "product_topics"}]],
    )
    alert_applications: list[AlertApplication] | None = Field(
        default=None, max_length=64, description="Alerts that judge its documents.", examples=[[]]
    )
    retriever_enrichments: list[RetrieverEnrichment] | None = Field(
        default=None, max_length=64, description="Retrievers whose results are written to its documents.", examples=[[]]
    )
    retriever_transform: RetrieverTransform | None = Field(
        default=None,
        description="Retriever that builds it from its source, in place of an extractor.",
        examples=[{"retriever_id": "daily_summary"}],
    )
    embedding_task: str | None = Field(
        default=None, description="Task hint for models that take one.", examples=["retrieval_document"]
    )

    @classmethod
    def canonical(cls, body: dict[str, Any]) -> dict[str, Any]:
        body = super().canonical(body)
        for key in ("feature_extractors", "featureExtractors"):
            if key not in body:
                continue
            many = body[key]
            if isinstance(many, list) and len(many) > 1:
                raise PydanticCustomError(
                    "one_extractor",
                    "a collection has one feature extractor, found {count}; make one collection for each",
                    {"count": len(many)},
                )
            body = {name: value for name, value in body.items() if name != key}
            if many and body.get("feature_extractor") is None:
                body["feature_extractor"] = many[0] if isinstance(many, list) else many
        return body

    @model_validator(mode="after")
    def _one_recipe(self) -> CollectionSpec:
        if self.feature_extractor is not None and self.retriever_transform is not None:
            raise ValueError("feature_extractor and retriever_transform exclude each other")
        return self


class CollectionStatus(ResourceStatus):
    """State of a collection."""

    tier: int | None = Field(default=None, description="0 when buckets feed it, else one more.", examples=[0])
    feature_extractor_id: str | None = Field(default=None, description="Its extractor.", examples=["text_extractor_v1"])
    features: list[str] | None = Field(
        default=None, description="Feature URIs it writes.", examples=[["mixpeek://text_extractor@v1/text_embedding"]]
    )
    vectors: list[str] | None = Field(
        default=None, description="Vector indexes it fills.", examples=[["text_extractor_v1_embedding"]]
    )
    config_signature: str | None = Field(
        default=None, description="Changes with everything that shapes documents.", examples=["5d41402abc4b2a76"]
    )
    document_count: int | None = Field(default=None, description="Documents in it.", examples=[220])


def free_references(spec: Mapping[str, Any]) -> list[Reference]:
    """Return the sources that key `source.field_map`."""
    source = spec.get("source")
    if not isinstance(source, dict) or not isinstance(source.get("field_map"), dict):
        return []
    kind = "Collection" if source.get("type") == "collection" else "Bucket"
    return [
        Reference(("source", "field_map", name), kind, name, in_key=True)
        for name in source["field_map"]
        if isinstance(name, str)
    ]


def check(spec: Mapping[str, Any], catalog: Catalog) -> list[Problem]:
    """Return an unknown extractor, wrong parameters, and inputs that the extractor does not have."""
    use = spec.get("feature_extractor")
    if not isinstance(use, dict):
        return []
    problems = check_extractor(use, catalog, ("feature_extractor",))
    info = find_extractor(use, catalog)
    if info is None:
        return problems
    inputs = list(info.input_schema.get("properties") or {})
    for name in use.get("input_mappings") or {}:
        if not inputs or name in inputs:
            continue
        guess = nearest(name, inputs)
        hint = f"did you mean {guess!r}?" if guess else f"its inputs are {', '.join(inputs)}"
        text = f"{info.name}@{info.version} has no input {name!r}; {hint}"
        where = ("feature_extractor", "input_mappings", name)
        problems.append(
            Problem("unknown_input", text, Place(path=f"feature_extractor.input_mappings.{name}"), location=where)
        )
    return problems


SCHEMA = KindSchema(
    name="Collection",
    plural="collections",
    id_prefix="col",
    short_names=("mpcol",),
    spec=CollectionSpec,
    status=CollectionStatus,
    columns=(
        PrinterColumn("Namespace", ".spec.namespace", description="Mixpeek namespace"),
        PrinterColumn("Extractor", ".status.featureExtractorId", description="Extractor and version"),
        PrinterColumn("Tier", ".status.tier", "integer", "0 when buckets feed it"),
        PrinterColumn("Documents", ".status.documentCount", "integer", "Documents in it"),
    ),
    free_references=free_references,
    check=check,
    example={
        "name": "article_texts",
        "namespace": "news",
        "description": "One document for each paragraph of an article",
        "source": {"type": "bucket", "bucket_ids": ["articles"]},
        "feature_extractor": {
            "feature_extractor_name": "text_extractor",
            "version": "v1",
            "parameters": {"split_by": "paragraphs"},
            "input_mappings": {"text": "text"},
            "field_passthrough": [{"source_path": "category"}, {"source_path": "published_at"}],
        },
    },
)
