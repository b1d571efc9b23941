"""Retriever: a search pipeline of stages over collections.

The canonical form of a stage is flat: `{stage_name, stage_type?, stage_id, parameters, pre_filters?, on_error?, …}`.
The SDK's `{stage_name, config: {stage_id, parameters}}` and the other forms of the wire become it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from mixpeek_operator.core.catalog import Catalog
from mixpeek_operator.core.declared import FieldType
from mixpeek_operator.core.errors import Place, Problem
from mixpeek_operator.core.fields import Immutable, Ref
from mixpeek_operator.core.kind import KindSchema, PrinterColumn, Reference
from mixpeek_operator.core.spec import Filters, FreeObject, NamespacedSpec, ResourceStatus, SpecModel, camel

_CONFIG_KEYS = (
    "stage_id", "parameters", "pre_filters", "when", "on_error", "batch_size", "budget_limits", "output_alias",
)  # fmt: skip
_IN_CONFIG = {"params", *_CONFIG_KEYS, *map(camel, _CONFIG_KEYS)}


class Budget(SpecModel):
    """Limits of one execution."""

    max_credits: float | None = Field(default=None, ge=0, description="Most credits.", examples=[100])
    max_time_ms: int | None = Field(default=None, ge=1, description="Most milliseconds.", examples=[30000])


class Stage(SpecModel):
    """One step of the pipeline."""

    aliases: ClassVar[Mapping[str, str]] = {"name": "stage_name", "params": "parameters"}

    stage_name: str = Field(
        min_length=1,
        max_length=128,
        description="Name in statistics and templates, unique in the retriever; the stage_id when absent.",
        examples=["text_search"],
    )
    stage_type: Literal["filter", "sort", "reduce", "apply", "enrich", "group"] | None = Field(
        default=None, description="Category; it follows from stage_id when absent.", examples=["filter"]
    )
    stage_id: str = Field(
        min_length=1,
        max_length=128,
        description="Stage to run, as GET /v1/retrievers/stages lists it.",
        examples=["feature_search"],
    )
    parameters: FreeObject = Field(
        default_factory=dict,
        description="Parameters of the stage; templates such as {{INPUT.query}} are allowed.",
        examples=[{"limit": 10}],
    )
    pre_filters: Filters | None = Field(
        default=None,
        description="Structured filter on the documents the stage gets.",
        examples=[{"field": "status", "operator": "eq", "value": "active"}],
    )
    when: FreeObject | None = Field(
        default=None,
        description="Structured filter: documents that fail it pass the stage untouched.",
        examples=[{"field": "language", "operator": "eq", "value": "en"}],
    )
    on_error: Literal["skip", "error"] | None = Field(
        default=None,
        description="error (default) fails the retriever; skip goes on with what the stages before returned.",
        examples=["skip"],
    )
    batch_size: int | str | None = Field(
        default=None, description="Documents per call; a template is allowed.", examples=["{{20 * inputs.page_size}}"]
    )
    output_alias: str | None = Field(
        default=None, description="Also keep the results as CONTEXT.<alias>.", examples=["candidates"]
    )
    budget_limits: Budget | None = Field(
        default=None, description="Limits of this stage in one execution.", examples=[{"max_time_ms": 2000}]
    )
    description: str | None = Field(default=None, description="What the stage is for.", examples=["Find candidates"])

    @classmethod
    def canonical(cls, body: dict[str, Any]) -> dict[str, Any]:
        config = body.get("config")
        if isinstance(config, dict):
            # What `config` holds beside its known keys becomes a key that the error can name.
            inner = {key if key in _IN_CONFIG else f"config.{key}": value for key, value in config.items()}
            outer = {key: value for key, value in body.items() if key != "config" and value is not None}
            body = {**inner, **outer}
        elif "config" in body and config is None:
            body = {key: value for key, value in body.items() if key != "config"}
        body = super().canonical(body)
        stage_id = body.get("stage_id") or body.get("stageId")
        stage_name = body.get("stage_name") or body.get("stageName")
        if stage_id is None and stage_name is not None:
            body = {**body, "stage_id": stage_name}
        elif stage_name is None and stage_id is not None:
            body = {**body, "stage_name": stage_id}
        parameters = body.get("parameters")
        if parameters is None and "parameters" in body:
            body = {key: value for key, value in body.items() if key != "parameters"}
        elif isinstance(parameters, dict) and _has_noise(parameters):
            body = {**body, "parameters": {key: value for key, value in parameters.items() if not _is_noise(value)}}
        return body


def _is_noise(value: Any) -> bool:
    """Whether a client wrote it for "absent": null, the text "null", or its placeholder for a collection."""
    return value is None or (isinstance(value, str) and (value == "null" or value == "{{COLLECTION_ID}}"))


def _has_noise(parameters: dict[str, Any]) -> bool:
    return any(_is_noise(value) for value in parameters.values())


class InputField(SpecModel):
    """One input of the retriever."""

    type: FieldType | Literal["document_reference"] = Field(description="Type of the input.", examples=["text"])
    required: bool = Field(default=False, description="Whether every execution must give it.", examples=[True])
    default: Any = Field(default=None, description="Value when absent; null is no default.", examples=[10])
    description: str | None = Field(default=None, description="What it is.", examples=["What to search for"])
    enum: list[Any] | None = Field(default=None, description="Allowed values.", examples=[["audio", "video"]])
    examples: list[Any] | None = Field(default=None, description="Example values.", examples=[["wireless earbuds"]])
    items: InputField | None = Field(
        default=None, description="Schema of an array's items.", examples=[{"type": "string"}]
    )
    properties: dict[str, InputField] | None = Field(
        default=None, description="Schema of an object's fields.", examples=[{"lat": {"type": "number"}}]
    )

    @classmethod
    def canonical(cls, body: dict[str, Any]) -> dict[str, Any]:
        if body.get("required", True) is False or body.get("default", True) is None:
            body = {
                key: value
                for key, value in body.items()
                if not (key == "required" and value is False) and not (key == "default" and value is None)
            }
        return super().canonical(body)


class CacheConfig(SpecModel):
    """Caching of answers and of stages."""

    enabled: bool = Field(default=True, description="Whether answers and outputs of stages are kept.", examples=[True])
    ttl_seconds: int = Field(default=3600, ge=0, description="Seconds an answer is kept.", examples=[300])
    cache_stage_names: list[str] | None = Field(
        default=None, max_length=64, description="Stages whose output is kept too.", examples=[["text_search"]]
    )
    exclude_fields: list[Annotated[str, Field(min_length=1)]] | None = Field(
        default=None,
        max_length=64,
        description=(
            "Fields of documents (dotted paths) that no cache may hold, as personal data: they are read again for an "
            "answer that was kept. An answer is not kept when a stage may have written one elsewhere."
        ),
        examples=[["email"]],
    )

    @classmethod
    def canonical(cls, body: dict[str, Any]) -> dict[str, Any]:
        # Figures of the wire, which clients send back as they read them.
        return super().canonical({key: value for key, value in body.items() if key != "stats"})


class RetrieverSpec(NamespacedSpec):
    """A search pipeline."""

    aliases: ClassVar[Mapping[str, str]] = {
        "retriever_name": "name",
        "collection_ids": "collection_identifiers",
        "collectionIds": "collection_identifiers",
        "collections": "collection_identifiers",
    }

    collection_identifiers: list[Annotated[str, Ref("Collection")]] | None = Field(
        default=None, max_length=64, description="Collections it searches (names or ids).", examples=[["product_texts"]]
    )
    stages: Annotated[list[Stage], Immutable("its stages are what it is; callers rely on them")] = Field(
        min_length=1,
        max_length=64,
        description="Stages, in order.",
        examples=[[{"stage_name": "top", "stage_id": "limit", "parameters": {"limit": 10}}]],
    )
    input_schema: Annotated[dict[str, InputField] | None, Immutable("callers rely on its inputs")] = Field(
        default=None,
        max_length=256,
        description="Inputs by name.",
        examples=[{"query": {"type": "text", "required": True}}],
    )
    budget_limits: Budget | None = Field(
        default=None, description="Limits of one execution.", examples=[{"max_time_ms": 30000}]
    )
    cache_config: CacheConfig | None = Field(
        default=None,
        description="Caching of answers: for an hour, where equal queries have equal answers, unless said here.",
        examples=[{"ttl_seconds": 300}],
    )
    tags: list[str] | None = Field(default=None, max_length=64, description="Labels.", examples=[["prod"]])
    metadata: FreeObject | None = Field(default=None, description="Your own data.", examples=[{"team": "search"}])
    visibility: Literal["private", "public", "marketplace"] = Field(
        default="private", description="Who may execute it.", examples=["private"]
    )
    marketplace_listing_id: str | None = Field(
        default=None, description="Listing, for visibility marketplace.", examples=["lst_products"]
    )
    requires_subscription: bool = Field(default=False, description="Whether callers must subscribe.", examples=[False])
    display_config: FreeObject | None = Field(
        default=None,
        description="How a public search page shows it.",
        examples=[{"title": "Product search", "inputs": [], "exposed_fields": ["title"]}],
    )

    @classmethod
    def canonical(cls, body: dict[str, Any]) -> dict[str, Any]:
        body = super().canonical(body)
        for key in ("input_schema", "inputSchema"):
            inputs = body.get(key)
            if isinstance(inputs, dict) and _is_wrapped(inputs):
                body = {**body, key: _unwrapped(inputs)}
        return body


def _is_wrapped(inputs: dict[str, Any]) -> bool:
    """Whether it is `{properties: {name: {…}}}` and not a flat map with an input called "properties"."""
    properties = inputs.get("properties")
    return (
        isinstance(properties, dict)
        and inputs.keys() <= {"properties", "required", "type"}
        and not isinstance(properties.get("type"), str)
        and all(isinstance(value, dict) for value in properties.values())
    )


def _unwrapped(inputs: dict[str, Any]) -> dict[str, Any]:
    names = inputs.get("required")
    required = set(names) if isinstance(names, list) else set()
    return {
        name: {**field, "required": True} if name in required else field for name, field in inputs["properties"].items()
    }


class RetrieverStatus(ResourceStatus):
    """State of a retriever."""

    stage_count: int | None = Field(default=None, description="Stages it has.", examples=[3])
    features: list[str] | None = Field(
        default=None,
        description="Feature URIs it searches.",
        examples=[["mixpeek://text_extractor@v1/text_embedding"]],
    )


_REFERENCES = {
    "target_collection_id": "Collection",
    "collection_id": "Collection",
    "collection_ids": "Collection",
    "collection_identifiers": "Collection",
    "reference_collection_id": "Collection",
    "reference_collection_ids": "Collection",
    "example_collection_id": "Collection",
    "example_collection_ids": "Collection",
    "retriever_id": "Retriever",
    "retriever_ids": "Retriever",
    "taxonomy_id": "Taxonomy",
    "taxonomy_ids": "Taxonomy",
    "cluster_id": "Cluster",
}


# Parts of parameters that hold values and templates of users: a key there is no reference.
_OPAQUE = {"filters", "pre_filters", "when", "value", "inputs", "retriever_inputs", "body", "template", "output_schema"}


def free_references(spec: Mapping[str, Any]) -> list[Reference]:
    """Return the resources that stage parameters name; templates are skipped."""
    found: list[Reference] = []
    for index, stage in enumerate(spec.get("stages") or ()):
        if isinstance(stage, dict):
            found += _in_parameters(stage.get("parameters"), ("stages", index, "parameters"))
    return found


def _in_parameters(value: Any, path: tuple[str | int, ...]) -> Iterator[Reference]:
    if isinstance(value, dict):
        for key, item in value.items():
            kind = _REFERENCES.get(key)
            if kind is not None and isinstance(item, str):
                if _is_literal(item):
                    yield Reference((*path, key), kind, item)
            elif kind is not None and isinstance(item, list):
                for index, name in enumerate(item):
                    if isinstance(name, str) and _is_literal(name):
                        yield Reference((*path, key, index), kind, name)
            elif key not in _OPAQUE and isinstance(item, dict | list):
                yield from _in_parameters(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, dict | list):
                yield from _in_parameters(item, (*path, index))


def _is_literal(text: str) -> bool:
    return bool(text) and "{{" not in text and not text.startswith("{") and "${{" not in text


def check(spec: Mapping[str, Any], catalog: Catalog) -> list[Problem]:
    """Return stage names that occur twice, cached stages that do not exist, and what the catalog finds."""
    stages = spec.get("stages")
    if not isinstance(stages, list):
        return []
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    for index, stage in enumerate(stages):
        name = stage.get("stage_name") if isinstance(stage, dict) else None
        if not isinstance(name, str):
            continue
        if name in seen:
            text = f"stage name {name!r} is taken by stages[{seen[name]}]; give each stage its own name"
            problems.append(
                Problem(
                    "duplicate_name",
                    text,
                    Place(path=f"stages[{index}].stage_name"),
                    location=("stages", index, "stage_name"),
                )
            )
        seen.setdefault(name, index)
    for index, name in enumerate((spec.get("cache_config") or {}).get("cache_stage_names") or ()):
        if name not in seen:
            path = f"cache_config.cache_stage_names[{index}]"
            text = f"there is no stage {name!r}; stages are {', '.join(seen)}"
            location = ("cache_config", "cache_stage_names", index)
            problems.append(Problem("unknown_stage", text, Place(path=path), location=location))
    return problems + list(catalog.check_stages(stages, spec.get("input_schema") or {}))


SCHEMA = KindSchema(
    name="Retriever",
    plural="retrievers",
    id_prefix="ret",
    short_names=("mpret",),
    spec=RetrieverSpec,
    status=RetrieverStatus,
    columns=(
        PrinterColumn("Namespace", ".spec.namespace", description="Mixpeek namespace"),
        PrinterColumn("Stages", ".status.stageCount", "integer", "Stages it has"),
    ),
    free_references=free_references,
    check=check,
    example={
        "name": "article_search",
        "namespace": "news",
        "description": "Finds articles by meaning",
        "collection_identifiers": ["article_texts"],
        "input_schema": {
            "query": {"type": "text", "required": True, "description": "What to search for"},
            "category": {"type": "string"},
        },
        "stages": [
            {
                "stage_name": "search",
                "stage_type": "filter",
                "stage_id": "feature_search",
                "parameters": {
                    "searches": [
                        {
                            "feature_uri": "mixpeek://text_extractor@v1/text_embedding",
                            "query": {"input_mode": "text", "value": "{{INPUT.query}}"},
                            "top_k": 50,
                        }
                    ],
                    "final_top_k": 20,
                },
            },
            {"stage_name": "top", "stage_type": "reduce", "stage_id": "limit", "parameters": {"limit": 10}},
        ],
        "cache_config": {"enabled": True, "ttl_seconds": 300},
    },
)
