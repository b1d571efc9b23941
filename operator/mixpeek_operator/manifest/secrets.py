"""`${{ secrets.NAME }}`: which secrets a manifest needs. Values never come here; they are resolved at use."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from mixpeek_operator.core.catalog import Catalog, Need
from mixpeek_operator.core.errors import Problem
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


def lacking(
    needs: Iterable[Need], secrets: Collection[str], connections: Collection[str]
) -> list[tuple[Need, str, str]]:
    """Return what stages need and the organization does not have, each with the code and the words for it."""
    found = []
    for need in needs:
        if need.kind == "secret" and need.name not in secrets:
            text = f"secret {need.name!r} is not configured; create it with POST /v1/organizations/secrets"
            found.append((need, "missing_secret", text))
        elif need.kind == "connection" and need.name not in connections:
            text = f"there is no connection {need.name!r}; create it with POST /v1/organizations/connections"
            found.append((need, "missing_connection", text))
    return found


def unmet(
    manifest: Manifest, catalog: Catalog, secrets: Collection[str], connections: Collection[str]
) -> list[Problem]:
    """Return one problem per secret or connection that a retriever's stages name and the organization does not have."""
    problems = []
    for entry in manifest.of_kind("Retriever"):
        stages = entry.spec.get("stages")
        needs = catalog.stage_needs(stages) if isinstance(stages, list) else ()
        for need, code, text in lacking(needs, secrets, connections):
            place = manifest.place(entry, need.location)
            problems.append(Problem(code, text, place, location=(*entry.path, *need.location, need.name)))
    return problems


def missing_names(problems: Iterable[Problem]) -> list[str]:
    """Return the secrets' names that `missing` found, sorted."""
    return sorted({str(problem.location[-1]) for problem in problems if problem.code == "missing_secret"})
