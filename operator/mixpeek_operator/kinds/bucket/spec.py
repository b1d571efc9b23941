"""Bucket: schema-validated storage of raw objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from mixpeek_operator.core.catalog import Catalog
from mixpeek_operator.core.declared import ObjectSchema
from mixpeek_operator.core.errors import Place, Problem
from mixpeek_operator.core.fields import Immutable, Ref
from mixpeek_operator.core.kind import KindSchema, PrinterColumn
from mixpeek_operator.core.normal import nearest
from mixpeek_operator.core.spec import Filters, FreeObject, NamespacedSpec, ResourceStatus, SpecModel

_SCALARS = {"string", "text", "integer", "number", "float", "boolean", "date", "datetime"}


class UniqueKey(SpecModel):
    """Fields that identify an object."""

    fields: list[str] = Field(
        min_length=1,
        max_length=16,
        description="Fields of the schema; together they are unique.",
        examples=[["product_sku"]],
    )
    default_policy: Literal["insert", "update", "upsert"] | None = Field(
        default=None,
        description="When a request does not say: insert fails on an existing object, update on a missing one, "
        "upsert does either.",
        examples=["upsert"],
    )


class Destination(SpecModel):
    """Your own storage for what extraction writes."""

    connection_id: str = Field(description="Storage connection with write access.", examples=["conn_s3_products"])
    prefix: str = Field(default="", description="Prefix of the keys.", examples=["mixpeek-outputs/"])


class IngestFilter(SpecModel):
    """A retriever that decides about each candidate object of a sync."""

    retriever_id: Annotated[str, Ref("Retriever", ordered=False)] = Field(
        min_length=1, description="Retriever that every candidate runs through.", examples=["is_product"]
    )
    retriever_version: int | None = Field(default=None, ge=1, description="Version to pin.", examples=[1])
    action: Literal["keep", "drop", "tag"] = Field(
        default="keep", description="What to do with a candidate it returns something for.", examples=["keep"]
    )
    on_error: Literal["keep", "drop"] = Field(
        default="keep", description="What to do with a candidate it could not judge.", examples=["keep"]
    )
    timeout_seconds: int = Field(default=30, ge=1, description="Longest run for one candidate.", examples=[30])


class InlineConnection(SpecModel):
    """A connection written in place."""

    api_base_url: str | None = Field(default=None, description="Base URL.", examples=["https://api.example.com"])
    credentials: FreeObject | None = Field(
        default=None,
        description="Credentials; write placeholders, never values.",
        examples=[{"token": "${{ secrets.SOURCE_TOKEN }}"}],
    )


class EventFilter(SpecModel):
    """Which events of a source are taken."""

    event_types: list[str] | None = Field(default=None, description="Types taken.", examples=[["asset.ready"]])


class BlobSource(SpecModel):
    """Where a source's event holds the file."""

    file_field: str = Field(description="Dotted path of the file's URL.", examples=["data.url"])
    blob_type: str = Field(default="video", description="Type of the blob.", examples=["video"])
    target_property: str = Field(description="Field of the schema that gets it.", examples=["video"])


class SourceBatching(SpecModel):
    """How a source's events are collected to batches."""

    mode: str = Field(default="time_window", description="How they are collected.", examples=["time_window"])
    window_seconds: int = Field(default=30, ge=1, description="Length of the window.", examples=[30])
    max_batch_size: int = Field(default=100, ge=1, description="Most objects per batch.", examples=[100])
    auto_submit: bool = Field(default=True, description="Submit without being asked.", examples=[True])


class SourceAdapter(SpecModel):
    """A source that objects come from by themselves."""

    adapter_type: str = Field(description="Type of the source.", examples=["generic_webhook"])
    enabled: bool = Field(default=True, description="Whether it is read.", examples=[True])
    connection_id: str | None = Field(default=None, description="Storage connection.", examples=["conn_mux"])
    connection: InlineConnection | None = Field(
        default=None,
        description="A connection written in place.",
        examples=[{"api_base_url": "https://api.example.com"}],
    )
    event_filter: EventFilter | None = Field(
        default=None, description="Which events are taken.", examples=[{"event_types": ["asset.ready"]}]
    )
    field_mapping: dict[str, str] | None = Field(
        default=None, description="Path in the event → field of the schema.", examples=[{"data.title": "title"}]
    )
    blob_source: BlobSource | None = Field(
        default=None,
        description="Where an event holds the file.",
        examples=[{"file_field": "data.url", "target_property": "video"}],
    )
    batching: SourceBatching | None = Field(
        default=None, description="How events become batches.", examples=[{"window_seconds": 30}]
    )
    dedup_key: str | None = Field(default=None, description="Path that identifies an event.", examples=["data.id"])
    webhook_secret: str | None = Field(
        default=None, description="Secret of the webhook; a placeholder.", examples=["${{ secrets.WEBHOOK }}"]
    )
    webhook_url: str | None = Field(
        default=None, description="URL of the webhook.", examples=["https://example.com/hook"]
    )
    source_collection_id: Annotated[str | None, Ref("Collection", ordered=False)] = Field(
        default=None, description="Collection whose documents become objects.", examples=["product_texts"]
    )
    source_filters: Filters | None = Field(
        default=None,
        description="Which documents of it.",
        examples=[{"field": "status", "operator": "eq", "value": "active"}],
    )
    source_bucket_ids: list[Annotated[str, Ref("Bucket")]] | None = Field(
        default=None, max_length=64, description="Buckets whose objects are fanned in.", examples=[["raw_videos"]]
    )


class BucketSpec(NamespacedSpec):
    """Storage of raw objects with a schema."""

    aliases: ClassVar[Mapping[str, str]] = {"bucket_name": "name", "schema": "bucket_schema"}

    bucket_schema: ObjectSchema = Field(
        description="Schema of its objects. `schema` in a manifest.",
        examples=[{"properties": {"title": {"type": "text", "required": True}}}],
    )
    unique_key: Annotated[UniqueKey | None, Immutable("its objects were told apart by the other key")] = Field(
        default=None,
        description="Fields that identify an object, so that writing it again updates it.",
        examples=[{"fields": ["product_sku"], "default_policy": "upsert"}],
    )
    metadata: FreeObject | None = Field(default=None, description="Your own data.", examples=[{"team": "catalog"}])
    storage_class: Literal["standard", "nearline", "coldline", "archive"] | None = Field(
        default=None, description="Tier of the object store.", examples=["standard"]
    )
    destination: Destination | None = Field(
        default=None,
        description="Your own storage for what extraction writes.",
        examples=[{"connection_id": "conn_s3_products"}],
    )
    ingest_filter: IngestFilter | None = Field(
        default=None, description="Retriever that judges candidates.", examples=[{"retriever_id": "is_product"}]
    )
    source_adapter: SourceAdapter | None = Field(
        default=None,
        description="Source that objects come from by themselves.",
        examples=[{"adapter_type": "generic_webhook"}],
    )
    sync: FreeObject | None = Field(
        default=None,
        description="Sync with external storage.",
        examples=[{"connection_id": "${{ secrets.S3_CONNECTION_ID }}"}],
    )


class BucketStatus(ResourceStatus):
    """State of a bucket."""

    storage_prefix: str | None = Field(
        default=None, description="Prefix of its files.", examples=["ns_4f1q9z0a8k/bkt_4f1q9z0a8k/"]
    )
    object_count: int | None = Field(default=None, description="Objects in it.", examples=[220])
    total_size_bytes: int | None = Field(default=None, description="Bytes of its blobs.", examples=[1048576])


def check(spec: Mapping[str, Any], catalog: Catalog) -> list[Problem]:
    """Return unique-key fields that the schema lacks or that cannot be compared."""
    properties = (spec.get("bucket_schema") or {}).get("properties") or {}
    problems = []
    for index, name in enumerate((spec.get("unique_key") or {}).get("fields") or ()):
        where = ("unique_key", "fields", index)
        place = Place(path=f"unique_key.fields[{index}]")
        field = properties.get(name)
        if field is None:
            guess = nearest(name, list(properties))
            hint = f"; did you mean {guess!r}?" if guess else ""
            text = f"unique_key names {name!r}, which the schema lacks{hint}"
            problems.append(Problem("unknown_field", text, place, location=where))
        elif field.get("type") not in _SCALARS:
            text = f"unique_key needs a plain value, but {name!r} is of type {field.get('type')}"
            problems.append(Problem("invalid_value", text, place, location=where))
    return problems


SCHEMA = KindSchema(
    name="Bucket",
    plural="buckets",
    id_prefix="bkt",
    short_names=("mpbkt",),
    spec=BucketSpec,
    status=BucketStatus,
    columns=(
        PrinterColumn("Namespace", ".spec.namespace", description="Mixpeek namespace"),
        PrinterColumn("Objects", ".status.objectCount", "integer", "Objects in it"),
    ),
    check=check,
    example={
        "name": "articles",
        "namespace": "news",
        "description": "Articles as they arrive from the newsroom",
        "bucket_schema": {
            "properties": {
                "article_id": {"type": "string", "required": True},
                "text": {"type": "text", "required": True},
                "category": {"type": "string", "enum": ["science", "sports", "business"]},
                "published_at": {"type": "datetime"},
            }
        },
        "unique_key": {"fields": ["article_id"], "default_policy": "upsert"},
    },
)
