"""Declared `parameters` of a manifest: the values given are checked, then stand where `${{ params.NAME }}` was."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mixpeek_operator.core.errors import Place, Problem
from mixpeek_operator.manifest.expressions import expressions, replaced
from mixpeek_operator.manifest.model import ParameterSpec
from mixpeek_operator.manifest.text import Path

SCOPES = ("params", "parameters")
_UNSET: Any = object()


def bind(
    specs: Sequence[ParameterSpec], given: Mapping[str, Any], place: Callable[[Path], Place]
) -> tuple[dict[str, Any], list[Problem]]:
    """Return the value of every declared parameter that has one, and every problem with the values given.

    `place` says where a path of the manifest stands.
    """
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    declared = {spec.name for spec in specs}

    def report(code: str, message: str, path: Path) -> None:
        problems.append(Problem(code, message, place(path), location=path))

    for name in given:
        if name not in declared:
            hint = difflib.get_close_matches(name, declared, 1)
            also = f"; did you mean {hint[0]!r}?" if hint else ""
            report("unknown_parameter", f"the manifest declares no parameter {name!r}{also}", ("parameters",))
    seen: set[str] = set()
    for index, spec in enumerate(specs):
        path: Path = ("parameters", index)
        if spec.name in seen:
            report("duplicate_name", f"parameter {spec.name!r} is declared twice", (*path, "name"))
        seen.add(spec.name)
        if spec.items is not None and spec.type != "array":
            report("bad_parameter", f"'items' is for arrays; {spec.name!r} is of type {spec.type}", (*path, "items"))
        if spec.default is not None and (wrong := _mismatch(spec, spec.default)):
            report("bad_parameter", f"the default of parameter {spec.name!r} {wrong}", (*path, "default"))
        value = given.get(spec.name, _UNSET)
        if value is _UNSET:
            if spec.default is not None:
                values[spec.name] = spec.default
            elif spec.required:
                what = f" ({spec.description})" if spec.description else ""
                values[spec.name] = _stand_in(spec)
                report("missing_parameter", f"parameter {spec.name!r}{what} needs a value of type {spec.type}", path)
            continue
        if wrong := _mismatch(spec, value):
            values[spec.name] = _stand_in(spec)
            report("bad_parameter", f"the value of parameter {spec.name!r} {wrong}", path)
        else:
            values[spec.name] = value
    return values, problems


def substitute(
    value: Any, specs: Sequence[ParameterSpec], values: Mapping[str, Any], place: Callable[[Path], Place]
) -> tuple[Any, list[Problem]]:
    """Return `value` with parameters replaced, and a problem per expression that names none of ours.

    An expression that is all of a text keeps the parameter's type. A parameter that is not required and has no
    value becomes null there and "" inside a longer text.
    """
    problems: list[Problem] = []
    declared = {spec.name: spec for spec in specs}
    found = False
    for path, scope, name, text in expressions(value):
        if scope in SCOPES:
            found = True
            if name not in declared:
                hint = difflib.get_close_matches(name, declared, 1)
                also = f"; did you mean {hint[0]!r}?" if hint else "; declare it under 'parameters'"
                message = f"{text} names no declared parameter{also}"
                problems.append(Problem("unknown_parameter", message, place(path)))
        elif scope != "secrets":
            message = f"{text} is not understood; use ${{{{ secrets.NAME }}}} or ${{{{ params.NAME }}}}"
            problems.append(Problem("unknown_expression", message, place(path)))
    if not found or problems:
        return value, problems

    def replace(scope: str, name: str, whole: bool) -> Any:
        if scope not in SCOPES:
            return None
        if name in values:
            return values[name]
        return None if declared[name].required else _Null if whole else ""

    return _nulled(replaced(value, replace)), problems


class _Null:
    """Stands for null, which `replaced` takes for "keep as written"."""


def _nulled(value: Any) -> Any:
    if value is _Null:
        return None
    if isinstance(value, dict):
        return {key: _nulled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_nulled(item) for item in value]
    return value


def _stand_in(spec: ParameterSpec) -> Any:
    """Return some value of the right type for one that is missing, so that only the value itself is reported."""
    if spec.default is not None and not _mismatch(spec, spec.default):
        return spec.default
    if spec.enum is not None:
        return list(spec.enum) if spec.type == "array" else spec.enum[0]
    return {"string": "x", "integer": 1, "number": 1, "boolean": True, "array": []}[spec.type]


def _mismatch(spec: ParameterSpec, value: Any) -> str:
    if spec.type == "array":
        if not isinstance(value, list):
            return f"must be an array, not {_type_name(value)}"
        wrong = next((item for item in value if not _is(spec.items or "string", item)), _UNSET)
        if wrong is not _UNSET:
            return f"must hold items of type {spec.items or 'string'}, not {_type_name(wrong)}"
        chosen = value
    elif not _is(spec.type, value):
        return f"must be of type {spec.type}, not {_type_name(value)}"
    else:
        chosen = [value]
    if spec.enum is not None:
        for item in chosen:
            if not any(item == allowed and type(item) is type(allowed) for allowed in spec.enum):
                return f"must be one of {', '.join(map(repr, spec.enum))}"
    return ""


def _is(type_name: str, value: Any) -> bool:
    if type_name == "string":
        return isinstance(value, str)
    if type_name == "boolean":
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    return isinstance(value, int) if type_name == "integer" else isinstance(value, (int, float))


def _type_name(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")
