"""Taxonomy: retrieval-backed labels for documents, flat or as a hierarchy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from mixpeek_operator.core.declared import InputMapping
from mixpeek_operator.core.fields import Immutable, Ref
from mixpeek_operator.core.kind import KindSchema, PrinterColumn
from mixpeek_operator.core.spec import FreeObject, NamespacedSpec, ResourceStatus, SpecModel


class EnrichmentField(SpecModel):
    """A field copied from the matched node to the document."""

    field_path: str = Field(min_length=1, description="Dotted path in the node.", examples=["category"])
    target_field: str | None = Field(
        default=None, description="Field of the document; the path itself when absent.", examples=["product_category"]
    )
    merge_mode: Literal["replace", "append"] = Field(
        default="replace", description="Replace the value, or append to the list.", examples=["replace"]
    )


class SourceCollection(SpecModel):
    """The collection whose documents are the labels."""

    collection_id: Annotated[str, Ref("Collection")] = Field(
        description="Collection (name or id).", examples=["categories"]
    )
    enrichment_fields: list[EnrichmentField] | None = Field(
        default=None,
        max_length=128,
        description="Fields copied; all when absent.",
        examples=[[{"field_path": "category"}]],
    )


class Covariate(SpecModel):
    """A field whose influence on steps is measured."""

    field_path: str = Field(min_length=1, description="Dotted path of the field.", examples=["metadata.priority"])
    covariate_type: Literal["categorical", "numeric", "embedding", "cluster_id"] = Field(
        description="How it is measured.", examples=["categorical"]
    )
    name: str = Field(min_length=1, max_length=100, description="Name in the results.", examples=["priority"])
    binning_strategy: Literal["quartiles", "deciles", "equal_width", "custom"] = Field(
        default="quartiles", description="Bins of a number.", examples=["quartiles"]
    )
    clustering_method: str = Field(default="kmeans", description="Method for embeddings.", examples=["kmeans"])
    n_clusters: int = Field(default=10, ge=2, description="Clusters of embeddings.", examples=[10])


class StepAnalytics(SpecModel):
    """How documents move through labels over time."""

    timestamp_field: str = Field(description="Field with the time.", examples=["created_at"])
    sequence_id_field: str = Field(description="Field that groups a sequence.", examples=["thread_id"])
    step_key_source: Literal["assignment_label", "assignment_node_id", "field_path"] = Field(
        default="assignment_label", description="What is the step.", examples=["assignment_label"]
    )
    step_key_field_path: str | None = Field(
        default=None, description="Field with the step, for field_path.", examples=["stage"]
    )
    covariates: list[Covariate] | None = Field(
        default=None, max_length=20, description="Fields whose influence is measured.", examples=[[]]
    )
    max_sequence_duration_days: int | None = Field(
        default=None, ge=1, description="Longest sequence in days.", examples=[90]
    )


class FlatTaxonomy(SpecModel):
    """Labels from one collection."""

    taxonomy_type: Annotated[Literal["flat"], Immutable("a flat taxonomy is no hierarchy")] = Field(
        description="flat.", examples=["flat"]
    )
    retriever_id: Annotated[str, Ref("Retriever")] = Field(
        description="Retriever that finds the label of a document (name or id).", examples=["category_lookup"]
    )
    input_mappings: list[InputMapping] = Field(
        max_length=64,
        description="Retriever input → path in the document.",
        examples=[[{"input_key": "query_text", "source_type": "payload", "path": "title"}]],
    )
    source_collection: SourceCollection = Field(
        description="Collection of the labels.", examples=[{"collection_id": "categories"}]
    )
    top_k: int = Field(default=1, ge=1, le=1000, description="Most labels per document.", examples=[1])
    step_analytics: StepAnalytics | None = Field(
        default=None,
        description="How documents move through labels.",
        examples=[{"timestamp_field": "created_at", "sequence_id_field": "thread_id"}],
    )


class HierarchyNode(SpecModel):
    """One level of a hierarchy."""

    collection_id: Annotated[str, Ref("Collection")] = Field(
        description="Collection of the node (name or id).", examples=["departments"]
    )
    parent_collection_id: Annotated[str | None, Ref("Collection")] = Field(
        default=None, description="Collection of the parent node; none for a root.", examples=["company"]
    )
    label: str | None = Field(default=None, description="Name that people read.", examples=["Department"])
    summary: str | None = Field(default=None, description="What the level holds.", examples=["Departments of a shop"])
    keywords: list[str] | None = Field(default=None, description="Keywords.", examples=[["audio", "video"]])
    retriever_id: Annotated[str | None, Ref("Retriever")] = Field(
        default=None, description="Retriever of this level; the taxonomy's when absent.", examples=["department_lookup"]
    )
    enrichment_fields: list[EnrichmentField] | None = Field(
        default=None, max_length=128, description="Fields copied.", examples=[[{"field_path": "department"}]]
    )
    input_mappings: list[InputMapping] | None = Field(
        default=None, max_length=64, description="Inputs of this level; the taxonomy's when absent.", examples=[[]]
    )


class HierarchicalTaxonomy(SpecModel):
    """Labels from a hierarchy of collections."""

    taxonomy_type: Annotated[Literal["hierarchical"], Immutable("a hierarchy is no flat taxonomy")] = Field(
        description="hierarchical.", examples=["hierarchical"]
    )
    retriever_id: Annotated[str | None, Ref("Retriever")] = Field(
        default=None, description="Retriever for every node that names none.", examples=["node_lookup"]
    )
    input_mappings: list[InputMapping] | None = Field(
        default=None, max_length=64, description="Inputs for every node that names none.", examples=[[]]
    )
    inference_strategy: Literal["schema", "cluster", "llm"] | None = Field(
        default=None, description="How the hierarchy is inferred.", examples=["schema"]
    )
    inference_collections: list[Annotated[str, Ref("Collection")]] | None = Field(
        default=None, max_length=128, description="Collections it is inferred from.", examples=[["departments"]]
    )
    llm_provider: str | None = Field(default=None, description="Provider for llm.", examples=["openai_chat_v1"])
    llm_model: str | None = Field(default=None, description="Model for llm.", examples=["gpt-4o-mini"])
    llm_prompt_template: str | None = Field(
        default=None, description="Prompt for llm.", examples=["Where does {collection_name} belong?"]
    )
    llm_sample_size: int = Field(default=0, ge=0, description="Sample documents in the prompt.", examples=[5])
    cluster_ids: list[Annotated[str, Ref("Cluster")]] | None = Field(
        default=None, max_length=128, description="Clusters for the strategy cluster.", examples=[["product_topics"]]
    )
    cluster_overlap_threshold: float = Field(
        default=0.7, ge=0, le=1, description="Overlap that makes a child.", examples=[0.7]
    )
    hierarchical_nodes: list[HierarchyNode] | None = Field(
        default=None,
        max_length=512,
        description="Nodes written out.",
        examples=[[{"collection_id": "departments"}]],
    )
    step_analytics: StepAnalytics | None = Field(
        default=None,
        description="How documents move through nodes.",
        examples=[{"timestamp_field": "created_at", "sequence_id_field": "thread_id"}],
    )
    path_field: str | None = Field(
        default=None, description="Field of a document that already holds its path.", examples=["category_path"]
    )
    path_separator: str = Field(default="/", min_length=1, description="Separator in path_field.", examples=["/"])

    @model_validator(mode="after")
    def _has_nodes(self) -> HierarchicalTaxonomy:
        nodes = self.hierarchical_nodes or []
        known = {node.collection_id for node in nodes}
        if not nodes and not self.inference_strategy and not self.inference_collections and not self.path_field:
            raise ValueError("give hierarchical_nodes, inference_strategy or path_field")
        for node in nodes:
            if node.parent_collection_id and not self.inference_strategy and node.parent_collection_id not in known:
                raise ValueError(f"parent {node.parent_collection_id!r} is not a node of this taxonomy")
        return self


TaxonomyConfig = Annotated[FlatTaxonomy | HierarchicalTaxonomy, Field(discriminator="taxonomy_type")]


class TaxonomySpec(NamespacedSpec):
    """Labels for documents."""

    aliases: ClassVar[Mapping[str, str]] = {"taxonomy_name": "name"}

    config: TaxonomyConfig = Field(
        description="A flat or a hierarchical taxonomy.",
        examples=[
            {
                "taxonomy_type": "flat",
                "retriever_id": "category_lookup",
                "input_mappings": [{"input_key": "query_text", "path": "title"}],
                "source_collection": {"collection_id": "categories"},
            }
        ],
    )
    metadata: FreeObject | None = Field(default=None, description="Your own data.", examples=[{"team": "catalog"}])

    @classmethod
    def canonical(cls, body: dict[str, Any]) -> dict[str, Any]:
        body = super().canonical(body)
        config = body.get("config")
        if isinstance(config, dict) and config.get("taxonomy_type") is None and config.get("taxonomyType") is None:
            nested = {
                "hierarchical_nodes",
                "hierarchicalNodes",
                "inference_strategy",
                "inferenceStrategy",
                "path_field",
            }
            kind = "flat" if nested.isdisjoint(config) else "hierarchical"
            rest = {key: value for key, value in config.items() if key not in ("taxonomy_type", "taxonomyType")}
            body = {**body, "config": {"taxonomy_type": kind, **rest}}
        return body


class TaxonomyStatus(ResourceStatus):
    """State of a taxonomy."""

    node_count: int | None = Field(default=None, description="Nodes it has.", examples=[12])


SCHEMA = KindSchema(
    name="Taxonomy",
    plural="taxonomies",
    id_prefix="tax",
    short_names=("mptax",),
    spec=TaxonomySpec,
    status=TaxonomyStatus,
    columns=(
        PrinterColumn("Namespace", ".spec.namespace", description="Mixpeek namespace"),
        PrinterColumn("Type", ".spec.config.taxonomyType", description="flat or hierarchical"),
    ),
    example={
        "name": "topics",
        "namespace": "news",
        "description": "Labels an article with the nearest topic",
        "config": {
            "taxonomy_type": "flat",
            "retriever_id": "topic_lookup",
            "input_mappings": [{"input_key": "query_text", "source_type": "payload", "path": "text"}],
            "source_collection": {
                "collection_id": "topic_names",
                "enrichment_fields": [{"field_path": "topic", "target_field": "topic"}],
            },
        },
    },
)
