"""From a pydantic model to a structural schema, as a CustomResourceDefinition needs it.

No defaults are written: the API server would put them into the spec, which holds only what its owner set.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from mixpeek_operator.core.fields import Immutable
from mixpeek_operator.core.refs import is_model, unwrap
from mixpeek_operator.core.spec import ConditionStatus, SpecModel

Schema = dict[str, Any]
_FREE: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_ANYTHING: Schema = {"x-kubernetes-preserve-unknown-fields": True}
_CEL_WORDS = {
    *("true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function"),
    *("if", "import", "let", "loop", "package", "namespace", "return", "var", "void", "while"),
}
_DEFAULTED_IN_KUBERNETES = {"name", "stage_name"}
"""Required fields that follow from others when a custom resource leaves them out."""
_MAX_TEXT = 65536


def model_schema(model: type[BaseModel], parents: tuple[type[BaseModel], ...] = ()) -> Schema:
    """Return the structural schema of a model. A model inside itself becomes a free-form object."""
    if model in parents:
        return dict(_FREE)
    if model is ConditionStatus:
        return _condition(model)
    properties = {
        str(field.alias or name): field_schema(field, (*parents, model)) for name, field in model.model_fields.items()
    }
    schema: Schema = {"type": "object", "properties": properties}
    required = [str(field.alias or name) for name, field in model.model_fields.items() if _is_required(name, field)]
    if required:
        schema["required"] = required
    if model.model_config.get("extra") == "allow":
        schema["x-kubernetes-preserve-unknown-fields"] = True
    rules = list(_rules(model))
    if rules:
        schema["x-kubernetes-validations"] = rules
    return schema


def field_schema(field: FieldInfo, parents: tuple[type[BaseModel], ...]) -> Schema:
    """Return the schema of one field, described."""
    schema = _value(field.annotation, field.metadata, parents)
    if field.description:
        schema = {"description": _description(field), **schema}
    return schema


def cel_name(name: str) -> str:
    """Return how a CEL expression spells a property: CEL's own words are escaped."""
    return f"__{name}__" if name in _CEL_WORDS else name


def default_of(field: FieldInfo) -> Any:
    """Return the default, None when there is none."""
    value = field.get_default(call_default_factory=False)
    return None if value is PydanticUndefined else value


def _is_required(name: str, field: FieldInfo) -> bool:
    return field.is_required() and name not in _DEFAULTED_IN_KUBERNETES


def _description(field: FieldInfo) -> str:
    text = str(field.description)
    default = default_of(field)
    if default not in (None, "", {}, []):
        text += f" Default: {json.dumps(default)}."
    if field.examples and field.examples[0] not in ([], {}):
        text += f" Example: {json.dumps(respelled(field.annotation, field.examples[0]), ensure_ascii=False)}"
    return text


def respelled(annotation: Any, value: Any) -> Any:
    """Return an example in the spelling of custom resources; keys of users stay as they are."""
    alternatives, _marks = unwrap(annotation)
    for option in alternatives:
        arguments = get_args(option)
        if is_model(option) and isinstance(value, dict):
            fields: Mapping[str, FieldInfo] = option.model_fields
            if value.keys() <= fields.keys():
                return {
                    fields[key].alias or key: respelled(fields[key].annotation, item) for key, item in value.items()
                }
        elif get_origin(option) is list and isinstance(value, list) and arguments:
            return [respelled(arguments[0], item) for item in value]
        elif get_origin(option) is dict and isinstance(value, dict) and len(arguments) == 2:
            return {key: respelled(arguments[1], item) for key, item in value.items()}
    return value


def _value(annotation: Any, metadata: Iterable[Any], parents: tuple[type[BaseModel], ...]) -> Schema:
    alternatives, marks = unwrap(annotation, metadata)
    if len(alternatives) > 1:
        return _union(alternatives, parents)
    option = alternatives[0]
    arguments = get_args(option)
    origin = get_origin(option)
    if is_model(option):
        return model_schema(option, parents)
    if origin is Literal:
        return {"type": "integer" if isinstance(arguments[0], int) else "string", "enum": list(arguments)}
    if origin is list or option is list:
        items = _value(arguments[0], (), parents) if arguments else dict(_ANYTHING)
        schema: Schema = {"type": "array", "items": items}
        if arguments and is_model(arguments[0]) and issubclass(arguments[0], ConditionStatus):
            schema |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
        return schema | _limits(marks, "Items")
    if origin is dict or option is dict:
        if not arguments or arguments[1] is Any:
            return dict(_FREE)
        schema = {"type": "object", "additionalProperties": _value(arguments[1], (), parents)}
        return schema | _limits(marks, "Properties")
    if option is str:
        schema = {"type": "string", "maxLength": _MAX_TEXT} | _limits(marks, "Length")
        pattern = next((found for mark in marks if (found := getattr(mark, "pattern", None))), None)
        return schema | ({"pattern": pattern} if pattern else {})
    if option is bool:
        return {"type": "boolean"}
    if option is int:
        return {"type": "integer", "format": "int64"} | _bounds(marks)
    if option is float:
        return {"type": "number"} | _bounds(marks)
    return dict(_ANYTHING)


def _union(alternatives: tuple[Any, ...], parents: tuple[type[BaseModel], ...]) -> Schema:
    if set(alternatives) == {int, str}:
        return {"x-kubernetes-int-or-string": True}
    if all(is_model(option) for option in alternatives):
        return _merged([option for option in alternatives if is_model(option)], parents)
    if all(get_origin(option) is Literal for option in alternatives):
        return {"type": "string", "enum": [value for option in alternatives for value in get_args(option)]}
    return dict(_ANYTHING)


def _merged(models: list[type[BaseModel]], parents: tuple[type[BaseModel], ...]) -> Schema:
    """A discriminated union: every variant's properties, and a rule for what each requires."""
    schemas = [model_schema(model, parents) for model in models]
    properties: Schema = {}
    for schema in schemas:
        for name, value in schema["properties"].items():
            seen = properties.get(name)
            if seen is not None and "enum" in seen and "enum" in value:
                merged = [*seen["enum"], *(item for item in value["enum"] if item not in seen["enum"])]
                value = {**seen, "enum": merged}
                value["description"] = "One of " + ", ".join(str(item) for item in merged) + "."
                properties[name] = value
            else:
                properties.setdefault(name, value)
    required = [name for name in schemas[0]["required"] if all(name in schema["required"] for schema in schemas)]
    rules: list[Schema] = []
    for model, schema in zip(models, schemas, strict=True):
        tag, value = _tag(model)
        needed = [name for name in schema["required"] if name not in required]
        if needed:
            has = " && ".join(f"has(self.{cel_name(name)})" for name in needed)
            rules.append(
                {
                    "rule": f"self.{tag} != '{value}' || ({has})",
                    "message": f"{tag} {value} needs {', '.join(needed)}",
                }
            )
    rules += [rule for rule in schemas[0].get("x-kubernetes-validations", []) if rule in _shared(schemas)]
    result: Schema = {"type": "object", "properties": properties, "required": required}
    if all(any(isinstance(mark, Immutable) for mark in _marks(model)) for model in models):
        tag, _ = _tag(models[0])
        why = next(mark.why for mark in _marks(models[0]) if isinstance(mark, Immutable))
        rules = [{"rule": f"self.{tag} == oldSelf.{tag}", "message": f"{tag} cannot change: {why}"}, *rules]
    return result | ({"x-kubernetes-validations": _unique(rules)} if rules else {})


def _shared(schemas: list[Schema]) -> list[Schema]:
    first = schemas[0].get("x-kubernetes-validations", [])
    return [rule for rule in first if all(rule in schema.get("x-kubernetes-validations", []) for schema in schemas)]


def _unique(rules: list[Schema]) -> list[Schema]:
    return [rule for index, rule in enumerate(rules) if rule["rule"] not in {item["rule"] for item in rules[:index]}]


def _marks(model: type[BaseModel]) -> tuple[Any, ...]:
    for field in model.model_fields.values():
        alternatives, marks = unwrap(field.annotation, field.metadata)
        if len(alternatives) == 1 and get_origin(alternatives[0]) is Literal and len(get_args(alternatives[0])) == 1:
            return marks
    return ()


def _tag(model: type[BaseModel]) -> tuple[str, str]:
    for name, field in model.model_fields.items():
        alternatives, _found = unwrap(field.annotation, field.metadata)
        values = get_args(alternatives[0])
        if len(alternatives) == 1 and get_origin(alternatives[0]) is Literal and len(values) == 1:
            return str(field.alias or name), str(values[0])
    raise TypeError(f"{model.__name__} has no tag")


def _rules(model: type[BaseModel]) -> Iterable[Schema]:
    """CEL rules: fields that cannot change, then the model's own."""
    for name, field in model.model_fields.items():
        _alternatives, marks = unwrap(field.annotation, field.metadata)
        fixed = next((mark for mark in marks if isinstance(mark, Immutable)), None)
        if fixed is None:
            continue
        alias = str(field.alias or name)
        rule = _unchanged(cel_name(alias), field)
        if fixed.unless is not None:
            beside = cel_name(str(model.model_fields[fixed.unless].alias or fixed.unless))
            rule = f"self.{beside} != oldSelf.{beside} || {rule}"
        yield {"rule": rule, "message": f"{alias} cannot change: {fixed.why}", "fieldPath": f".{alias}"}
    if issubclass(model, SpecModel):
        for rule, message in model.rules:
            yield {"rule": rule, "message": message}


def _unchanged(name: str, field: FieldInfo) -> str:
    if field.is_required():
        return f"self.{name} == oldSelf.{name}"
    default = default_of(field)
    if isinstance(default, str):
        return f"(has(self.{name}) ? self.{name} : '{default}') == (has(oldSelf.{name}) ? oldSelf.{name} : '{default}')"
    return f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})"


def _condition(model: type[BaseModel]) -> Schema:
    properties = {str(field.alias or name): field_schema(field, ()) for name, field in model.model_fields.items()}
    properties["lastTransitionTime"] |= {"format": "date-time"}
    return {"type": "object", "properties": properties, "required": ["type", "status", "reason"]}


def _limits(marks: Iterable[Any], suffix: str) -> Schema:
    schema: Schema = {}
    for mark in marks:
        for item in getattr(mark, "metadata", None) or (mark,):
            if isinstance(item, MinLen):
                schema[f"min{suffix}"] = item.min_length
            elif isinstance(item, MaxLen):
                schema[f"max{suffix}"] = item.max_length
    return schema


def _bounds(marks: Iterable[Any]) -> Schema:
    schema: Schema = {}
    for mark in marks:
        if isinstance(mark, Ge):
            schema["minimum"] = mark.ge
        elif isinstance(mark, Le):
            schema["maximum"] = mark.le
        elif isinstance(mark, Gt):
            schema |= {"minimum": mark.gt, "exclusiveMinimum": True}
        elif isinstance(mark, Lt):
            schema |= {"maximum": mark.lt, "exclusiveMaximum": True}
    return schema
