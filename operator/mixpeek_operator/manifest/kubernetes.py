"""The same manifest as Kubernetes documents: one per resource, camelCase specs, and a ConfigMap for the rest.

`documents` and `parse` are inverse: what a manifest says and Kubernetes has no place for (its parameters, seeds
and acceptance steps) travels in the ConfigMap, and what Kubernetes metadata says beyond the spec travels in the
entry's `kubernetes` key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.core.normal import to_camel
from mixpeek_operator.core.resource import API_GROUP, API_VERSION, metadata_name
from mixpeek_operator.manifest.model import Entry, Manifest

DOCUMENT_KEYS = ("apiVersion", "kind", "metadata", "spec", "status")
HEADER_LABEL = f"{API_GROUP}/manifest"
_HEADER_SECTIONS = ("metadata", "parameters", "seed", "acceptance")
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_NOT_A_LABEL = re.compile(r"[^a-z0-9.-]+")


class Extra(BaseModel):
    """Kubernetes metadata of an entry that its spec does not determine."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str | None = Field(
        default=None, min_length=1, description="metadata.name when it is not `<namespace>.<name>`."
    )
    namespace: str | None = Field(default=None, description="Kubernetes namespace: the organization.")
    labels: dict[str, str] | None = Field(default=None, description="Labels of the resource.")
    annotations: dict[str, str] | None = Field(default=None, description="Annotations of the resource.")


def is_document(body: Any) -> bool:
    """Whether a document is a Kubernetes one."""
    return isinstance(body, dict) and "apiVersion" in body and "kind" in body


def is_header(body: Any) -> bool:
    """Whether it is the ConfigMap that carries a manifest's own sections."""
    if not is_document(body) or body["kind"] != "ConfigMap" or not isinstance(body.get("metadata"), dict):
        return False
    return HEADER_LABEL in (body["metadata"].get("labels") or {})


def name_of(body: Mapping[str, Any]) -> Any:
    """Name of the resource of a document as its users write it."""
    spec, metadata = body.get("spec"), body.get("metadata")
    if isinstance(spec, dict) and spec.get("name") is not None:
        return spec["name"]
    return metadata.get("name") if isinstance(metadata, dict) else None


def extra_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a document's metadata is worth keeping; what the API server writes is not."""
    extra = {key: metadata[key] for key in ("name", "namespace", "labels", "annotations") if metadata.get(key)}
    annotations = extra.get("annotations")
    if isinstance(annotations, dict) and _LAST_APPLIED in annotations:
        extra["annotations"] = {key: value for key, value in annotations.items() if key != _LAST_APPLIED}
        if not extra["annotations"]:
            del extra["annotations"]
    return extra


def derived_name(entry: Entry) -> str:
    """The metadata.name an entry has when nobody chose another."""
    return metadata_name(entry.namespace, entry.name)


def read_header(body: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return the manifest's sections of a header ConfigMap, and (key, message) of what cannot be read."""
    data = body.get("data") if isinstance(body.get("data"), dict) else {}
    sections: dict[str, Any] = {}
    problems: list[tuple[str, str]] = []
    for key, text in dict(data or {}).items():
        if key == "version":
            continue
        if key not in _HEADER_SECTIONS:
            problems.append((key, f"unknown section {key!r} in the manifest's ConfigMap"))
            continue
        try:
            sections[key] = json.loads(text)
        except (TypeError, ValueError):
            problems.append((key, f"section {key!r} of the manifest's ConfigMap is not JSON text"))
    return sections, problems


def documents(manifest: Manifest, schemas: Mapping[str, KindSchema]) -> list[dict[str, Any]]:
    """Return the manifest as Kubernetes documents, in its own order; `kubectl apply` takes them as they are.

    Parameters are not among them: parsing has put their values in place, and Kubernetes knows none.
    """
    header = _header(manifest)
    return ([header] if header else []) + [_document(entry, schemas[entry.kind]) for entry in manifest.entries]


def _document(entry: Entry, schema: KindSchema) -> dict[str, Any]:
    extra = entry.kubernetes
    metadata: dict[str, Any] = {"name": extra.get("name") or derived_name(entry)}
    metadata |= {key: extra[key] for key in ("namespace", "labels", "annotations") if key in extra}
    return {
        "apiVersion": API_VERSION,
        "kind": entry.kind,
        "metadata": metadata,
        "spec": to_camel(schema, entry.spec),
    }


def _header(manifest: Manifest) -> dict[str, Any] | None:
    sections = {key: value for key, value in header_sections(manifest).items() if key != "parameters"}
    if not sections:
        return None
    name = _NOT_A_LABEL.sub("-", str(manifest.metadata.get("name") or "manifest").lower()).strip("-.")
    data = {"version": manifest.version}
    data |= {key: json.dumps(value, ensure_ascii=False, sort_keys=True) for key, value in sections.items()}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"mixpeek-manifest-{name or 'manifest'}"[:253], "labels": {HEADER_LABEL: "header"}},
        "data": data,
    }


def header_sections(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest's own sections that hold something, as plain values."""
    sections: dict[str, Any] = {}
    if manifest.metadata:
        sections["metadata"] = manifest.metadata
    if manifest.parameters:
        sections["parameters"] = [item.model_dump(exclude_unset=True) for item in manifest.parameters]
    if manifest.seed:
        sections["seed"] = [item.model_dump(exclude_unset=True) for item in manifest.seed]
    if manifest.acceptance is not None:
        sections["acceptance"] = manifest.acceptance.model_dump(exclude_unset=True)
    return sections
