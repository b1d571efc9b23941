"""Cluster: groups of documents, by vectors or by attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from mixpeek_operator.core.declared import InputMapping
from mixpeek_operator.core.fields import Immutable, Ref
from mixpeek_operator.core.kind import KindSchema, PrinterColumn
from mixpeek_operator.core.spec import (
    FEATURE_URI_PATTERN,
    Filters,
    FreeObject,
    NamespacedSpec,
    ResourceStatus,
    SpecModel,
)

FeatureUri = Annotated[str, Field(pattern=FEATURE_URI_PATTERN, max_length=512)]


class WeightLearning(SpecModel):
    """How weights of several features are learned."""

    method: Literal["bayesian", "grid_search"] = Field(default="bayesian", description="Method.", examples=["bayesian"])
    max_iterations: int = Field(default=20, ge=1, description="Most tries.", examples=[20])
    metric: str = Field(default="silhouette", description="Measure of quality.", examples=["silhouette"])
    sample_size: int | None = Field(default=None, ge=1, description="Documents learned from.", examples=[1000])
    random_state: int = Field(default=42, description="Seed.", examples=[42])


class FaceMerge(SpecModel):
    """Merging of clusters that show the same face."""

    enabled: bool = Field(default=True, description="Whether they are merged.", examples=[True])
    centroid_cosine_threshold: float = Field(
        default=0.55, ge=-1, le=1, description="Least similarity of centroids.", examples=[0.55]
    )
    bbox_iou_threshold: float = Field(default=0.4, ge=0, le=1, description="Least overlap of boxes.", examples=[0.4])
    scene_jaccard_threshold: float = Field(
        default=0.3, ge=0, le=1, description="Least overlap of scenes.", examples=[0.3]
    )
    bbox_field: str = Field(default="bbox", description="Field with the box.", examples=["bbox"])
    frame_field: str = Field(default="frame_number", description="Field with the frame.", examples=["frame_number"])
    scene_field: str = Field(default="scene_id", description="Field with the scene.", examples=["scene_id"])


class VectorClustering(SpecModel):
    """Groups of documents whose vectors are close."""

    feature_uris: list[FeatureUri] = Field(
        min_length=1,
        max_length=16,
        description="Features to cluster. `feature_uri` for one.",
        examples=[["mixpeek://text_extractor@v1/text_embedding"]],
    )
    clustering_method: Literal[
        "kmeans",
        "dbscan",
        "hdbscan",
        "agglomerative",
        "spectral",
        "gaussian_mixture",
        "mean_shift",
        "optics",
        "leiden",
        "evoc",
        "attribute_based",
        "auto",
    ] = Field(description="Algorithm.", examples=["hdbscan"])
    sample_size: int | None = Field(
        default=None, ge=1, description="Documents clustered; all when absent.", examples=[10000]
    )
    kmeans_parameters: FreeObject | None = Field(
        default=None, description="Parameters of kmeans.", examples=[{"n_clusters": 8}]
    )
    dbscan_parameters: FreeObject | None = Field(
        default=None, description="Parameters of dbscan.", examples=[{"eps": 0.5}]
    )
    hdbscan_parameters: FreeObject | None = Field(
        default=None, description="Parameters of hdbscan.", examples=[{"min_cluster_size": 10}]
    )
    algorithm_params: FreeObject | None = Field(
        default=None, description="Parameters of the algorithm.", examples=[{"resolution": 1.0}]
    )
    multi_feature_strategy: Literal["concatenate", "independent", "weighted"] = Field(
        default="concatenate", description="What to do with several features.", examples=["concatenate"]
    )
    normalize_features: bool = Field(default=True, description="Scale each feature to length 1.", examples=[True])
    feature_weights: dict[str, float] | None = Field(
        default=None,
        description="Weight by feature URI.",
        examples=[{"mixpeek://text_extractor@v1/text_embedding": 1.0}],
    )
    weight_learning_config: WeightLearning | None = Field(
        default=None, description="How weights are learned.", examples=[{"method": "bayesian"}]
    )
    output_strategy: Literal["single", "per_feature"] = Field(
        default="single", description="One output collection, or one for each feature.", examples=["single"]
    )
    effective_feature_method: Literal["mean", "median", "medoid"] = Field(
        default="mean", description="How a centroid is made.", examples=["mean"]
    )
    enrich_source: bool = Field(default=False, description="Write the cluster to the documents.", examples=[False])
    face_cluster_merge: FaceMerge | None = Field(
        default=None, description="Merging of clusters of one face.", examples=[{"enabled": True}]
    )
    preprocessing_steps: list[FreeObject] | None = Field(
        default=None,
        max_length=8,
        description="Reductions before clustering: umap, tsne, whitening, none.",
        examples=[[{"method": "umap", "n_components": 50}]],
    )
    hierarchical: bool = Field(default=False, description="Cluster the clusters again.", examples=[False])
    max_hierarchy_depth: int = Field(default=3, ge=1, le=10, description="Deepest level.", examples=[3])
    vis_n_components: Literal[2, 3] = Field(default=2, description="Dimensions of the picture.", examples=[2])
    layout_stability: str | None = Field(
        default=None, description="How the picture changes from run to run.", examples=["align"]
    )

    refused: ClassVar[Mapping[str, str]] = {
        "feature_extractor_name": "it follows from feature_uris",
        "version": "it follows from feature_uris",
        "output_name": "it follows from feature_uris",
    }

    @classmethod
    def canonical(cls, body: dict[str, Any]) -> dict[str, Any]:
        body = super().canonical(body)
        for key in ("feature_uri", "featureUri"):
            if key in body:
                one = body[key]
                body = {name: value for name, value in body.items() if name != key}
                if one is not None and body.get("feature_uris") is None and body.get("featureUris") is None:
                    body["feature_uris"] = [one]
        return body


class AttributeClustering(SpecModel):
    """Groups of documents with the same values."""

    attributes: list[str] = Field(
        min_length=1, max_length=16, description="Dotted paths of the fields.", examples=[["category", "brand"]]
    )
    hierarchical_grouping: bool = Field(
        default=False, description="One level for each attribute, in order.", examples=[False]
    )
    aggregation_method: Literal["most_frequent", "first", "last"] | None = Field(
        default=None, description="Which value stands for the group.", examples=["most_frequent"]
    )


class LabelInputs(SpecModel):
    """What a label is made from."""

    input_mappings: list[InputMapping] = Field(
        min_length=1,
        max_length=64,
        description="Input of the prompt → path in the document.",
        examples=[[{"input_key": "text", "path": "title"}]],
    )


class Labeling(SpecModel):
    """Labels for clusters, by a language model."""

    enabled: bool = Field(default=False, description="Whether clusters are labelled.", examples=[True])
    labeling_inputs: LabelInputs | None = Field(
        default=None,
        description="What a label is made from.",
        examples=[{"input_mappings": [{"input_key": "text", "path": "title"}]}],
    )
    provider: str | None = Field(default=None, description="Provider of the model.", examples=["openai"])
    model_name: str | None = Field(default=None, description="Model.", examples=["gpt-4o-mini-2024-07-18"])
    include_summary: bool = Field(default=True, description="Also write a summary.", examples=[True])
    include_keywords: bool = Field(default=True, description="Also write keywords.", examples=[True])
    max_samples_per_cluster: int | None = Field(
        default=None, ge=1, description="Documents shown of a cluster.", examples=[10]
    )
    sample_text_max_length: int = Field(default=200, ge=1, description="Characters of each.", examples=[200])
    sample_selection_strategy: str = Field(default="nearest", description="Which are shown.", examples=["nearest"])
    use_embedding_dedup: bool = Field(default=True, description="Avoid labels that mean the same.", examples=[True])
    embedding_similarity_threshold: float = Field(
        default=0.8, ge=0, le=1, description="Similarity of labels that mean the same.", examples=[0.8]
    )
    cache_ttl_seconds: int = Field(default=604800, ge=0, description="Seconds a label is kept.", examples=[604800])
    labeling_context: str | None = Field(
        default=None, description="What the data is about.", examples=["Products of an audio shop"]
    )
    custom_prompt: str | None = Field(default=None, description="Prompt.", examples=["Name this group: {documents}"])
    response_shape: FreeObject | str | None = Field(
        default=None, description="Shape of the answer.", examples=[{"label": "string"}]
    )
    parameters: FreeObject | None = Field(
        default=None, description="Parameters of the provider.", examples=[{"temperature": 0}]
    )
    candidate_labels: list[str] | dict[str, str] | None = Field(
        default=None, description="Labels to choose from.", examples=[["audio", "video"]]
    )


class EnrichmentMapping(SpecModel):
    """A field of the cluster's result that is written to the document."""

    source_field: str = Field(description="Field of the result.", examples=["cluster_label"])
    target_field: str = Field(description="Field of the document.", examples=["topic"])


class SourceEnrichment(SpecModel):
    """What is written to the source documents."""

    field_mappings: list[EnrichmentMapping] | None = Field(
        default=None,
        max_length=64,
        description="Result field → document field.",
        examples=[[{"source_field": "cluster_label", "target_field": "topic"}]],
    )


class ClusterSpec(NamespacedSpec):
    """Groups of documents of one or more collections."""

    aliases: ClassVar[Mapping[str, str]] = {
        "cluster_name": "name",
        "input_collections": "collection_ids",
        "collection_identifiers": "collection_ids",
    }
    rules: ClassVar[tuple[tuple[str, str], ...]] = (
        (
            "(has(self.clusterType) && self.clusterType == 'attribute') ? has(self.attributeConfig) "
            ": has(self.vectorConfig)",
            "type vector needs vectorConfig, type attribute needs attributeConfig",
        ),
    )

    collection_ids: list[Annotated[str, Ref("Collection")]] = Field(
        min_length=1, max_length=64, description="Collections to cluster (names or ids).", examples=[["product_texts"]]
    )
    cluster_type: Annotated[Literal["vector", "attribute"], Immutable("its results are of the other type")] = Field(
        default="vector", description="By vectors or by attributes.", examples=["vector"]
    )
    vector_config: VectorClustering | None = Field(
        default=None,
        description="For type vector.",
        examples=[{"feature_uris": ["mixpeek://text_extractor@v1/text_embedding"], "clustering_method": "hdbscan"}],
    )
    attribute_config: AttributeClustering | None = Field(
        default=None, description="For type attribute.", examples=[{"attributes": ["category"]}]
    )
    filters: Filters | None = Field(
        default=None,
        description="Which documents are clustered.",
        examples=[{"field": "status", "operator": "eq", "value": "active"}],
    )
    llm_labeling: Labeling | None = Field(
        default=None, description="Labels by a language model.", examples=[{"enabled": True}]
    )
    enrich_source_collection: bool = Field(
        default=False, description="Write the results to the source documents.", examples=[False]
    )
    source_enrichment_config: SourceEnrichment | None = Field(
        default=None,
        description="What is written to them.",
        examples=[{"field_mappings": [{"source_field": "cluster_label", "target_field": "topic"}]}],
    )
    source_cluster_ids: list[Annotated[str, Ref("Cluster")]] | None = Field(
        default=None, max_length=64, description="Clusters whose results are clustered again.", examples=[["stories"]]
    )
    auto_execute_on_batch: bool = Field(
        default=False, description="Run after each batch of its collections.", examples=[True]
    )
    auto_execute_min_documents: int | None = Field(
        default=None, ge=0, description="Fewest documents to run for by itself.", examples=[100]
    )
    auto_execute_cooldown_seconds: int = Field(
        default=3600, ge=0, description="Seconds between two runs by itself.", examples=[3600]
    )
    metadata: FreeObject | None = Field(default=None, description="Your own data.", examples=[{"team": "catalog"}])

    @classmethod
    def canonical(cls, body: dict[str, Any]) -> dict[str, Any]:
        body = super().canonical(body)
        if body.get("cluster_type") is None and body.get("clusterType") is None:
            attribute = body.get("attribute_config") or body.get("attributeConfig")
            if attribute and not (body.get("vector_config") or body.get("vectorConfig")):
                body = {**body, "cluster_type": "attribute"}
        return body

    @model_validator(mode="after")
    def _has_its_config(self) -> ClusterSpec:
        if self.cluster_type == "vector" and self.vector_config is None:
            raise ValueError("a cluster of type vector needs vector_config")
        if self.cluster_type == "attribute" and self.attribute_config is None:
            raise ValueError("a cluster of type attribute needs attribute_config")
        return self


class ClusterStatus(ResourceStatus):
    """State of a cluster."""

    last_run_id: str | None = Field(default=None, description="Latest run.", examples=["run_4f1q9z0a8k"])
    num_clusters: int | None = Field(default=None, description="Groups it found.", examples=[12])


SCHEMA = KindSchema(
    name="Cluster",
    plural="clusters",
    id_prefix="clust",
    short_names=("mpclu",),
    spec=ClusterSpec,
    status=ClusterStatus,
    columns=(
        PrinterColumn("Namespace", ".spec.namespace", description="Mixpeek namespace"),
        PrinterColumn("Type", ".spec.clusterType", description="vector or attribute"),
        PrinterColumn("Groups", ".status.numClusters", "integer", "Groups of the latest run"),
    ),
    example={
        "name": "story_groups",
        "namespace": "news",
        "description": "Articles about the same story",
        "collection_ids": ["article_texts"],
        "cluster_type": "vector",
        "vector_config": {
            "feature_uris": ["mixpeek://text_extractor@v1/text_embedding"],
            "clustering_method": "hdbscan",
            "hdbscan_parameters": {"min_cluster_size": 5},
        },
    },
)
