"""What every `Spec` is made of, and the one way from a body as written to the canonical spec.

A body may come from a manifest, the REST API or a custom resource. `normalise` accepts every spelling of them
(camelCase, the wire's and the seeds' aliases, nulls for absent fields) and returns one form: snake_case, only
what was set. Normalising twice changes nothing. Keys that users invent (schema properties, metadata, stage
parameters) are never respelled, because they live in plain dicts and not in models.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from mixpeek_operator.core import filters
from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.core.fields import Immutable, Ref

camel = cache(to_camel)
"""Spelling of a field in custom resources; cached, because every alias is looked up for every resource."""

NAME_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9 ._-]*[A-Za-z0-9])?$"
FEATURE_URI_PATTERN = r"^mixpeek://[^@/]+@[^@/]+(/.+)?$"

Name = Annotated[str, Field(min_length=1, max_length=128, pattern=NAME_PATTERN)]
FreeObject = dict[str, Any]
"""A mapping whose keys belong to the user."""


def _check_filter(value: dict[str, Any]) -> dict[str, Any]:
    try:
        filters.parse(value)
    except SpecError as error:
        # The message goes in as a context value: a filter's own braces are no template.
        raise PydanticCustomError("invalid_filter", "{why}", {"why": str(error)}) from error
    return value


Filters = Annotated[dict[str, Any], AfterValidator(_check_filter)]
"""A structured filter: `{field, operator, value}` or a tree of AND, OR, NOT."""


class SpecModel(BaseModel):
    """Base of every part of a spec: strict types, unknown keys are errors, camelCase or snake_case in."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        alias_generator=camel,
        populate_by_name=True,
        loc_by_alias=False,
        protected_namespaces=(),
        use_attribute_docstrings=False,
    )

    aliases: ClassVar[Mapping[str, str]] = {}
    """Other spelling → field. The field wins when both are written."""
    refused: ClassVar[Mapping[str, str]] = {}
    """Key of the wire that cannot be declared here → why."""
    rules: ClassVar[tuple[tuple[str, str], ...]] = ()
    """(CEL expression over the custom resource's spelling, message): what the model's validators check too."""

    @model_validator(mode="before")
    @classmethod
    def _canonical(cls, value: Any) -> Any:
        return cls.canonical(value) if type(value) is dict else value

    @classmethod
    def canonical(cls, body: dict[str, Any]) -> dict[str, Any]:
        """Return `body` with aliases made canonical; the body itself is not changed. Kinds extend this."""
        names = cls.aliases
        if names and not names.keys().isdisjoint(body):
            renamed: dict[str, Any] = {}
            for key, value in body.items():
                field = names.get(key)
                if field is None:
                    renamed[key] = value
                elif value is not None and body.get(field) is None and body.get(camel(field)) is None:
                    renamed[field] = value
            body = {key: item for key, item in renamed.items() if item is not None}
        if cls.refused and not cls.refused.keys().isdisjoint(body):
            body = {key: item for key, item in body.items() if item is not None or key not in cls.refused}
        return body


DeletionPolicy = Literal["Delete", "Retain"]
ManagementPolicy = Literal["Full", "Observe", "NoDelete"]
DriftPolicy = Literal["Correct", "Report", "Ignore"]


class ResourceSpec(SpecModel):
    """Fields of every kind."""

    name: Name = Field(
        description="Name as its users write it, unique per kind within the Mixpeek namespace. "
        "In a custom resource it defaults to metadata.name.",
        examples=["product_search"],
    )
    description: str | None = Field(
        default=None, max_length=4096, description="What it is for.", examples=["Search over the product catalog"]
    )
    deletion_policy: DeletionPolicy = Field(
        default="Delete",
        description="Whether deleting the resource deletes what it made (vectors, documents, files) or keeps it.",
        examples=["Retain"],
    )
    management_policy: ManagementPolicy = Field(
        default="Full",
        description="Full creates, changes and deletes; Observe only reads and reports; NoDelete never deletes.",
        examples=["NoDelete"],
    )
    drift_policy: DriftPolicy = Field(
        default="Correct",
        description="What to do when the real state differs from the declared one: correct it, report it as a "
        "condition, or ignore it.",
        examples=["Report"],
    )


class NamespacedSpec(ResourceSpec):
    """Fields of every kind that lives in a Mixpeek namespace."""

    namespace: Annotated[Name, Ref("Namespace"), Immutable("its data lives in that namespace")] = Field(
        description="Name of the Mixpeek Namespace it belongs to.", examples=["products"]
    )


class StatusModel(BaseModel):
    """Base of every part of a status: written by the engine only, so extra keys are kept."""

    model_config = ConfigDict(extra="allow", alias_generator=camel, populate_by_name=True, protected_namespaces=())


class ConditionStatus(StatusModel):
    """One condition, as in metav1.Condition."""

    type: str = Field(description="Kind of condition.", examples=["Ready"])
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.", examples=["True"])
    reason: str = Field(description="Why, in one CamelCase word.", examples=["Reconciled"])
    message: str = Field(default="", description="Why, and what to do.", examples=["2 of 2 vectors are ready"])
    observed_generation: int = Field(default=0, description="Generation it was judged for.", examples=[3])
    last_transition_time: str | None = Field(
        default=None, description="When the status last changed.", examples=["2026-01-31T10:00:00Z"]
    )


class ResourceStatus(StatusModel):
    """Fields of every kind's status."""

    id: str | None = Field(default=None, description="Id in the REST API.", examples=["bkt_4f1q9z0a8k"])
    observed_generation: int | None = Field(
        default=None, description="Generation that this status describes.", examples=[3]
    )
    applied_generation: int | None = Field(
        default=None, description="Generation that was made real last.", examples=[3]
    )
    data_lost_at: str | None = Field(
        default=None,
        description="When data was found lost and its place made anew; process it again.",
        examples=["2026-01-31T10:00:00Z"],
    )
    conditions: list[ConditionStatus] = Field(
        default_factory=list, description="Ready and Synced, and further conditions of the kind.", examples=[[]]
    )
