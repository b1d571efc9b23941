"""Join documents with documents of another collection: by equal fields, or by a retriever run for each document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import orjson
from pydantic import AliasChoices, Field, model_validator

from mixpeek_operator.core.catalog import StageInfo
from mixpeek_operator.core.directory import CollectionInfo
from mixpeek_operator.core.filters import And, equals, matches, one_of
from mixpeek_operator.retrieval import paths, search
from mixpeek_operator.retrieval.each import each
from mixpeek_operator.retrieval.late import Late, LateFilter, known
from mixpeek_operator.retrieval.stage import Compilation, Context, Documents, Stage, StageParams, State

_VALUES_PER_LOOKUP = 256
_KEPT = ("document_id", "collection_id", "score")
_Limit = Annotated[int, Field(ge=1, le=1000)]


class Params(StageParams):
    """Parameters of `document_enrich`, in the spelling of the SDK or of the stage's documentation."""

    target_collection_id: Late[str] | None = Field(
        default=None,
        validation_alias=AliasChoices("target_collection_id", "collection_id"),
        description="Collection to join with, by name or id.",
        examples=["catalog"],
    )
    source_field: Late[str] | None = Field(
        default=None, description="Field of the document to match.", examples=["metadata.product_id"]
    )
    target_field: Late[str] | None = Field(
        default=None,
        validation_alias=AliasChoices("target_field", "lookup_field"),
        description="Field of the target collection to match against.",
        examples=["product_id"],
    )
    fields_to_merge: list[str] | None = Field(
        default=None,
        validation_alias=AliasChoices("fields_to_merge", "select_fields"),
        description="Fields to take; the whole document when absent.",
        examples=[["name", "price"]],
    )
    output_field: str | None = Field(
        default=None,
        validation_alias=AliasChoices("output_field", "result_field"),
        description="Where the fields go; the document's root when absent.",
        examples=["catalog_data"],
    )
    strategy: Literal["enrich", "append", "replace"] = Field(
        default="enrich",
        description=(
            "enrich: merge the fields into output_field. append: put the match there as one nested object (a list of "
            "them with multiple or a retriever). replace: the match takes the document's place."
        ),
        examples=["enrich"],
    )
    allow_missing: bool = Field(
        default=True, description="Whether documents without a match stay, unchanged.", examples=[True]
    )
    when: LateFilter | None = Field(
        default=None, description="Only documents that satisfy this filter are enriched; others pass unchanged."
    )
    multiple: bool = Field(default=False, description="Join all matches as a list.", examples=[False])
    limit: Late[_Limit] = Field(default=10, description="Most matches per document with multiple.", examples=[10])
    retriever_id: Late[str] | None = Field(
        default=None, description="Retriever that finds the matches, by name or id.", examples=["find_similar"]
    )
    retriever_config: dict[str, Any] | None = Field(
        default=None, description="The same, declared in place: {stages, collection_identifiers?, input_schema?}."
    )
    retriever_inputs: Late[dict[str, Any]] = Field(
        default_factory=dict,
        description="Inputs of the retriever; templates may use DOC.",
        examples=[{"query": "{{DOC.title}}"}],
    )

    @model_validator(mode="before")
    @classmethod
    def _documented_default(cls, values: Any) -> Any:
        named = isinstance(values, Mapping) and ("lookup_field" in values or "select_fields" in values)
        if named and not values.get("output_field") and not values.get("result_field"):
            # This spelling comes with a default of its own.
            return {**values, "result_field": "enriched_data"}
        return values

    @model_validator(mode="after")
    def _one_way(self) -> Params:
        if self.retriever_id is not None and self.retriever_config is not None:
            raise ValueError("give retriever_id or retriever_config, not both")
        if self.retriever_id is None and self.retriever_config is None:
            missing = [
                name for name in ("target_collection_id", "source_field", "target_field") if getattr(self, name) is None
            ]
            if missing:
                raise ValueError(f"a join by fields needs {', '.join(missing)}; or give retriever_id")
        if self.retriever_config is not None and not isinstance(self.retriever_config.get("stages"), list):
            raise ValueError("retriever_config needs a list of stages")
        return self


async def prepare(params: Params, compilation: Compilation) -> CollectionInfo | None:
    """Return the target collection when its name is no template."""
    if isinstance(params.target_collection_id, str):
        return await compilation.find_collection(params.target_collection_id)
    return None


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return the documents with what was found for each; documents stay in order."""
    target: CollectionInfo | None = state.plan
    if target is None and params.target_collection_id is not None:
        target = await context.find_collection(
            known(params.target_collection_id, context.names, "target_collection_id")
        )
    chosen = [_applies(document, params, context) for document in state.documents]
    wanted = [document for document, applies in zip(state.documents, chosen, strict=True) if applies]
    if _through_retriever(params):
        found = await _by_retriever(wanted, params, context, target)
        state.credits += 0.1 * len(wanted)
    else:
        assert target is not None
        found = await _by_fields(wanted, params, context, target)
    matched = iter(found)
    result: Documents = []
    count = 0
    for document, applies in zip(state.documents, chosen, strict=True):
        matches_found = next(matched) if applies else []
        if matches_found:
            count += 1
            result.append(_merged(document, matches_found, params))
        elif not applies or params.allow_missing:
            result.append(document)
    state.metadata.update(matched_count=count, match_rate=count / len(wanted) if wanted else 0.0)
    return result


def _applies(document: dict[str, Any], params: Params, context: Context) -> bool:
    if params.when is None:
        return True
    return matches(params.when.value({**context.names, "DOC": document}), document)


async def _by_fields(documents: Documents, params: Params, context: Context, target: CollectionInfo) -> list[Documents]:
    source = known(params.source_field or "", context.names, "source_field")
    field = known(params.target_field or "", context.names, "target_field")
    limit = known(params.limit, context.names, "limit") if params.multiple else 1
    keys = [_values(paths.read(document, source)) for document in documents]
    unique = {_mark(value): value for values in keys for value in values}
    values = list(unique.values())
    index: dict[bytes, Documents] = {}
    for start in range(0, len(values), _VALUES_PER_LOOKUP):
        part = values[start : start + _VALUES_PER_LOOKUP]
        condition = And((equals("collection_id", target.id), one_of(field, part)))
        rows, _ = await search.scan(
            context.vectors, context.namespace.vector_collection, condition, limit=search.MAX_SCAN
        )
        for row in rows:
            for value in _values(paths.read(row, field)):
                index.setdefault(_mark(value), []).append(row)
    found = []
    for values in keys:
        rows = [row for value in values for row in index.get(_mark(value), ())]
        distinct = {row["document_id"]: row for row in rows}
        found.append(list(distinct.values())[:limit])
    return found


async def _by_retriever(
    documents: Documents, params: Params, context: Context, target: CollectionInfo | None
) -> list[Documents]:
    filter = None if target is None else equals("collection_id", target.id)
    limit = known(params.limit, context.names, "limit")

    async def one(document: dict[str, Any]) -> Documents:
        names = {**context.names, "DOC": document}
        retriever: Any = params.retriever_config
        if params.retriever_id is not None:
            retriever = known(params.retriever_id, names, "retriever_id")
        elif target is not None and not _collections(params.retriever_config or {}):
            retriever = {**(params.retriever_config or {}), "collection_identifiers": [target.id]}
        given = known(params.retriever_inputs, names, "retriever_inputs")
        return await context.nested(retriever, given, filter=filter, limit=limit)

    return await each(documents, one)


def _collections(config: Mapping[str, Any]) -> Any:
    return config.get("collection_identifiers") or config.get("collection_ids")


def _merged(document: dict[str, Any], found: Documents, params: Params) -> dict[str, Any]:
    listed = params.multiple or (params.strategy == "append" and params.target_field is None)
    picked = [_pick(item, params.fields_to_merge) for item in (found if listed else found[:1])]
    value: Any = picked if listed else picked[0]
    if params.strategy == "replace":
        return {**picked[0], **{key: document[key] for key in _KEPT if key in document}}
    if params.strategy == "append" or listed:
        return paths.write(document, params.output_field or "enriched_data", value)
    if params.output_field is not None:
        there = paths.read(document, params.output_field)
        return paths.write(document, params.output_field, {**there, **value} if isinstance(there, dict) else value)
    own = set(_KEPT) - set(params.fields_to_merge or ())
    return {**document, **{key: item for key, item in value.items() if key not in own}}


def _pick(found: dict[str, Any], fields: list[str] | None) -> dict[str, Any]:
    if fields is None:
        return {key: value for key, value in found.items() if key != "_internal"}
    picked: dict[str, Any] = {}
    for field in fields:
        value = paths.read(found, field)
        if value is not paths.ABSENT:
            picked = {**picked, field: value} if field in found else paths.write(picked, field, value)
    return picked


def _values(value: Any) -> list[Any]:
    if value is paths.ABSENT or value is None:
        return []
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, str | int | float)]


def _mark(value: Any) -> bytes:
    """Equal values, equal marks: 1 and 1.0 are the same number, "1" and true are not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return orjson.dumps(value)


def _estimate(params: Params, documents: int) -> tuple[int, float, float]:
    if _through_retriever(params):
        return documents, 0.1 * documents, 2.0 * documents
    return documents, 0.0, 1.0 + 0.01 * documents


def _through_retriever(params: Params) -> bool:
    return params.retriever_id is not None or params.retriever_config is not None


def _nested(params: Params) -> Mapping[str, Sequence[Any]]:
    return {} if params.retriever_config is None else {"retriever_config": params.retriever_config["stages"]}


def _writes(params: Params) -> tuple[str, ...]:
    listed = params.multiple or params.strategy == "append"
    if params.strategy == "replace" or not params.allow_missing or not (listed or params.output_field):
        return ()
    return (params.output_field or "enriched_data",)


STAGE = Stage(
    StageInfo(
        "document_enrich",
        "enrich",
        "Join documents with documents of another collection, by equal fields or through a retriever.",
        "link",
        Params,
    ),
    run,
    repeatable=lambda params: not _through_retriever(params),
    costly=True,
    by_document=True,
    writes=_writes,
    reads=lambda params: () if params.source_field is None else (str(params.source_field),),
    prepare=prepare,
    opaque=frozenset({"retriever_config"}),
    nested=_nested,
    estimate=_estimate,
)
