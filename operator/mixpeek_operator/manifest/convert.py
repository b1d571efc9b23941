"""A manifest as Kubernetes documents and back, and what files declare; needs no server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mixpeek_operator.core.errors import BadRequestError, SpecError
from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.manifest import export, kubernetes
from mixpeek_operator.manifest.parse import parse_files
from mixpeek_operator.manifest.registry import schemas
from mixpeek_operator.manifest.resolve import Existing, resolve

TARGETS = ("kubernetes", "manifest")


def convert_files(
    texts: Sequence[tuple[str | None, str]], *, to: str, kinds: Mapping[str, KindSchema] | None = None
) -> str:
    """Return the files as one YAML text in the other form. SpecError with every problem when they are wrong.

    Nothing is lost either way: what Kubernetes has no place for travels in a ConfigMap. Parameters are the one
    exception, because Kubernetes cannot ask for them: their defaults are put in place.
    """
    if to not in TARGETS:
        raise BadRequestError(f"cannot convert to {to!r}; use one of {', '.join(TARGETS)}")
    known = kinds or schemas()
    manifest = parse_files(texts, known)
    if manifest.problems:
        raise SpecError.of(manifest.problems)
    if to == "kubernetes":
        return export.to_yaml_documents(kubernetes.documents(manifest, known))
    return export.to_yaml(export.manifest_body(manifest, known))


def declared_resources(
    texts: Sequence[tuple[str | None, str]], *, kinds: Mapping[str, KindSchema] | None = None
) -> list[tuple[str, str, str | None]]:
    """Return (section, name, namespace) of every resource of the files, each after what it refers to.

    References to what the files do not declare are allowed here. SpecError when the files cannot be read.
    """
    known = kinds or schemas()
    manifest = parse_files(texts, known)
    if manifest.problems:
        raise SpecError.of(manifest.problems)
    entries = resolve(manifest, Existing(()), known).entries
    return [(known[entry.kind].plural, entry.name, entry.namespace) for entry in entries]
