"""Settings of a server, read once in `main` from `MIXPEEK_*` variables and command line options."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every setting has the environment variable `MIXPEEK_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="MIXPEEK_", frozen=True, extra="ignore")

    data: Path = Field(default=Path(".mixpeek"), description="Directory of the embedded stores.")
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=7007, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    public_url: str | None = Field(
        default=None, description="Base URL in signed upload and download links; default http://host:port."
    )
    api_key: SecretStr | None = Field(
        default=None, description="Key of the first start; one is generated and printed once when unset."
    )
    encryption_key: SecretStr | None = Field(
        default=None, description="Key that encrypts secrets at rest; generated into the data directory when unset."
    )
    resources: Literal["embedded", "kubernetes"] = Field(
        default="embedded", description="Where declared resources live: embedded, or kubernetes as custom resources."
    )
    mongo_uri: SecretStr | None = Field(
        default=None, description="MongoDB that holds metadata, with the database in its path; embedded when unset."
    )
    redis_url: SecretStr | None = Field(default=None, description="Redis that holds caches; in process when unset.")
    qdrant_url: str | None = Field(default=None, description="Qdrant server that holds vectors; embedded when unset.")
    qdrant_api_key: SecretStr | None = Field(default=None, description="Key for qdrant_url.")
    qdrant_prefer_grpc: bool = Field(default=False, description="Talk gRPC to Qdrant, on port 6334, where it can.")
    blobs_url: str | None = Field(
        default=None,
        description="Object storage for files, as s3://bucket/prefix, gs:// or az://; the data directory when unset.",
    )
    blobs_endpoint_url: str | None = Field(
        default=None,
        description="Endpoint of an S3-compatible store (R2, MinIO), or another of GCS or Azure; the provider's own "
        "when unset.",
    )
    model_path: Path | None = Field(
        default=None, description="Folder holding models by name, looked at before packages and hubs."
    )
    model_hub: bool = Field(default=False, description="Whether models may be downloaded from a hub.")
    embedding_model: str = Field(
        default="all-MiniLM-L6-v2", description="Model of text_extractor when its parameters name none."
    )
    embedding_batch_size: int = Field(default=32, ge=1, description="Texts per forward pass.")
    embedding_threads: int | None = Field(
        default=None, ge=1, description="Threads of one forward pass; unset leaves it to torch (one per core)."
    )
    preload_model: bool = Field(
        default=True, description="Whether the embedding model is loaded at start and not at its first use."
    )
    engine: Literal["local", "ray"] = Field(
        default="local", description="What runs extractors: local, this process; or ray."
    )
    ray_address: str | None = Field(
        default=None, description="Ray cluster to be part of; unset, a local one is started with engine ray."
    )
    ray_dashboard_url: str | None = Field(
        default=None, description="Dashboard of the Ray cluster that batches are submitted to as jobs."
    )
    ray_serve_url: str | None = Field(
        default=None, description="Ray Serve proxy that embeds queries; this process embeds them when unset."
    )
    ray_token: SecretStr | None = Field(default=None, description="Ray's token for ray_dashboard_url.")
    ray_workers: int = Field(default=2, ge=1, description="Most Ray workers of one run of an extractor.")
    ray_worker_cpus: float = Field(default=1.0, ge=0, description="CPU cores that a Ray worker reserves.")
    ray_worker_gpus: float = Field(default=0.0, ge=0, description="GPUs that a Ray worker reserves.")
    engine_image: str | None = Field(
        default=None, description="Image of the Ray clusters of dedicated tiers (KubeRay); none are made when unset."
    )
    engine_image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="When nodes fetch that image: Always, IfNotPresent or Never."
    )
    engine_image_pull_secrets: str = Field(
        default="", description="Comma-separated Secrets for that image's registry, in each namespace with a cluster."
    )
    ray_pod_secret: str | None = Field(
        default=None,
        description="Secret of each namespace with a cluster that gives Ray's pods their credentials of the storage.",
    )
    ray_pod_secret_keys: str = Field(
        default="",
        description="Comma-separated VARIABLE=key of that Secret; every entry is a variable when unset.",
    )
    ray_pod_service_account: str | None = Field(
        default=None, description="Service account of Ray's pods; the namespace's default when unset."
    )
    ray_head_cpus: float = Field(default=1.0, gt=0, description="CPU cores of the head of such a cluster.")
    ray_head_memory: str = Field(default="4Gi", description="Memory of the head, as Kubernetes writes it.")
    ray_pod_cpus: float = Field(default=2.0, gt=0, description="CPU cores of each worker of such a cluster.")
    ray_pod_memory: str = Field(default="8Gi", description="Memory of each worker, as Kubernetes writes it.")
    gpu_label: str = Field(
        default="nvidia.com/gpu.product",
        description="Label of nodes that tells the GPU type a namespace asks for.",
    )
    max_body_bytes: int = Field(default=16 * 1024 * 1024, ge=1024, description="Limit of a JSON request body.")
    max_upload_bytes: int = Field(default=5 * 1024**3, ge=1024, description="Limit of one uploaded file.")
    max_manifest_bytes: int = Field(default=20 * 1024 * 1024, ge=1024, description="Limit of a manifest file.")
    workers: int = Field(default=2, ge=1, description="Batches processed at the same time.")
    reconcile_concurrency: int = Field(default=8, ge=1, description="Resources reconciled at the same time.")
    drift_interval_s: float = Field(default=300.0, ge=1, description="Seconds between drift checks of a resource.")
    kubeconfig: Path | None = Field(
        default=None, description="How to reach Kubernetes; $KUBECONFIG, the pod or ~/.kube/config when unset."
    )
    kube_context: str | None = Field(default=None, description="Context of the kubeconfig; its current one when unset.")
    namespace: str = Field(
        default="",
        description="Comma-separated Kubernetes namespaces that the operator works in; every one when unset.",
    )
    lease: str = Field(default="mixpeek-operator", description="Lease by which one of several operators works.")
    lease_namespace: str | None = Field(
        default=None, description="Kubernetes namespace of that Lease; the operator's own when unset."
    )
    lease_identity: str | None = Field(
        default=None,
        description="Name of this replica, the same after a restart so that it goes on at once; random if unset.",
    )
    lease_duration_s: float = Field(
        default=15.0, ge=1, description="Seconds after which a silent operator is taken over from."
    )
    probe_host: str = Field(default="127.0.0.1", description="Address of the operator's probes and metrics.")
    probe_port: int = Field(
        default=8081, ge=0, le=65535, description="Port of the operator's probes and metrics; 0 picks a free one."
    )
    shutdown_grace_s: float = Field(
        default=20.0, ge=0, description="Seconds that reconciles under way get to end when the operator is stopped."
    )
    deletion_stuck_s: float = Field(
        default=600.0, ge=1, description="Seconds after which a deletion that does not end is reported."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="debug, info, warning or error."
    )
    log_format: Literal["json", "console", "auto"] = Field(
        default="auto", description="json, console, or auto: console on a terminal."
    )
    llm_provider: Literal["openai", "anthropic", "google"] | None = Field(
        default=None,
        description="Language models for who names neither provider nor model; the first one configured when unset.",
    )
    llm_base_url: str | None = Field(
        default=None,
        description="Endpoint of provider openai, of OpenAI or compatible; OpenAI's own when only its key is set.",
    )
    llm_api_key: SecretStr | None = Field(default=None, description="Key for provider openai.")
    llm_model: str | None = Field(
        default=None, description="Model of provider openai when none is named; gpt-4o-mini at OpenAI's own endpoint."
    )
    anthropic_api_key: SecretStr | None = Field(default=None, description="Key for provider anthropic.")
    anthropic_base_url: str | None = Field(default=None, description="Its endpoint; Anthropic's own when unset.")
    anthropic_model: str = Field(default="claude-haiku-4-5", description="Its model when none is named.")
    google_api_key: SecretStr | None = Field(default=None, description="Key for provider google (Gemini).")
    google_base_url: str | None = Field(default=None, description="Its endpoint; Google's own when unset.")
    google_model: str = Field(default="gemini-2.5-flash", description="Its model when none is named.")
    llm_concurrency: int = Field(default=8, ge=1, description="Calls of language models at the same time.")
    llm_timeout_s: float = Field(default=120.0, gt=0, description="Seconds one call of a language model may take.")
    llm_retries: int = Field(default=3, ge=0, description="Times a call is repeated that failed and may succeed.")
    llm_credits_per_usd: float = Field(
        default=1000.0, ge=0, description="Credits that a dollar of a model's list price counts in budgets."
    )
    llm_credits_per_million_tokens: float = Field(
        default=100.0, ge=0, description="Credits of a million tokens of a model whose price is not known."
    )
    sqlite_path: Path | None = Field(
        default=None, description="Folder whose SQLite files connections may read; none can be read when unset."
    )
    exa_api_key: SecretStr | None = Field(
        default=None, description="Key for web search of organizations without a secret exa_api_key of their own."
    )
    exa_base_url: str = Field(default="https://api.exa.ai", description="Where Exa's API for web search is.")
    outbound_allow_cidrs: str = Field(
        default="", description="Comma-separated private networks that outgoing requests may reach."
    )
    code_packages: str = Field(
        default="", description="Comma-separated installed packages that the stage code_execution may import."
    )
    history_days: float = Field(
        default=30.0, ge=0, description="Days that executions of retrievers stay in the history; 0 for ever."
    )
    history_max_executions: int = Field(
        default=1_000_000,
        ge=0,
        description="Most executions in the history of a namespace, about 2 KB each, the newest; 0 for any number.",
    )
    signed_url_expiry_s: int = Field(default=3600, ge=1, description="Life of signed URLs.")

    @property
    def allowed_code_packages(self) -> tuple[str, ...]:
        """The packages that the stage code_execution may import."""
        return tuple(name for name in (part.strip() for part in self.code_packages.split(",")) if name)

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The Kubernetes namespaces to work in; none means every one."""
        return tuple(name for name in (part.strip() for part in self.namespace.split(",")) if name)

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _any_case(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value
