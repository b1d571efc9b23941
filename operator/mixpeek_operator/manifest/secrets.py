"""`${{ secrets.NAME }}`: which secrets a manifest needs. Values never come here; they are resolved at use."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

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


def missing_names(problems: Iterable[Problem]) -> list[str]:
    """Return the secrets' names that `missing` found, sorted."""
    return sorted({str(problem.location[-1]) for problem in problems if problem.code == "missing_secret"})
