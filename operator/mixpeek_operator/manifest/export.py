"""Existing resources as a manifest: names for ids, placeholders for secrets, always in the same order. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import yaml

from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.core.refs import references, translate
from mixpeek_operator.core.resource import ID_ANNOTATION, Resource
from mixpeek_operator.manifest import kubernetes
from mixpeek_operator.manifest.model import VERSION, Entry, Manifest
from mixpeek_operator.manifest.text import oversized, scalar

DEFAULT_NAME = "exported-manifest"
_LEADING = ("name", "namespace", "description")


def exported(
    resources: Sequence[Resource],
    schemas: Mapping[str, KindSchema],
    *,
    namespaces: Collection[str] | None = None,
    manifest_name: str | None = None,
    statistics: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the manifest of these resources as plain values.

    `namespaces` (ids or names) leaves everything else out; None takes all. Resources being deleted are left out.
    """
    present = [resource for resource in resources if not resource.deleting]
    chosen = [resource for resource in present if namespaces is None or _inside(resource, present, namespaces)]
    names = {resource.id: resource.name for resource in present if resource.id}
    body: dict[str, Any] = {"version": VERSION, "metadata": {"name": manifest_name or DEFAULT_NAME}}
    for schema in schemas.values():
        entries = sorted(
            (resource for resource in chosen if resource.kind == schema.name),
            key=lambda resource: (resource.namespace or "", resource.name),
        )
        if entries:
            body[schema.plural] = [_entry(resource, schema, names) for resource in entries]
    if statistics:
        body["status"] = dict(statistics)
    return body


def manifest_body(manifest: Manifest, schemas: Mapping[str, KindSchema]) -> dict[str, Any]:
    """Return a parsed manifest as plain values again, in the manifest's own order."""
    body: dict[str, Any] = {"version": manifest.version}
    header = kubernetes.header_sections(manifest)
    if "metadata" in header:
        body["metadata"] = header.pop("metadata")
    if "parameters" in header:
        body["parameters"] = header.pop("parameters")
    for schema in schemas.values():
        entries = [_written(entry.spec, schema, entry.kubernetes) for entry in manifest.of_kind(schema.name)]
        if entries:
            body[schema.plural] = entries
    return body | header


def to_yaml(body: Mapping[str, Any]) -> str:
    """Return a manifest as YAML text that `parse` reads back to the same values."""
    return yaml.dump(
        dict(body), Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=110
    )


def to_yaml_documents(documents: Iterable[Mapping[str, Any]]) -> str:
    """Return several documents as one YAML stream."""
    return yaml.dump_all(
        [dict(item) for item in documents],
        Dumper=_Dumper,
        sort_keys=False,
        default_flow_style=False,
        allow_unicode=True,
        width=110,
    )


def to_json(body: Mapping[str, Any]) -> str:
    """Return a manifest as JSON text."""
    return json.dumps(body, ensure_ascii=False, indent=2) + "\n"


def _inside(resource: Resource, every: Sequence[Resource], namespaces: Collection[str]) -> bool:
    if resource.kind == "Namespace":
        return resource.name in namespaces or resource.id in namespaces
    if resource.namespace in namespaces:
        return True
    return any(item.kind == "Namespace" and item.name == resource.namespace and item.id in namespaces for item in every)


def _entry(resource: Resource, schema: KindSchema, names: Mapping[str, str]) -> dict[str, Any]:
    found = references(schema, resource.spec)
    ids = {(item.kind, item.value): names[item.value] for item in found if item.value in names}
    spec = translate(resource.spec, found, ids) if ids else dict(resource.spec)
    metadata = resource.metadata
    entry = Entry(resource.kind, spec, ())
    extra: dict[str, Any] = {}
    if metadata.name != kubernetes.derived_name(entry):
        extra["name"] = metadata.name
    if metadata.labels:
        extra["labels"] = dict(sorted(metadata.labels.items()))
    annotations = {key: value for key, value in sorted(metadata.annotations.items()) if not _is_ours(key)}
    if annotations:
        extra["annotations"] = annotations
    return _written(spec, schema, extra)


def _is_ours(annotation: str) -> bool:
    return annotation.partition("/")[0] == ID_ANNOTATION.partition("/")[0]


def _written(spec: Mapping[str, Any], schema: KindSchema, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry with its fields in the order of the model, whatever order they were set in."""
    order = (*_LEADING, *schema.spec.model_fields)
    entry = {name: spec[name] for name in dict.fromkeys(order) if name in spec}
    entry |= {name: value for name, value in spec.items() if name not in entry}
    return entry | ({"kubernetes": dict(extra)} if extra else {})


class _Dumper(yaml.CSafeDumper):
    """Quotes what either YAML 1.1 or our own reader would take for another type than text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    # A text that our reader takes for a number, and YAML 1.1 does not (`1e3`), needs its quotes asked for.
    quoted = type(scalar(value)) is not str or oversized(value)
    style = "|" if "\n" in value and _fits_block(value) else "'" if quoted else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _fits_block(value: str) -> bool:
    lines = value.split("\n")
    return not value[0].isspace() and all(line == line.rstrip() and line.isprintable() for line in lines)


_Dumper.add_representer(str, _text)
