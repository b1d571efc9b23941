"""From a body as written to the canonical spec, and every mistake in it as a Problem that says what to do."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from mixpeek_operator.core.errors import Place, Problem
from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.core.spec import SpecModel, camel

Location = tuple[str | int, ...]

_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "int_from_float": "a whole number",
}


def normalise(schema: KindSchema, body: Any, place: Place | None = None) -> tuple[dict[str, Any], list[Problem]]:
    """Return the canonical spec and every problem of its form.

    With problems, the spec holds the top-level fields that are right, so that later checks (references,
    duplicates) can report their findings too. `Problem.location` is the path as the user wrote it.
    """
    try:
        model = schema.spec.model_validate(body)
    except ValidationError as error:
        found = error.errors(include_url=False)
        where = place or Place()
        problems = [_problem(schema, body, item, where) for item in found]
        return _sound_part(schema, body, {item["loc"][0] for item in found if item["loc"]}), problems
    return model.model_dump(exclude_unset=True, exclude_none=True), []


def to_camel(schema: KindSchema, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a canonical spec in the spelling of custom resources. Raises pydantic's error on a wrong spec."""
    model = schema.spec.model_validate(dict(spec))
    return model.model_dump(by_alias=True, exclude_unset=True, exclude_none=True)


def from_camel(schema: KindSchema, spec: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Return the canonical spec of a custom resource: `normalise`, which reads both spellings."""
    return normalise(schema, dict(spec))


def path_text(location: Location) -> str:
    """Return `stages[0].parameters` for ("stages", 0, "parameters")."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def nearest(word: str, words: list[str]) -> str | None:
    """Return the word that was most likely meant."""
    found = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return found[0] if found else None


def _sound_part(schema: KindSchema, body: Any, wrong: set[Any]) -> dict[str, Any]:
    if not isinstance(body, dict) or not issubclass(schema.spec, SpecModel):
        return {}
    known = schema.spec.model_fields
    by_alias = {camel(name): name for name in known}
    result: dict[str, Any] = {}
    # What it raises is among the problems already; what was written is the sound part then.
    with suppress(PydanticCustomError):
        body = schema.spec.canonical(body)
    for key, value in body.items():
        name = key if key in known else by_alias.get(key) if isinstance(key, str) else None
        if name is not None and name not in wrong and value is not None:
            result[name] = value
    return result


def _problem(schema: KindSchema, body: Any, error: Any, place: Place) -> Problem:
    location = _as_written(schema.spec, body, error["loc"])
    code, message = describe_error(schema.spec, error)
    where = replace(place, path=path_text(location) or place.path)
    return Problem(code, message, where, location=location)


def describe_error(model: type[BaseModel], error: Any) -> tuple[str, str]:
    """Return a code and a message to act on for one of pydantic's errors against `model`."""
    kind: str = error["type"]
    location: Location = error["loc"]
    name = str(location[-1]) if location else ""
    owner, field_name = _owner(model, location)
    if kind == "missing":
        described = owner.model_fields[field_name].description if owner and field_name in owner.model_fields else None
        return "missing_field", f"{name} is required" + (f": {described}" if described else "")
    if kind == "extra_forbidden":
        return "unknown_field", _unknown(owner, name)
    if kind in _TYPES:
        return "wrong_type", f"expected {_TYPES[kind]}, found {_shown(error['input'])}"
    if kind == "literal_error":
        choices = str(error["ctx"]["expected"])
        guess = nearest(str(error["input"]), [part.strip("'") for part in choices.replace(" or ", ", ").split(", ")])
        hint = f"; did you mean {guess}?" if guess else ""
        return "invalid_value", f"expected {choices}, found {_shown(error['input'])}{hint}"
    if kind == "string_pattern_mismatch":
        if name == "name" or name == "namespace":
            return "invalid_value", (
                f"{_shown(error['input'])} is no usable name: letters, digits, spaces, '.', '_' and '-' are "
                "allowed, and it starts and ends with a letter or digit"
            )
        return "invalid_value", f"{_shown(error['input'])} does not have the form {error['ctx']['pattern']}"
    if kind == "invalid_filter":
        return "invalid_filter", str(error["msg"])
    text = str(error["msg"])
    return "invalid_value", text.removeprefix("Value error, ")


def _unknown(owner: type[BaseModel] | None, name: str) -> str:
    if owner is None:
        return f"unknown key {name!r}"
    if issubclass(owner, SpecModel) and name in owner.refused:
        return f"{name} cannot be set here: {owner.refused[name]}"
    known = list(owner.model_fields)
    spellings = [*known, *(camel(field) for field in known), *_aliases(owner)]
    guess = nearest(name, spellings)
    if guess:
        return f"unknown key {name!r}; did you mean {guess!r}?"
    return f"unknown key {name!r}; known keys are {', '.join(known)}"


def _aliases(owner: type[BaseModel]) -> list[str]:
    return list(owner.aliases) if issubclass(owner, SpecModel) else []


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text {value!r}" if len(value) <= 60 else f"the text {value[:57]!r}…"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    # YAML reads an unquoted 2026-01-31 as a date.
    return f"a {type(value).__name__} (put it in quotes to make it text)"


def _models(annotation: Any) -> tuple[type[BaseModel], ...]:
    """Every model directly behind an annotation: through Annotated, unions, lists and mapping values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (annotation,)
    origin = get_origin(annotation)
    if origin is Annotated:
        return _models(get_args(annotation)[0])
    if origin in (Union, types.UnionType, list, dict):
        return tuple(model for part in get_args(annotation) for model in _models(part))
    return ()


def _owner(model: type[BaseModel], location: Location) -> tuple[type[BaseModel] | None, str]:
    """Return the model that holds the last element of a location (pydantic's own, with union tags in it)."""
    owners: tuple[type[BaseModel], ...] = (model,)
    for index, part in enumerate(location):
        last = index == len(location) - 1
        field_owner = next((owner for owner in owners if part in owner.model_fields), None)
        if last:
            if field_owner is not None:
                return field_owner, str(part)
            return (owners[0] if owners else None), str(part)
        if field_owner is not None:
            owners = _models(field_owner.model_fields[str(part)].annotation)
        elif isinstance(part, str):
            tagged = tuple(owner for owner in owners if _tag(owner) == part)
            owners = tagged or owners
    return None, ""


def _tag(model: type[BaseModel]) -> str | None:
    """Return the value of the model's discriminator: the first field that allows one literal only."""
    for field in model.model_fields.values():
        values = get_args(field.annotation)
        if len(values) == 1 and isinstance(values[0], str):
            return values[0]
    return None


def _as_written(model: type[BaseModel], body: Any, location: Location) -> Location:
    """Return the location in the user's own spelling; parts that are not in the body end it or are left out."""
    written: list[str | int] = []
    owners: tuple[type[BaseModel], ...] = (model,)
    current = body
    for index, part in enumerate(location):
        last = index == len(location) - 1
        owner = next((item for item in owners if part in item.model_fields), None)
        if isinstance(current, list) and isinstance(part, int) and part < len(current):
            written.append(part)
            current = current[part]
            continue
        if isinstance(current, dict):
            key, inside = _key_as_written(owners, current, part)
            if key is not None:
                written.extend((*inside, key))
                for step in (*inside, key):
                    current = current[step]
            elif owner is not None or last:
                written.append(part)
                current = None
            else:
                continue  # a union's tag
        elif owner is not None:
            written.append(part)
        if owner is not None:
            owners = _models(owner.model_fields[str(part)].annotation)
    return tuple(written)


def _key_as_written(
    owners: tuple[type[BaseModel], ...], body: dict[Any, Any], part: str | int
) -> tuple[Any, tuple[str, ...]]:
    if part in body:
        return part, ()
    if not isinstance(part, str):
        return None, ()
    if part.startswith("config."):
        return part.removeprefix("config."), ("config",)
    spellings = [camel(part)]
    for owner in owners:
        if issubclass(owner, SpecModel):
            spellings += [alias for alias, field in owner.aliases.items() if field == part]
    for spelling in spellings:
        if spelling in body:
            return spelling, ()
    wrapped = body.get("config")
    if isinstance(wrapped, dict):
        for spelling in (part, *spellings):
            if spelling in wrapped:
                return spelling, ("config",)
    return None, ()
