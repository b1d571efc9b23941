"""Enrich documents with rows of a database of the organization's own."""

from __future__ import annotations

from typing import Any, Final, Literal

import orjson
from pydantic import AliasChoices, Field, PrivateAttr, model_validator

from mixpeek_operator.core.catalog import Need, StageInfo
from mixpeek_operator.core.errors import MixpeekError, NotEnabledError, RefusedError
from mixpeek_operator.core.sql import Statement, parse
from mixpeek_operator.ports.sql import Rows
from mixpeek_operator.retrieval import calling, paths
from mixpeek_operator.retrieval.late import Late, LateFilter, known
from mixpeek_operator.retrieval.stage import Context, Documents, Stage, StageParams, State
from mixpeek_operator.retrieval.templating.template import is_template

MAX_ROWS: Final = 1000


class Params(StageParams):
    """Parameters of `sql_lookup`; `output_field`, `timeout` and `result_handling` are accepted as well."""

    connection_id: str = Field(
        min_length=1,
        description=(
            "Connection to a PostgreSQL, MySQL or SQLite database, by id or name (POST /v1/organizations/connections)."
        ),
        examples=["crm"],
    )
    query: str = Field(
        min_length=1,
        description=(
            "One SELECT. Values stand in it as :name, or $1, $2 in the order of parameters; they never become part of "
            "the text. It runs in a read-only transaction."
        ),
        examples=["SELECT name, tier FROM customers WHERE id = :customer"],
    )
    parameters: dict[str, Late[Any]] = Field(
        default_factory=dict,
        description="The values by name; templates may use DOC and INPUT.",
        examples=[{"customer": "{{DOC.customer_id}}"}],
    )
    result_field: str = Field(
        default="sql_result",
        min_length=1,
        validation_alias=AliasChoices("result_field", "output_field"),
        description="Dotted path where the row goes, or the list of rows.",
        examples=["customer"],
    )
    multiple_rows: bool = Field(
        default=False, description=f"Whether all rows are kept, {MAX_ROWS} at most; else the first."
    )
    result_handling: Literal["first", "all", "error_if_empty", "error_if_multiple"] | None = Field(
        default=None,
        description="The same as first and all; error_if_empty and error_if_multiple keep one row and fail otherwise.",
    )
    on_no_results: Literal["skip", "null", "error"] = Field(
        default="null",
        description=(
            "Without a row: null puts null in result_field (for all rows an empty list), skip leaves the "
            "document as it is, error fails."
        ),
    )
    timeout_ms: int = Field(default=5000, ge=1, le=300_000, description="Milliseconds for one query.", examples=[2000])
    timeout: float | None = Field(default=None, ge=0.001, le=300, description="The same in seconds.")
    when: LateFilter | None = Field(
        default=None, description="Only documents that satisfy this filter are looked up; others pass unchanged."
    )
    on_error: calling.OnError | None = Field(
        default=None,
        description=(
            "What happens to a document whose query fails: skip keeps it as it is, remove drops it, raise ends the "
            "query. When absent a query that takes too long gives null and any other failure ends the query."
        ),
    )
    _statement: Statement = PrivateAttr()

    @model_validator(mode="after")
    def _readable(self) -> Params:
        if is_template(self.query, braces=True):
            raise ValueError("query holds no templates: write :name, and the template in parameters")
        self._statement = parse(self.query, tuple(self.parameters))
        unused = sorted(set(self.parameters) - set(self._statement.names))
        if unused:
            raise ValueError(f"parameters holds {', '.join(unused)}, which the query does not use")
        return self

    @property
    def statement(self) -> Statement:
        """The query, parsed."""
        return self._statement

    @property
    def handling(self) -> str:
        """What becomes of the rows."""
        return self.result_handling or ("all" if self.multiple_rows else "first")


async def run(state: State, params: Params, context: Context) -> Documents:
    """Return the documents with their rows; equal values are looked up once, several at a time."""
    if context.databases is None:
        raise NotEnabledError("this server was put together without connections to databases")
    values: dict[int, dict[str, Any]] = {}
    for document in state.documents:
        if calling.applies(params.when, document, context):
            names = {**context.names, "DOC": document}
            values[id(document)] = {
                name: known(value, names, f"parameters.{name}") for name, value in params.parameters.items()
            }
    different = {_key(given): given for given in values.values()}
    answers: dict[bytes, tuple[Rows, bool] | MixpeekError] = {}
    try:
        made = await context.databases.query(
            context.scope.organization,
            params.connection_id,
            params.statement,
            list(different.values()),
            timeout_s=params.timeout if params.timeout is not None else params.timeout_ms / 1000,
            most=MAX_ROWS if params.handling == "all" else 2,
        )
        answers = dict(zip(different, made, strict=True))
    except MixpeekError as error:
        if params.on_error in (None, "raise"):
            raise
        answers = dict.fromkeys(different, error)

    async def enrich(document: dict[str, Any]) -> dict[str, Any]:
        answer = answers[_key(values[id(document)])]
        if isinstance(answer, MixpeekError):
            if params.on_error is None and answer.code == "query_timeout":
                state.metadata["timed_out"] = state.metadata.get("timed_out", 0) + 1
                return paths.write(document, params.result_field, None)
            raise answer
        return _written(document, *answer, params)

    state.metadata["queries"] = len(different)
    result = await calling.enriched(state, context, enrich, when=params.when, on_error=params.on_error or "raise")
    if params.handling == "all" and any(not isinstance(item, MixpeekError) and item[1] for item in answers.values()):
        context.warnings.append(f"sql_lookup: a query has more than {MAX_ROWS} rows; the others are left out")
    return result


def _written(document: dict[str, Any], rows: Rows, more: bool, params: Params) -> dict[str, Any]:
    """The document with its rows. Raises RefusedError when there are too few or too many."""
    handling = params.handling
    if not rows:
        if handling == "error_if_empty" or params.on_no_results == "error":
            raise RefusedError("the query has no row", code="no_results")
        if params.on_no_results == "skip":
            return document
        return paths.write(document, params.result_field, [] if handling == "all" else None)
    if handling == "error_if_multiple" and (more or len(rows) > 1):
        raise RefusedError("the query has more than one row", code="multiple_results")
    return paths.write(document, params.result_field, rows if handling == "all" else rows[0])


def _key(values: dict[str, Any]) -> bytes:
    return orjson.dumps(values)


def _estimate(params: Params, documents: int) -> tuple[int, float, float]:
    return documents, 0.0, 20.0 + 5.0 * documents


def _writes(params: Params) -> tuple[str, ...]:
    return (params.result_field,) if params.on_error != "remove" else ()


STAGE = Stage(
    StageInfo("sql_lookup", "apply", "Enrich documents with rows of a SQL database.", "database", Params),
    run,
    braces=True,
    by_document=True,
    writes=_writes,
    needs=lambda params: (Need("connection", params.connection_id, ("connection_id",)),),
    estimate=_estimate,
)
