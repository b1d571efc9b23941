"""Dotted paths into objects and documents, with the spellings that clients use for the same field. Pure."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

_PREFIXES = ("payload.", "object.", "document.")


class _Missing:
    """Type of MISSING, so that None can be a value."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING = _Missing()


def lookup(source: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path, MISSING when there is none.

    A key that holds dots itself wins over the nested reading. List elements are addressed by number.
    """
    if path in source:
        return source[path]
    current: Any = source
    for part in path.split("."):
        if isinstance(current, Mapping) and part in current:
            current = current[part]
        elif isinstance(current, Sequence) and not isinstance(current, str | bytes) and part.isdigit():
            if int(part) >= len(current):
                return MISSING
            current = current[int(part)]
        else:
            return MISSING
    return current


def resolve(source: Mapping[str, Any], path: str) -> Any:
    """Return the value a mapping refers to, MISSING when there is none.

    `payload.title` means `title`, and a user field is found at the root as well as under `metadata`,
    because an object may carry it in either place.
    """
    for candidate in spellings(path):
        value = lookup(source, candidate)
        if value is not MISSING:
            return value
    return MISSING


def spellings(path: str) -> list[str]:
    """Return the paths that may hold what `path` refers to, the most literal first."""
    found = [path]
    for prefix in _PREFIXES:
        if path.startswith(prefix):
            found.append(path[len(prefix) :])
    last = found[-1]
    found.append(last[len("metadata.") :] if last.startswith("metadata.") else f"metadata.{last}")
    return found


def assign(target: MutableMapping[str, Any], path: str, value: Any) -> None:
    """Set the value at a dotted path, making the objects on the way; what is not an object is replaced."""
    *parents, last = path.split(".")
    current = target
    for part in parents:
        child = current.get(part)
        child = dict(child) if isinstance(child, Mapping) else {}
        current[part] = child
        current = child
    current[last] = value
