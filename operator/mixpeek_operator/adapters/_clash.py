"""The refusal of a name that is taken, in the same words from every store."""

from __future__ import annotations

from mixpeek_operator.core.errors import AlreadyExistsError
from mixpeek_operator.core.resource import Resource


def clash(resource: Resource, other: tuple[str, str] | None) -> AlreadyExistsError:
    """Return the error for `resource`; `other` is (`metadata.name`, `spec.name`) of who has the name, when known."""
    where = f" in namespace {resource.namespace!r}" if resource.namespace else ""
    if other is None or other == (resource.metadata.name, resource.name):
        return AlreadyExistsError(f"a {resource.kind} named {resource.name!r} exists already{where}")
    mine = f"{resource.kind} {resource.name!r} ({resource.metadata.name!r})"
    return AlreadyExistsError(f"{mine} clashes with {other[1]!r} ({other[0]!r}){where}; give one of them another name")
