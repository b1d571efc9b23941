"""Extractor: custom code that makes features, as an archive or an image, at one version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from mixpeek_operator.core.fields import Immutable
from mixpeek_operator.core.kind import KindSchema, PrinterColumn
from mixpeek_operator.core.spec import FreeObject, NamespacedSpec, ResourceStatus, SpecModel


class ExtractorSource(SpecModel):
    """Where the code comes from: exactly one of url, path, blob and container_image."""

    aliases: ClassVar[Mapping[str, str]] = {"archive": "url", "image": "container_image", "blob_key": "blob"}

    rules: ClassVar[tuple[tuple[str, str], ...]] = (
        (
            "[has(self.url), has(self.path), has(self.blob), has(self.containerImage)].filter(x, x).size() == 1",
            "give exactly one of url, path, blob and containerImage",
        ),
    )

    url: str | None = Field(
        default=None, description="URL of a zip archive.", examples=["https://example.com/my_extractor-1.0.0.zip"]
    )
    path: str | None = Field(
        default=None,
        description="Archive or folder beside the manifest; the client uploads it.",
        examples=["extractors/my_extractor"],
    )
    blob: str | None = Field(
        default=None, description="Key of an uploaded archive.", examples=["plugins/my_extractor-1.0.0.zip"]
    )
    container_image: str | None = Field(
        default=None,
        description="Image based on the engine's image.",
        examples=["registry.example.com/my_extractor:1.0.0"],
    )
    sha256: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        description="Expected hash of the archive, 64 hex digits.",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> ExtractorSource:
        given = [name for name in ("url", "path", "blob", "container_image") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                "give exactly one of url, path, blob and container_image, found " + (", ".join(given) or "none")
            )
        return self


class ExtractorResources(SpecModel):
    """What one worker of the extractor needs."""

    num_cpus: float | None = Field(default=None, ge=0, description="CPU cores.", examples=[2])
    num_gpus: float | None = Field(default=None, ge=0, description="GPUs, fractions allowed.", examples=[0.5])
    memory_gb: float | None = Field(default=None, gt=0, description="Memory in GB.", examples=[8])
    resource_type: Literal["cpu", "gpu", "api"] | None = Field(
        default=None, description="What its steps run on.", examples=["gpu"]
    )
    gpu_type: str | None = Field(default=None, description="GPU model.", examples=["A100"])
    min_replicas: int | None = Field(default=None, ge=0, description="Fewest workers.", examples=[0])
    max_replicas: int | None = Field(default=None, ge=1, description="Most workers.", examples=[4])
    batch_size: int | None = Field(default=None, ge=1, description="Rows per call.", examples=[64])
    timeout_s: float | None = Field(default=None, gt=0, description="Seconds per call.", examples=[120])


class ExtractorSpec(NamespacedSpec):
    """A custom feature extractor at one version."""

    aliases: ClassVar[Mapping[str, str]] = {
        "extractor_name": "name",
        "feature_extractor_name": "name",
        "plugin_name": "name",
        "params": "parameters",
    }

    version: str = Field(
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$",
        description="Version of the code; another one replaces it where it is served, without a pause.",
        examples=["1.0.0"],
    )
    source: Annotated[
        ExtractorSource, Immutable("a version's code cannot change; raise the version", unless="version")
    ] = Field(description="Where the code comes from.", examples=[{"path": "extractors/my_extractor"}])
    realtime: bool = Field(default=False, description="Also serve it at query time (realtime.py).", examples=[True])
    parameters: FreeObject | None = Field(
        default=None, description="Defaults of its parameters.", examples=[{"model": "small"}]
    )
    resources: ExtractorResources | None = Field(
        default=None, description="What one worker needs.", examples=[{"num_cpus": 2}]
    )
    environment: dict[str, str] | None = Field(
        default=None,
        description="Environment of its workers; write placeholders for secrets.",
        examples=[{"API_TOKEN": "${{ secrets.MODEL_TOKEN }}"}],
    )
    metadata: FreeObject | None = Field(default=None, description="Your own data.", examples=[{"team": "ml"}])


class ExtractorStatus(ResourceStatus):
    """State of an extractor."""

    plugin_id: str | None = Field(default=None, description="`<name>_<version>`.", examples=["my_extractor_1_0_0"])
    validation_status: str | None = Field(default=None, description="passed or failed.", examples=["passed"])
    validation_errors: list[str] | None = Field(
        default=None, description="What the linter found.", examples=[["pipeline.py:3: import of subprocess"]]
    )
    archive_sha256: str | None = Field(default=None, description="Hash of the archive.", examples=["9f86d081884c7d65"])
    deployed: bool | None = Field(default=None, description="Whether it can be used.", examples=[True])
    endpoint: str | None = Field(
        default=None,
        description="Where it answers at query time.",
        examples=["http://ray-ns-4f1q9z0a8k-serve-svc.acme.svc:8000/ns_4f1q9z0a8k/extractors/my_extractor"],
    )
    serve_status: str | None = Field(
        default=None, description="State of its Ray Serve application.", examples=["RUNNING"]
    )
    feature_uris: list[str] | None = Field(
        default=None, description="Features it makes.", examples=[["mixpeek://my_extractor@1.0.0/my_embedding"]]
    )


SCHEMA = KindSchema(
    name="Extractor",
    plural="extractors",
    id_prefix="ext",
    short_names=("mpext",),
    spec=ExtractorSpec,
    status=ExtractorStatus,
    columns=(
        PrinterColumn("Namespace", ".spec.namespace", description="Mixpeek namespace"),
        PrinterColumn("Version", ".spec.version", description="Version of the code"),
        PrinterColumn("Realtime", ".spec.realtime", "boolean", "Served at query time"),
        PrinterColumn("Deployed", ".status.deployed", "boolean", "Whether it is served now"),
    ),
    example={
        "name": "headline_extractor",
        "namespace": "news",
        "description": "Embeds headlines with our own model",
        "version": "1.0.0",
        "source": {"path": "extractors/headline_extractor"},
        "realtime": True,
        "resources": {"num_cpus": 2},
    },
)
