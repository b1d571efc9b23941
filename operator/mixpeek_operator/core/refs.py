"""What a spec refers to, and which of its fields cannot change: read from the types, compiled once per model.

Works on canonical specs (`core/normal.py`). Specs with mistakes are read as far as they can be.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from mixpeek_operator.core.fields import Immutable, Ref
from mixpeek_operator.core.kind import KindSchema, Reference

Path = tuple[str | int, ...]
_Walk = Callable[[Any, Path, list[Reference]], None]


def references(schema: KindSchema, spec: Mapping[str, Any]) -> list[Reference]:
    """Return every reference in the spec, in the order of the model's fields; free-form parts come last."""
    found: list[Reference] = []
    walk = _model_walk(schema.spec)
    if walk is not None:
        walk(spec, (), found)
    found += schema.free_references(spec)
    return found


def translate(
    spec: Mapping[str, Any], found: Iterable[Reference], mapping: Mapping[tuple[str, str], str]
) -> dict[str, Any]:
    """Return the spec with references replaced: `mapping` is (kind, value written) → value to write.

    A reference that the mapping lacks stays. The spec itself is not changed; untouched parts are shared with it.
    """
    result = dict(spec)
    copied: dict[Path, Any] = {(): result}
    keys: list[Reference] = []
    for item in found:
        if (item.kind, item.value) not in mapping:
            continue
        if item.in_key:
            keys.append(item)
            continue
        owner = _own(copied, item.path[:-1])
        owner[item.path[-1]] = mapping[item.kind, item.value]
    # Keys last: a path through a renamed key would lead nowhere.
    renamed: dict[Path, dict[Any, Any]] = {}
    for item in keys:
        renamed.setdefault(item.path[:-1], {})[item.path[-1]] = mapping[item.kind, item.value]
    for path, names in renamed.items():
        owner = _own(copied, path)
        entries = [(names.get(key, key), value) for key, value in owner.items()]
        owner.clear()
        owner.update(entries)
    return result


def immutable_changes(schema: KindSchema, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """Return (path, why) of every field that differs although it cannot change. An absent field has its default."""
    changes: list[tuple[Path, str]] = []
    _compare(schema.spec, old, new, (), changes)
    return changes


def _own(copied: dict[Path, Any], path: Path) -> Any:
    """Return the container at `path` of the result, copied from the original the first time."""
    if path in copied:
        return copied[path]
    parent = _own(copied, path[:-1])
    value = parent[path[-1]]
    parent[path[-1]] = copied[path] = dict(value) if isinstance(value, dict) else list(value)
    return copied[path]


def unwrap(annotation: Any, metadata: Iterable[Any] = ()) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the alternatives of an annotation without None and Annotated, and all metadata found on the way."""
    marks = list(metadata)
    while get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        marks += more
    if get_origin(annotation) not in (Union, types.UnionType):
        return (annotation,), tuple(marks)
    alternatives: list[Any] = []
    for part in get_args(annotation):
        if part is type(None):
            continue
        inner, more_marks = unwrap(part)
        alternatives += inner
        marks += more_marks
    return tuple(alternatives), tuple(marks)


def is_model(annotation: Any) -> bool:
    """Whether the annotation is a pydantic model."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


@cache
def _model_walk(model: type[BaseModel]) -> _Walk | None:
    return _compile(model, ())


def _compile(model: type[BaseModel], parents: tuple[type[BaseModel], ...]) -> _Walk | None:
    if model in parents:  # a recursive model: none of ours refers to anything below itself
        return None
    fields: list[tuple[str, _Walk]] = []
    for name, field in model.model_fields.items():
        walk = _value_walk(field.annotation, tuple(field.metadata), (*parents, model))
        if walk is not None:
            fields.append((name, walk))
    if not fields:
        return None

    def walk_model(value: Any, path: Path, found: list[Reference]) -> None:
        if isinstance(value, Mapping):
            for name, walk in fields:
                item = value.get(name)
                if item is not None:
                    walk(item, (*path, name), found)

    return walk_model


def _value_walk(annotation: Any, metadata: tuple[Any, ...], parents: tuple[type[BaseModel], ...]) -> _Walk | None:
    alternatives, marks = unwrap(annotation, metadata)
    mark = next((item for item in marks if isinstance(item, Ref)), None)
    if mark is not None:
        return _leaf(mark)
    walks: list[_Walk] = []
    for option in alternatives:
        walk: _Walk | None = None
        arguments = get_args(option)
        if is_model(option):
            walk = _compile(option, parents)
        elif get_origin(option) is list and arguments:
            walk = _items(_value_walk(arguments[0], (), parents))
        elif get_origin(option) is dict and len(arguments) == 2:
            walk = _values(_value_walk(arguments[1], (), parents))
        if walk is not None:
            walks.append(walk)
    return walks[0] if len(walks) == 1 else _any(walks) if walks else None


def _leaf(mark: Ref) -> _Walk:
    kind, ordered = mark.kind, mark.ordered

    def walk(value: Any, path: Path, found: list[Reference]) -> None:
        if isinstance(value, str):
            found.append(Reference(path, kind, value, ordered))

    return walk


def _items(inner: _Walk | None) -> _Walk | None:
    if inner is None:
        return None

    def walk(value: Any, path: Path, found: list[Reference]) -> None:
        if isinstance(value, list):
            for index, item in enumerate(value):
                inner(item, (*path, index), found)

    return walk


def _values(inner: _Walk | None) -> _Walk | None:
    if inner is None:
        return None

    def walk(value: Any, path: Path, found: list[Reference]) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                inner(item, (*path, key), found)

    return walk


def _any(walks: list[_Walk]) -> _Walk:
    """Alternatives of a union: each reads the fields it knows, and what two of them know is one reference."""

    def walk(value: Any, path: Path, found: list[Reference]) -> None:
        seen: set[Path] = set()
        for option in walks:
            several: list[Reference] = []
            option(value, path, several)
            found += [item for item in several if item.path not in seen]
            seen.update(item.path for item in several)

    return walk


@cache
def _immutable_fields(
    model: type[BaseModel],
) -> tuple[tuple[str, Immutable | None, tuple[type[BaseModel], ...], Any], ...]:
    """Return (field, its mark or None, models to look into, default) of the fields that matter."""
    result: list[tuple[str, Immutable | None, tuple[type[BaseModel], ...], Any]] = []
    for name, field in model.model_fields.items():
        alternatives, marks = unwrap(field.annotation, field.metadata)
        fixed = next((mark for mark in marks if isinstance(mark, Immutable)), None)
        models = tuple(option for option in alternatives if is_model(option))
        if fixed is not None or any(_immutable_fields(option) for option in models if option is not model):
            default = field.get_default(call_default_factory=False)
            result.append((name, fixed, models, None if field.is_required() else default))
    return tuple(result)


def _compare(
    model: type[BaseModel], old: Mapping[str, Any], new: Mapping[str, Any], path: Path, changes: list[tuple[Path, str]]
) -> None:
    for name, fixed, models, default in _immutable_fields(model):
        before, after = old.get(name, default), new.get(name, default)
        where = (*path, name)
        if fixed is not None:
            moved = fixed.unless is not None and old.get(fixed.unless) != new.get(fixed.unless)
            if before != after and not moved:
                changes.append((where, fixed.why))
            continue
        seen = {item[0] for item in changes}
        for option in models:
            inner: list[tuple[Path, str]] = []
            _compare(option, before or {}, after or {}, where, inner)
            changes += [item for item in inner if item[0] not in seen]
            seen.update(item[0] for item in inner)
