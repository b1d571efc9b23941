"""One stage of a declaration, validated: parameters typed, templates parsed, every problem with its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from mixpeek_operator.core.errors import Place, Problem, SpecError
from mixpeek_operator.retrieval.late import Deferred, Late, LateFilter
from mixpeek_operator.retrieval.stage import Stage, StageParams
from mixpeek_operator.retrieval.templating.errors import TemplateError
from mixpeek_operator.retrieval.templating.template import compile_text, is_template

_BATCH_SIZE: TypeAdapter[Deferred[int] | int] = TypeAdapter(
    Late[Annotated[int, Field(ge=1, le=10_000)]], config=ConfigDict(arbitrary_types_allowed=True)
)


@dataclass(frozen=True, slots=True)
class Declared:
    """A stage as declared, ready to be placed in a pipeline."""

    index: int
    name: str
    type: str
    stage: Stage
    params: Any
    skip_errors: bool = False
    when: LateFilter | None = None
    pre_filters: LateFilter | None = None
    output_alias: str | None = None
    batch_size: Deferred[int] | int | None = None
    max_credits: float | None = None
    max_time_ms: float | None = None
    uses: frozenset[tuple[str, ...]] = frozenset()
    """What its templates read, as paths: ("INPUT", "query")."""
    declared: Mapping[str, Any] = field(default_factory=dict)
    """What was declared of it and decides its output."""


def declare(
    stage: Stage, body: Mapping[str, Any], index: int, inputs: Sequence[str] = ()
) -> tuple[Declared | None, list[Problem]]:
    """Validate one stage, and against `inputs`, if any, what its templates use. None and the problems if any."""
    config = body.get("config")
    merged: dict[str, Any] = {**(config if isinstance(config, Mapping) else {}), **body}
    parameters = merged.get("parameters")
    problems: list[Problem] = []
    here: tuple[str | int, ...] = ("stages", index)
    if parameters is None:
        parameters = {}
    if isinstance(parameters, Mapping):
        # Clients write "absent" as null, as the text "null", or as their placeholder for a collection.
        parameters = {
            key: value
            for key, value in parameters.items()
            if value is not None and value != "null" and value != "{{COLLECTION_ID}}"
        }
    if not isinstance(parameters, Mapping):
        problems.append(_problem("parameter_invalid", "parameters must be an object", (*here, "parameters")))
        return None, problems
    uses: set[tuple[str, ...]] = set()
    for path, text in _texts(parameters, (), stage.opaque, stage.braces):
        try:
            used = compile_text(text, braces=stage.braces).paths
        except TemplateError as error:
            problems.append(_problem("template_invalid", error.message, (*here, "parameters", *path)))
        else:
            uses |= used
            problems += _undeclared(used, inputs, (*here, "parameters", *path))
    params = None
    if not problems:
        try:
            params = stage.info.parameters.model_validate(dict(parameters), context={"braces": stage.braces})
        except ValidationError as error:
            problems += _parameter_problems(error, stage.info.parameters, (*here, "parameters"))
        except SpecError as error:
            problems.append(_problem(error.code, error.message, (*here, "parameters")))
    if isinstance(params, StageParams):
        for name, used in params.own_templates().items():
            uses |= used
            problems += _undeclared(used, inputs, (*here, "parameters", name))
    filters: dict[str, LateFilter | None] = {}
    for key in ("when", "pre_filters"):
        try:
            filters[key] = LateFilter(merged[key]) if merged.get(key) else None
        except SpecError as error:
            problems.append(_problem("invalid_filter", error.message, (*here, key)))
        else:
            late = filters[key]
            uses |= late.paths if late else frozenset()
            problems += _undeclared(late.paths if late else (), inputs, (*here, key))
    on_error = merged.get("on_error")
    if on_error not in (None, "skip", "error", "raise"):
        problems.append(_problem("parameter_invalid", "on_error is skip or error", (*here, "on_error")))
    batch_size = None
    if merged.get("batch_size") is not None:
        try:
            batch_size = _BATCH_SIZE.validate_python(merged["batch_size"])
        except ValidationError:
            problems.append(
                _problem(
                    "parameter_invalid", "batch_size is a number from 1, or a template of one", (*here, "batch_size")
                )
            )
        else:
            used = batch_size.paths if isinstance(batch_size, Deferred) else frozenset()
            uses |= used
            problems += _undeclared(used, inputs, (*here, "batch_size"))
    if problems:
        return None, problems
    if stage.opaque & parameters.keys() and not (isinstance(params, StageParams) and params.own_templates()):
        # What such a parameter's templates read is the business of whoever runs it: it may be anything.
        uses.add(("INPUT",))
    limits = merged.get("budget_limits") or {}
    category = stage.info.category
    name = str(merged.get("stage_name") or stage.info.id)
    alias = merged.get("output_alias")
    return (
        Declared(
            index,
            name,
            str(merged.get("stage_type") or category).replace("group", "reduce"),
            stage,
            params,
            on_error == "skip",
            filters["when"],
            filters["pre_filters"],
            str(alias) if alias else None,
            batch_size,
            limits.get("max_credits"),
            limits.get("max_time_ms"),
            frozenset(uses),
            {
                "stage_id": stage.info.id,
                "parameters": parameters,
                **{key: merged[key] for key in ("when", "pre_filters", "batch_size") if merged.get(key)},
            },
        ),
        [],
    )


def _undeclared(
    used: Iterable[tuple[str, ...]], inputs: Sequence[str], location: tuple[str | int, ...]
) -> list[Problem]:
    """Inputs that a template uses and the schema does not declare; a schema without inputs leaves them open."""
    names = {path[1] for path in used if path[0] == "INPUT" and len(path) > 1}
    problems = []
    for name in sorted(names - set(inputs)) if inputs else ():
        close = get_close_matches(name, inputs, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"declared are {', '.join(inputs)}"
        message = f"the template uses the input {name!r}, which input_schema does not declare; {hint}"
        problems.append(_problem("unknown_input", message, location))
    return problems


def _texts(
    value: Any, path: tuple[str | int, ...], opaque: frozenset[str], braces: bool
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, str):
        if is_template(value, braces=braces):
            yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if path or key not in opaque:
                yield from _texts(item, (*path, str(key)), opaque, braces)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (*path, index), opaque, braces)


def _parameter_problems(error: ValidationError, model: type[BaseModel], here: tuple[str | int, ...]) -> list[Problem]:
    found: dict[tuple[str | int, ...], Problem] = {}
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        location = item["loc"]
        if any(isinstance(part, str) and part.startswith("function-plain") for part in location):
            # One half of "a template or a value"; the other half says what value is expected.
            continue
        path = tuple(part for part in location if isinstance(part, int) or _is_key(part))
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            name = str(location[-1])
            close = get_close_matches(name, _parameter_names(model, location[:-1]), n=1)
            message = f"unknown parameter {name!r}" + (f"; did you mean {close[0]!r}?" if close else "")
        elif item["type"] == "missing":
            message = f"the parameter {location[-1]!r} is required"
        found.setdefault(path, _problem("parameter_invalid", message, (*here, *path)))
    if not found:
        found[()] = _problem("parameter_invalid", "the parameters are not valid", here)
    return list(found.values())


def _is_key(part: str) -> bool:
    """Whether a part of pydantic's location is a key rather than the name of a type."""
    return part.replace("_", "").isalnum() and part not in (
        "int",
        "float",
        "str",
        "bool",
        "list",
        "dict",
        "constrained",
    )


def _parameter_names(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    current: Any = model
    for part in location:
        if isinstance(part, str) and isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(part)
            current = _model_in(field.annotation) if field is not None else current
    names: list[str] = []
    for name, field in current.model_fields.items():
        names.append(name)
        if isinstance(field.validation_alias, AliasChoices):
            names += [choice for choice in field.validation_alias.choices if isinstance(choice, str)]
    return names


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_in(inner)
        if found is not None:
            return found
    return None


def _problem(code: str, message: str, location: tuple[str | int, ...]) -> Problem:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else (f".{part}" if path else part)
    return Problem(code, message, Place(path=path), location=location)
