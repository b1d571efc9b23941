"""`${{ secrets.NAME }}`: which secrets a manifest needs. Values never come here; they are resolved at use."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from mixpeek_operator.core.catalog import Catalog, Need
from mixpeek_operator.core.errors import Problem
from mixpeek_operator.core.needs import lacking
from mixpeek_operator.manifest.expressions import expressions
from mixpeek_operator.manifest.model import Entry, Manifest
from mixpeek_operator.manifest.text import Path


def referenced(entries: Iterable[Entry]) -> list[tuple[Entry, Path, str]]:
    """Return every reference to a secret: the entry, the path in its spec and the secret's name."""
    return [
        (entry, path, name)
        for entry in entries
        for path, scope, name, _ in expressions(entry.spec)
        if scope == "secrets"
    ]


def names_in(value: Any) -> list[str]:
    """Return the names of the secrets a plain value refers to, in order, each once."""
    return list(dict.fromkeys(name for _, scope, name, _ in expressions(value) if scope == "secrets"))


def missing(manifest: Manifest, configured: Collection[str]) -> list[Problem]:
    """Return one problem per reference to a secret the organization does not have."""
    if not manifest.mentions("${{"):
        return []
    return [
        Problem(
            "missing_secret",
            f"secret {name!r} is not configured; create it with POST /v1/organizations/secrets "
            f'{{"secret_name": "{name}", "secret_value": …}}',
            manifest.place(entry, path),
            location=(*entry.path, *path, name),
        )
        for entry, path, name in referenced(manifest.entries)
        if name not in configured
    ]


def unmet(
    manifest: Manifest, catalog: Catalog, secrets: Collection[str], connections: Collection[str]
) -> list[tuple[Entry, Need]]:
    """Return what a retriever's stages name and the organization does not have.

    A placeholder is none of it: `missing` finds those wherever they are.
    """
    there = {"secret": secrets, "connection": connections}
    found = []
    for entry in manifest.of_kind("Retriever"):
        stages = entry.spec.get("stages")
        needs = catalog.stage_needs(stages) if isinstance(stages, list) else ()
        if lack := lacking(needs, there):
            placeholders = {(path, name) for path, scope, name, _ in expressions(entry.spec) if scope == "secrets"}
            found += [(entry, need) for need in lack if (need.location, need.name) not in placeholders]
    return found


def told(need: Need) -> tuple[str, str]:
    """Return the code and the words for something that a stage needs and that is not there."""
    if need.kind == "secret":
        text = f"secret {need.name!r} is not configured; create it with POST /v1/organizations/secrets"
        return "missing_secret", text
    text = f"there is no connection {need.name!r}; create it with POST /v1/organizations/connections"
    return "missing_connection", text


def problems_of(manifest: Manifest, unmet: Iterable[tuple[Entry, Need]]) -> list[Problem]:
    """Return one problem per need that is not met."""
    return [
        Problem(*told(need), manifest.place(entry, need.location), location=(*entry.path, *need.location, need.name))
        for entry, need in unmet
    ]


def missing_names(problems: Iterable[Problem]) -> list[str]:
    """Return the secrets' names that `missing` found, sorted."""
    return sorted({str(problem.location[-1]) for problem in problems if problem.code == "missing_secret"})
