"""Namespace: a tenant or environment. One vector collection, and nothing is read across it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from mixpeek_operator.core.catalog import Catalog
from mixpeek_operator.core.declared import ExtractorUse, check_extractor
from mixpeek_operator.core.errors import Problem
from mixpeek_operator.core.fields import Immutable
from mixpeek_operator.core.kind import KindSchema, PrinterColumn
from mixpeek_operator.core.spec import FreeObject, ResourceSpec, ResourceStatus, SpecModel

IndexType = Literal["keyword", "integer", "float", "bool", "geo", "datetime", "text", "uuid"]


class IndexParameters(SpecModel):
    """Options of one payload index; which apply depends on its type."""

    type: IndexType | None = Field(
        default=None, description="Type the options are for; it repeats the index's type.", examples=["text"]
    )
    tokenizer: Literal["prefix", "whitespace", "word", "multilingual"] | None = Field(
        default=None, description="How text is cut into words (text).", examples=["word"]
    )
    min_token_len: int | None = Field(
        default=None, ge=0, description="Shortest word that is indexed, in characters (text).", examples=[2]
    )
    max_token_len: int | None = Field(
        default=None, ge=1, description="Longest word that is indexed, in characters (text).", examples=[15]
    )
    lowercase: bool | None = Field(default=None, description="Ignore case (text).", examples=[True])
    lookup: bool | None = Field(default=None, description="Serve exact matches (integer).", examples=[True])
    range: bool | None = Field(default=None, description="Serve ranges (integer).", examples=[True])
    is_tenant: bool | None = Field(
        default=None, description="Store documents with the same value together (keyword, uuid).", examples=[False]
    )


class PayloadIndex(SpecModel):
    """An index on a document field, so that filtering on it is fast."""

    aliases: ClassVar[Mapping[str, str]] = {"field": "field_name", "field_type": "type"}

    field_name: str = Field(
        min_length=1,
        max_length=255,
        description="Dotted path of the document field, unique in the namespace.",
        examples=["metadata.category"],
    )
    type: IndexType = Field(
        description="Type of the field: keyword for exact matches, integer, float and datetime for ranges, text "
        "for words.",
        examples=["keyword"],
    )
    field_schema: IndexParameters | None = Field(
        default=None, description="Options of the index.", examples=[{"type": "text", "tokenizer": "word"}]
    )
    is_protected: bool = Field(
        default=False, description="True for the indexes that the system itself needs.", examples=[False]
    )


class VectorConfig(SpecModel):
    """A vector index of a standalone namespace, filled by its users."""

    aliases: ClassVar[Mapping[str, str]] = {"dimensions": "dimension", "size": "dimension", "distance": "metric"}

    name: str = Field(min_length=1, max_length=255, description="Name of the vector index.", examples=["title_vec"])
    dimension: int = Field(ge=1, le=65536, description="Numbers per vector.", examples=[384])
    metric: Literal["cosine", "euclidean", "dot_product"] = Field(
        default="cosine", description="How the distance of two vectors is measured.", examples=["cosine"]
    )


class Toleration(SpecModel):
    """A Kubernetes toleration for the namespace's compute nodes."""

    key: str | None = Field(default=None, description="Taint key; empty matches all.", examples=["nvidia.com/gpu"])
    operator: Literal["Exists", "Equal"] = Field(
        default="Equal", description="How key and value are compared.", examples=["Exists"]
    )
    value: str | None = Field(default=None, description="Taint value.", examples=["true"])
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Taint effect; empty matches all.", examples=["NoSchedule"]
    )
    toleration_seconds: int | None = Field(
        default=None, ge=0, description="Seconds to stay on a node after a NoExecute taint.", examples=[300]
    )


class Authorization(SpecModel):
    """Document-level permissions answered by an OpenFGA server."""

    enabled: bool = Field(default=False, description="Whether permissions are enforced.", examples=[False])
    provider: Literal["openfga"] = Field(default="openfga", description="Who answers.", examples=["openfga"])
    api_url: str | None = Field(
        default=None, description="Base URL of the OpenFGA HTTP API.", examples=["https://fga.example.com"]
    )
    store_id: str | None = Field(default=None, description="OpenFGA store.", examples=["01HXYZSTORE"])
    model_id: str | None = Field(
        default=None, description="Authorization model; the latest when absent.", examples=["01HXYZMODEL"]
    )
    api_token_secret_ref: str | None = Field(
        default=None, description="Name of the organization secret that holds the token.", examples=["fga_token"]
    )
    api_token: str | None = Field(
        default=None,
        description="Token; write a placeholder, never the value.",
        examples=["${{ secrets.FGA_TOKEN }}"],
    )
    object_type: str = Field(default="document", description="OpenFGA type of a document.", examples=["document"])
    relation: str = Field(default="viewer", description="Relation that grants reading.", examples=["viewer"])
    user_type: str = Field(default="user", description="OpenFGA type of the caller.", examples=["user"])
    mode: Literal["auto", "push", "pull_list_objects", "pull_batch_check"] = Field(
        default="auto", description="Where the decision is taken.", examples=["auto"]
    )
    list_objects_max: int = Field(default=1000, ge=1, description="Most objects listed per call.", examples=[1000])
    over_fetch_factor: int = Field(default=2, ge=1, description="How many more candidates to fetch.", examples=[2])
    cache_ttl_seconds: int = Field(default=30, ge=0, description="Seconds a decision is kept.", examples=[30])


class Infrastructure(SpecModel):
    """Where the namespace's vectors live and its jobs run."""

    rules: ClassVar[tuple[tuple[str, str], ...]] = (
        (
            "(has(self.minWorkers) ? self.minWorkers : 1) <= (has(self.maxWorkers) ? self.maxWorkers : 10)",
            "minWorkers must not be above maxWorkers",
        ),
    )

    compute_tier: Literal["shared", "dedicated_cpu", "dedicated_gpu"] = Field(
        default="shared",
        description="Shared workers, or a Ray cluster of its own with or without GPUs.",
        examples=["dedicated_gpu"],
    )
    qdrant_url: Annotated[str | None, Immutable("its vectors would stay on the other server")] = Field(
        default=None, description="A Qdrant server of its own.", examples=["https://qdrant.example.com:6333"]
    )
    qdrant_api_key: str | None = Field(
        default=None,
        description="Key of that server; write a placeholder, never the value.",
        examples=["${{ secrets.QDRANT_API_KEY }}"],
    )
    qdrant_collection: Annotated[str | None, Immutable("its vectors would stay in the other collection")] = Field(
        default=None,
        min_length=3,
        max_length=128,
        description="Vector collection to use; derived from the namespace's id when absent.",
        examples=["ns_4f1q9z0a8k"],
    )
    ray_cluster_id: str | None = Field(
        default=None,
        description="A Ray cluster of somebody else; refused: jobs carry the storage's credentials.",
        examples=["ray-products"],
    )
    ray_head_node_url: str | None = Field(
        default=None,
        description="Address of such a cluster's head; refused as well.",
        examples=["ray://ray-head:10001"],
    )
    ray_dashboard_url: str | None = Field(
        default=None, description="Dashboard of such a cluster; refused as well.", examples=["http://ray-head:8265"]
    )
    max_concurrent_jobs: int = Field(
        default=10, ge=1, le=1000, description="Jobs that run at the same time.", examples=[10]
    )
    autoscaling_enabled: bool = Field(
        default=True, description="Whether a dedicated cluster grows and shrinks with its work.", examples=[True]
    )
    min_workers: int = Field(default=1, ge=0, le=100, description="Fewest workers.", examples=[1])
    max_workers: int = Field(default=10, ge=1, le=100, description="Most workers.", examples=[10])
    gpu_type: str | None = Field(default=None, description="GPU model of dedicated nodes.", examples=["A100"])
    gpus_per_worker: int = Field(default=1, ge=0, le=8, description="GPUs of one worker.", examples=[1])
    node_selector: dict[str, str] | None = Field(
        default=None, description="Labels of the nodes to run on.", examples=[{"pool": "gpu"}]
    )
    tolerations: list[Toleration] | None = Field(
        default=None,
        max_length=32,
        description="Taints that are tolerated.",
        examples=[[{"key": "nvidia.com/gpu", "operator": "Exists"}]],
    )
    compute_profiles: dict[str, FreeObject] | None = Field(
        default=None,
        description="Overrides of an extractor's compute profile, by extractor id.",
        examples=[{"text_extractor_v1": {"num_cpus": 2}}],
    )
    s3_vector_bucket: str | None = Field(
        default=None, description="Object-store bucket for the cold tier of vectors.", examples=["products-vectors"]
    )
    s3_plugin_bucket: str = Field(
        default="mixpeek-plugins", description="Bucket for custom extractors and models.", examples=["mixpeek-plugins"]
    )
    s3_plugin_prefix: str | None = Field(
        default=None, description="Prefix in that bucket; the namespace's id when absent.", examples=["ns_4f1q9z0a8k/"]
    )
    max_custom_plugins: int = Field(
        default=0, ge=0, le=100, description="Custom extractors allowed; 0 is none.", examples=[5]
    )
    max_custom_models: int = Field(
        default=0, ge=0, le=50, description="Custom models allowed; 0 is none.", examples=[2]
    )
    authorization: Authorization | None = Field(
        default=None, description="Document-level permissions.", examples=[{"enabled": False}]
    )

    @model_validator(mode="after")
    def _workers_in_order(self) -> Infrastructure:
        if self.min_workers > self.max_workers:
            raise ValueError(f"min_workers {self.min_workers} is above max_workers {self.max_workers}")
        return self


class ClaimFilter(SpecModel):
    """A token claim that limits what its bearer reads."""

    claim: str = Field(min_length=1, description="Dotted path of the claim.", examples=["app_metadata.brands"])
    field: str = Field(min_length=1, description="Document field that must hold its value.", examples=["brand_id"])


class GroupClaim(SpecModel):
    """A token claim whose values become groups."""

    claim: str = Field(min_length=1, description="Dotted path of the claim.", examples=["app_metadata.brands"])
    prefix: str = Field(min_length=1, max_length=64, description="Prefix of the groups.", examples=["brand:"])


class AdminClaim(SpecModel):
    """A token claim that frees its bearer from claim filters."""

    claim: str = Field(min_length=1, description="Dotted path of the claim.", examples=["app_metadata.roles"])
    values: list[str] = Field(min_length=1, description="Values that mark an administrator.", examples=[["admin"]])


class TrustedIssuer(SpecModel):
    """An identity provider whose end-user tokens may call this namespace."""

    issuer: str = Field(min_length=1, description="The token's `iss`.", examples=["https://id.example.com"])
    jwks_url: str | None = Field(
        default=None, description="URL of its keys.", examples=["https://id.example.com/.well-known/jwks.json"]
    )
    jwks: FreeObject | None = Field(default=None, description="Its keys inline.", examples=[{"keys": []}])
    audience: list[str] | None = Field(
        default=None, description="Accepted values of `aud`.", examples=[["authenticated"]]
    )
    algorithms: list[str] | None = Field(
        default=None, min_length=1, description="Accepted signatures.", examples=[["RS256"]]
    )
    principal_claim: str = Field(default="sub", description="Claim that names the user.", examples=["sub"])
    principal_prefix: str = Field(default="jwt:", description="Prefix of the user's name.", examples=["jwt:"])
    claim_filters: list[ClaimFilter] | None = Field(
        default=None, description="Filters on every read.", examples=[[{"claim": "brands", "field": "brand_id"}]]
    )
    retrievers: list[str] | None = Field(
        default=None, description="Retrievers these tokens may execute.", examples=[["product_search"]]
    )
    collections: list[str] | None = Field(
        default=None, description="Collections these tokens may read.", examples=[["product_texts"]]
    )
    owner_writable_collections: list[str] | None = Field(
        default=None, description="Collections where these tokens may write their own documents.", examples=[["notes"]]
    )
    allowed_origins: list[str] | None = Field(
        default=None, description="Browser origins that may send the tokens.", examples=[["https://*.example.com"]]
    )
    group_claims: list[GroupClaim] | None = Field(
        default=None, max_length=8, description="Claims that become groups.", examples=[[]]
    )
    admin_claim: AdminClaim | None = Field(
        default=None,
        description="Claim that frees from the filters.",
        examples=[{"claim": "role", "values": ["admin"]}],
    )
    enabled: bool = Field(default=True, description="False keeps the entry and refuses its tokens.", examples=[True])


class IdleDays(SpecModel):
    """Days without a use before documents move to a colder tier."""

    cold: int | None = Field(default=None, ge=1, description="Days before the cold tier.", examples=[30])
    frozen: int | None = Field(default=None, ge=1, description="Days before the frozen tier.", examples=[90])


class Tiering(SpecModel):
    """When unused documents move to cheaper storage."""

    enabled: bool | None = Field(default=None, description="Whether they move at all.", examples=[True])
    idle_days: IdleDays | None = Field(default=None, description="After how long.", examples=[{"cold": 30}])
    exempt: str | None = Field(default=None, description="Why they must never move.", examples=["legal hold"])


class SpendBudget(SpecModel):
    """Spending limits."""

    daily_usd: float | None = Field(default=None, ge=0, description="Limit per day in USD.", examples=[25.0])
    monthly_usd: float | None = Field(default=None, ge=0, description="Limit per month in USD.", examples=[500.0])


class CostCap(SpecModel):
    """An explicit daily cap of inference cost."""

    daily_usd: float = Field(ge=0, description="Cap in USD per UTC day.", examples=[10.0])
    reason: str = Field(min_length=10, max_length=500, description="Why.", examples=["Load test until Friday"])
    owner: str = Field(min_length=3, max_length=200, description="Who answers for it.", examples=["ops@example.com"])
    expires_at: str | None = Field(
        default=None, description="When it lapses, ISO 8601.", examples=["2026-12-31T00:00:00Z"]
    )


class NamespaceSpec(ResourceSpec):
    """A tenant or environment."""

    aliases: ClassVar[Mapping[str, str]] = {"namespace_name": "name", "extractors": "feature_extractors"}
    refused: ClassVar[Mapping[str, str]] = {
        "namespace_id": "ids are derived; set the annotation mixpeek.com/id to adopt an existing namespace",
        "features": "name the extractors in feature_extractors instead",
    }

    mode: Annotated[Literal["managed", "standalone"], Immutable("it decides who fills the vectors")] = Field(
        default="managed",
        description="managed: extractors make the vectors; standalone: users bring their own.",
        examples=["managed"],
    )
    namespace_type: Literal["standard", "marketplace"] = Field(
        default="standard", description="A regular namespace or a curated data set.", examples=["standard"]
    )
    scope: Literal["org", "system"] = Field(
        default="org", description="Owned by the organization or by the system.", examples=["org"]
    )
    feature_extractors: list[ExtractorUse] | None = Field(
        default=None,
        max_length=64,
        description="Extractors that collections of this namespace may use; every built-in one when absent.",
        examples=[[{"feature_extractor_name": "text_extractor", "version": "v1"}]],
    )
    vector_configs: list[VectorConfig] | None = Field(
        default=None,
        max_length=64,
        description="Vector indexes of a standalone namespace.",
        examples=[[{"name": "title_vec", "dimension": 384}]],
    )
    payload_indexes: list[PayloadIndex] | None = Field(
        default=None,
        max_length=256,
        description="Indexes on document fields; those that extractors need are added.",
        examples=[[{"field_name": "category", "type": "keyword"}]],
    )
    auto_create_indexes: bool | None = Field(
        default=None, description="Index the fields that filters use most.", examples=[False]
    )
    adaptive_indexing: bool | None = Field(
        default=None, description="Tune vector indexes from observed latency.", examples=[False]
    )
    ttl_seconds: int | None = Field(
        default=None, ge=60, description="Seconds after which the namespace is deleted.", examples=[86400]
    )
    infrastructure: Infrastructure | None = Field(
        default=None, description="Where it runs.", examples=[{"compute_tier": "shared"}]
    )
    trusted_issuers: list[TrustedIssuer] | None = Field(
        default=None,
        max_length=5,
        description="Identity providers whose end users may call it.",
        examples=[[{"issuer": "https://id.example.com"}]],
    )
    tiering: Tiering | None = Field(default=None, description="Tiering of documents.", examples=[{"enabled": True}])
    spend_budget: SpendBudget | None = Field(
        default=None, description="Spending limits.", examples=[{"monthly_usd": 500.0}]
    )
    cost_cap_override: CostCap | None = Field(
        default=None,
        description="A daily cap of inference cost.",
        examples=[{"daily_usd": 10.0, "reason": "Load test until Friday", "owner": "ops@example.com"}],
    )


class NamespaceStatus(ResourceStatus):
    """State of a namespace."""

    vector_collection: str | None = Field(
        default=None, description="Vector collection (an alias).", examples=["ns_4f1q9z0a8k"]
    )
    physical_collection: str | None = Field(
        default=None, description="Collection behind the alias.", examples=["ns_4f1q9z0a8k_v1"]
    )
    vectors: list[str] | None = Field(
        default=None, description="Named vectors it has.", examples=[["text_extractor_v1_embedding"]]
    )
    payload_indexes: list[str] | None = Field(default=None, description="Indexed fields.", examples=[["category"]])
    document_count: int | None = Field(default=None, description="Documents in it.", examples=[1200])
    ray_cluster: str | None = Field(
        default=None, description="RayService of a dedicated tier.", examples=["ray-ns-4f1q9z0a8k"]
    )
    ray_dashboard_url: str | None = Field(
        default=None,
        description="Its dashboard, which takes jobs.",
        examples=["http://ray-ns-4f1q9z0a8k-head-svc.acme.svc:8265"],
    )
    ray_serve_url: str | None = Field(
        default=None,
        description="Its proxy of Ray Serve.",
        examples=["http://ray-ns-4f1q9z0a8k-serve-svc.acme.svc:8000"],
    )
    workers_ready: int | None = Field(default=None, description="Workers that are ready.", examples=[2])
    workers_wanted: int | None = Field(default=None, description="Workers that are asked for now.", examples=[2])


def check(spec: Mapping[str, Any], catalog: Catalog) -> list[Problem]:
    """Return unknown extractors and wrong parameters."""
    problems: list[Problem] = []
    for index, use in enumerate(spec.get("feature_extractors") or ()):
        problems += check_extractor(use, catalog, ("feature_extractors", index))
    return problems


SCHEMA = KindSchema(
    name="Namespace",
    plural="namespaces",
    id_prefix="ns",
    short_names=("mpns",),
    spec=NamespaceSpec,
    status=NamespaceStatus,
    columns=(
        PrinterColumn("Tier", ".spec.infrastructure.computeTier", description="Compute tier"),
        PrinterColumn("Documents", ".status.documentCount", "integer", "Documents in it"),
        PrinterColumn("Workers", ".status.workersReady", "integer", "Workers of its own that are ready", priority=1),
        PrinterColumn("Vectors", ".status.vectorCollection", description="Vector collection", priority=1),
    ),
    check=check,
    example={
        "name": "news",
        "description": "Articles and their topics",
        "feature_extractors": [{"feature_extractor_name": "text_extractor", "version": "v1"}],
        "payload_indexes": [
            {"field_name": "category", "type": "keyword"},
            {"field_name": "published_at", "type": "datetime"},
        ],
    },
)
