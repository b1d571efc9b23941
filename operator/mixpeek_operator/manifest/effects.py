"""What a step of a plan touches beyond the declaration itself, in words a person can decide by. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Effects = Callable[[Sequence[str], Mapping[str, Any], bool], list[str]]
"""(changed fields, status, replaced) → what is touched."""

_COLLECTION_INPUT = ("source", "feature_extractor")
_RETRIEVER_ANSWERS = ("stages", "input_schema", "collection_identifiers", "budget_limits")


def effects(kind: str, fields: Sequence[str], status: Mapping[str, Any], *, replaced: bool) -> list[str]:
    """Return what changing `fields` of a resource touches, or replacing it altogether."""
    rule = _RULES.get(kind)
    return rule(fields, status, replaced) if rule else []


def _namespace(fields: Sequence[str], status: Mapping[str, Any], replaced: bool) -> list[str]:
    if replaced:
        return [f"every resource in it, and {_counted(status, 'document', 'points', 'document_count')}, are lost"]
    touched = []
    if "feature_extractors" in fields:
        touched.append("named vectors may be added to its vector collection; nothing is re-embedded")
    if "payload_indexes" in fields:
        touched.append("payload indexes are built over its documents")
    if any("infrastructure" in field or "dedicated" in field for field in fields):
        touched.append("its compute is reconfigured")
    return touched


def _bucket(fields: Sequence[str], status: Mapping[str, Any], replaced: bool) -> list[str]:
    if replaced:
        return [f"{_counted(status, 'object', 'object_count')} with their files are lost"]
    if "bucket_schema" in fields:
        return ["objects already there are not checked against the new schema"]
    return []


def _collection(fields: Sequence[str], status: Mapping[str, Any], replaced: bool) -> list[str]:
    documents = _counted(status, "document", "document_count", "documents")
    if replaced:
        return [f"{documents} and their vectors are lost and have to be made again"]
    if any(field in _COLLECTION_INPUT for field in fields):
        return [f"{documents} to re-embed: those there keep their vectors until their objects are processed again"]
    return []


def _extractor(fields: Sequence[str], status: Mapping[str, Any], replaced: bool) -> list[str]:
    return ["its realtime endpoint restarts", "collections that use it keep the version they pin"]


def _retriever(fields: Sequence[str], status: Mapping[str, Any], replaced: bool) -> list[str]:
    if replaced or any(field in (*_RETRIEVER_ANSWERS, "cache_config") for field in fields):
        return ["its cached answers are dropped"]
    return []


def _cluster(fields: Sequence[str], status: Mapping[str, Any], replaced: bool) -> list[str]:
    return ["earlier runs keep their groups until it runs again"]


def _taxonomy(fields: Sequence[str], status: Mapping[str, Any], replaced: bool) -> list[str]:
    return ["documents keep the labels they have until it runs again"]


_RULES: Mapping[str, Effects] = {
    "Namespace": _namespace,
    "Bucket": _bucket,
    "Collection": _collection,
    "Extractor": _extractor,
    "Taxonomy": _taxonomy,
    "Cluster": _cluster,
    "Retriever": _retriever,
}


def _counted(status: Mapping[str, Any], noun: str, *keys: str) -> str:
    for key in keys:
        count = status.get(key)
        if isinstance(count, int):
            return f"{count:,} {noun}{'' if count == 1 else 's'}"
    return f"all {noun}s"
