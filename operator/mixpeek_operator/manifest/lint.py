"""Advice on a manifest that could be applied as it is. One small function per rule; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from mixpeek_operator.core.catalog import Need
from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.core.refs import references
from mixpeek_operator.core.resource import Resource
from mixpeek_operator.manifest.model import Entry, Manifest
from mixpeek_operator.manifest.secrets import referenced
from mixpeek_operator.manifest.text import path_text

ERROR, WARNING, INFO = "error", "warning", "info"

_SEARCHES = ("feature_search", "agent_search", "external_web_search")
_FILTERS = ("attribute_filter",)
_COSTLY = (
    "llm_filter", "llm_enrich", "rerank", "summarize", "agentic_enrich", "cross_compare", "external_web_search",
    "api_call", "web_scrape", "code_execution", "document_enrich", "taxonomy_enrich",
)  # fmt: skip
_LLM = ("llm_filter", "llm_enrich", "summarize", "agentic_enrich", "agent_search", "query_expand", "cross_compare")


@dataclass(frozen=True, slots=True)
class Advice:
    """One finding of a rule, as `LintResult` of the wire."""

    code: str
    severity: str
    message: str
    location: str
    suggestion: str
    fix_example: str | None = None

    def wire(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "location": self.location,
            "suggestion": self.suggestion,
            "fix_example": self.fix_example,
        }


@dataclass(frozen=True, slots=True)
class View:
    """What the rules see: the manifest, what exists beside it, and the names of the secrets there are."""

    manifest: Manifest
    schemas: Mapping[str, KindSchema]
    secrets: Collection[str] = ()
    observed: Sequence[Resource] = ()
    unmet: Sequence[tuple[Entry, Need]] = ()
    """What stages need and the organization does not have."""

    def namespace(self, name: str | None) -> Mapping[str, Any] | None:
        """Spec of a namespace, as the manifest declares it, else as it exists."""
        for entry in self.manifest.of_kind("Namespace"):
            if entry.name == name:
                return entry.spec
        for resource in self.observed:
            if resource.kind == "Namespace" and resource.name == name:
                return resource.spec
        return None


Rule = Callable[[View], Iterator[Advice]]


def lint(view: View, skip_rules: Collection[str] = ()) -> list[Advice]:
    """Return all advice in file order of the rules' own list; `skip_rules` holds codes to leave out."""
    return [advice for code, rule in RULES if code not in skip_rules for advice in rule(view)]


def response(found: Sequence[Advice]) -> dict[str, Any]:
    """Return the wire's `LintResponse`."""
    counts = Counter(advice.severity for advice in found)
    return {
        "valid": counts[ERROR] == 0,
        "results": [advice.wire() for advice in found],
        "summary": {severity: counts[severity] for severity in (ERROR, WARNING, INFO)},
    }


def _unused_extractor(view: View) -> Iterator[Advice]:
    used = {
        (entry.namespace, name)
        for entry in view.manifest.of_kind("Collection")
        if (name := _extractor_of(entry.spec)[0])
    }
    used |= {
        (resource.namespace, name)
        for resource in view.observed
        if resource.kind == "Collection" and (name := _extractor_of(resource.spec)[0])
    }
    for entry in view.manifest.of_kind("Namespace"):
        for index, extractor in enumerate(_list(entry.spec.get("feature_extractors"))):
            name = _extractor_name(extractor)
            if name and (entry.name, name) not in used:
                yield Advice(
                    "UNUSED_EXTRACTOR",
                    WARNING,
                    f"Feature extractor '{name}' in namespace '{entry.name}' is not used by any collection",
                    f"{entry.location}.feature_extractors[{index}]",
                    "Remove the unused extractor or add a collection that uses it",
                    _example("collections", {"name": "documents", "namespace": entry.name,
                                             "feature_extractor": {"feature_extractor_name": name}}),
                )  # fmt: skip


def _unused_collection(view: View) -> Iterator[Advice]:
    used: set[tuple[str | None, str]] = set()
    for kind in ("Retriever", "Collection", "Taxonomy", "Cluster"):
        declared = [(entry.namespace, entry.spec) for entry in view.manifest.of_kind(kind)]
        existing = [(item.namespace, item.spec) for item in view.observed if item.kind == kind]
        for namespace, spec in declared + existing:
            used |= {
                (namespace, reference.value)
                for reference in references(view.schemas[kind], spec)
                if reference.kind == "Collection"
            }
    for entry in view.manifest.of_kind("Collection"):
        if (entry.namespace, entry.name) not in used:
            yield Advice(
                "UNUSED_COLLECTION",
                INFO,
                f"Collection '{entry.name}' is not referenced by any retriever",
                entry.location,
                "Add a retriever that searches it, or remove the collection",
                _example("retrievers", {"name": f"{entry.name}_search", "namespace": entry.namespace,
                                        "collection_identifiers": [entry.name]}),
            )  # fmt: skip


def _missing_input_schema(view: View) -> Iterator[Advice]:
    for entry in view.manifest.of_kind("Retriever"):
        name = _first_input(entry.spec.get("stages"))
        if name is not None and not entry.spec.get("input_schema"):
            yield Advice(
                "MISSING_INPUT_SCHEMA",
                WARNING,
                f"Retriever '{entry.name}' uses the input '{name}' in a template but has no input_schema",
                entry.location,
                "Declare every input, so that a call with a wrong one is refused",
                _plain({"input_schema": {name: {"type": "string", "required": True}}}),
            )


def _missing_cache_config(view: View) -> Iterator[Advice]:
    for entry in view.manifest.of_kind("Retriever"):
        if entry.spec.get("cache_config"):
            continue
        llm = next((stage for stage in map(_stage_id, _stages(entry.spec)) if stage in _LLM), None)
        extra = f" although its stage '{llm}' calls a language model" if llm else ""
        yield Advice(
            "MISSING_CACHE_CONFIG",
            WARNING if llm else INFO,
            f"Retriever '{entry.name}' has no cache configuration{extra}",
            entry.location,
            "Add cache_config to improve performance",
            _plain({"cache_config": {"enabled": True, "ttl_seconds": 3600}}),
        )


def _suboptimal_stage_order(view: View) -> Iterator[Advice]:
    for entry in view.manifest.of_kind("Retriever"):
        costly: str | None = None
        for index, stage in enumerate(_stages(entry.spec)):
            stage_id = _stage_id(stage)
            if stage_id in _COSTLY:
                costly = costly or stage_id
            elif stage_id in _FILTERS and costly is not None and not _made_by_stage(stage):
                yield Advice(
                    "SUBOPTIMAL_STAGE_ORDER",
                    WARNING,
                    f"Stage '{stage_id}' of retriever '{entry.name}' filters after the expensive stage '{costly}'",
                    f"{entry.location}.stages[{index}]",
                    f"Move the filter before '{costly}', so that fewer documents reach it",
                )


def _duplicate_feature_uri(view: View) -> Iterator[Advice]:
    for entry in view.manifest.of_kind("Retriever"):
        seen: dict[str, str] = {}
        for index, stage in enumerate(_stages(entry.spec)):
            for number, search in enumerate(_list(_parameters(stage).get("searches"))):
                if not isinstance(search, dict):
                    continue
                key = repr((search.get("feature_uri"), search.get("query"), search.get("filters")))
                where = f"{entry.location}.stages[{index}].searches[{number}]"
                if search.get("feature_uri") and key in seen:
                    yield Advice(
                        "DUPLICATE_FEATURE_URI",
                        WARNING,
                        f"Retriever '{entry.name}' searches {search['feature_uri']} with the same query more than once",
                        where,
                        f"Remove one of the searches; the first is at {seen[key]}",
                    )
                seen.setdefault(key, where)


def _missing_description(view: View) -> Iterator[Advice]:
    for entry in view.manifest.entries:
        fields = view.schemas[entry.kind].spec.model_fields
        if "description" in fields and not entry.spec.get("description"):
            yield Advice(
                "MISSING_DESCRIPTION",
                INFO,
                f"{entry.kind} '{entry.name}' has no description",
                entry.location,
                "Say what it is for, in one sentence",
                _plain({"name": entry.name, "description": "What it holds and who uses it"}),
            )


def _no_search_stage(view: View) -> Iterator[Advice]:
    for entry in view.manifest.of_kind("Retriever"):
        stages = [_stage_id(stage) for stage in _stages(entry.spec)]
        if not any(stage in (*_SEARCHES, *_FILTERS) for stage in stages):
            yield Advice(
                "NO_SEARCH_STAGE",
                WARNING,
                f"Retriever '{entry.name}' has no search stage",
                entry.location,
                "Begin with feature_search or attribute_filter, which bring in documents",
                _plain({"stages": [{"stage_name": "search", "config": {"stage_id": "feature_search"}}]}),
            )


def _extractor_not_in_namespace(view: View) -> Iterator[Advice]:
    for entry, name, version in extractors_not_in_namespace(view):
        yield Advice(
            "EXTRACTOR_NOT_IN_NAMESPACE",
            ERROR,
            f"Collection '{entry.name}' uses extractor '{name}', which namespace '{entry.namespace}' does not list",
            f"{entry.location}.feature_extractor",
            f"Add the extractor to feature_extractors of namespace '{entry.namespace}'",
            _plain({"feature_extractors": [{"name": name, "version": version or "v1"}]}),
        )


def extractors_not_in_namespace(view: View) -> Iterator[tuple[Entry, str, str | None]]:
    """Yield each collection with the extractor its namespace lists not; a namespace that lists none allows all."""
    allowed: dict[str | None, set[tuple[str, str | None]] | None] = {}
    for entry in view.manifest.of_kind("Collection"):
        if entry.namespace not in allowed:
            spec = view.namespace(entry.namespace)
            listed = _list(spec.get("feature_extractors")) if spec is not None else []
            allowed[entry.namespace] = {_extractor_key(item) for item in listed} or None
        names = allowed[entry.namespace]
        name, version = _extractor_of(entry.spec)
        if names is None or not name:
            continue
        if (name, version) in names or (name, None) in names:
            continue
        if version is None and any(listed == name for listed, _ in names):
            continue
        yield entry, name, version


def _missing_secret(view: View) -> Iterator[Advice]:
    placeholders = referenced(view.manifest.entries) if view.manifest.mentions("${{") else []
    named = [(entry, need.location, need.name) for entry, need in view.unmet if need.kind == "secret"]
    for entry, path, name in [*placeholders, *named]:
        if name not in view.secrets:
            yield Advice(
                "MISSING_SECRET",
                ERROR,
                f"Secret '{name}' is referred to by {entry.label} and is not configured",
                f"{entry.location}.{path_text(path)}",
                f"Create the secret '{name}' in the organization before applying",
            )


def _missing_connection(view: View) -> Iterator[Advice]:
    for entry, need in view.unmet:
        if need.kind == "connection":
            yield Advice(
                "MISSING_CONNECTION",
                ERROR,
                f"Connection '{need.name}' is referred to by {entry.label} and does not exist",
                f"{entry.location}.{path_text(need.location)}",
                f"Create the connection '{need.name}' in the organization before applying",
            )


RULES: tuple[tuple[str, Rule], ...] = (
    ("UNUSED_EXTRACTOR", _unused_extractor),
    ("UNUSED_COLLECTION", _unused_collection),
    ("MISSING_INPUT_SCHEMA", _missing_input_schema),
    ("MISSING_CACHE_CONFIG", _missing_cache_config),
    ("SUBOPTIMAL_STAGE_ORDER", _suboptimal_stage_order),
    ("DUPLICATE_FEATURE_URI", _duplicate_feature_uri),
    ("MISSING_DESCRIPTION", _missing_description),
    ("NO_SEARCH_STAGE", _no_search_stage),
    ("EXTRACTOR_NOT_IN_NAMESPACE", _extractor_not_in_namespace),
    ("MISSING_SECRET", _missing_secret),
    ("MISSING_CONNECTION", _missing_connection),
)


def _stages(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [stage for stage in _list(spec.get("stages")) if isinstance(stage, dict)]


def _stage_id(stage: Mapping[str, Any]) -> str:
    config = stage.get("config")
    inner = config.get("stage_id") if isinstance(config, dict) else None
    return str(inner or stage.get("stage_id") or stage.get("stage_name") or "")


def _parameters(stage: Mapping[str, Any]) -> Mapping[str, Any]:
    config = stage.get("config")
    for holder in (config if isinstance(config, dict) else {}, stage):
        if isinstance(holder.get("parameters"), dict):
            found: Mapping[str, Any] = holder["parameters"]
            return found
    return {}


def _made_by_stage(stage: Mapping[str, Any]) -> bool:
    """Whether the filter reads a field that only an earlier stage can have made; then it cannot move up."""
    return "metadata." not in repr(_parameters(stage)) and any(
        word in repr(_parameters(stage)) for word in ("enriched", "score", "llm_", "generated", "STAGE")
    )


def _first_input(value: Any) -> str | None:
    """Name of the first input a template uses: `{{INPUT.query}}` or `{{inputs.query}}`."""
    if isinstance(value, str):
        for opening in ("INPUT.", "inputs."):
            before, found, after = value.partition(opening)
            if found and "{" in before:
                name = after.split("}")[0].split(" ")[0].split("|")[0].split(".")[0].strip()
                return name or None
        return None
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((name for name in map(_first_input, children) if name is not None), None)


def _extractor_of(spec: Mapping[str, Any]) -> tuple[str, str | None]:
    extractor = spec.get("feature_extractor")
    return _extractor_key(extractor) if isinstance(extractor, dict) else ("", None)


def _extractor_key(extractor: Any) -> tuple[str, str | None]:
    version = extractor.get("version") if isinstance(extractor, dict) else None
    return _extractor_name(extractor), None if version is None else str(version)


def _extractor_name(extractor: Any) -> str:
    if not isinstance(extractor, dict):
        return str(extractor or "")
    return str(extractor.get("feature_extractor_name") or extractor.get("name") or "")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _example(section: str, entry: Mapping[str, Any]) -> str:
    return _plain({section: [dict(entry)]})


def _plain(value: Any) -> str:
    return yaml.dump(value, Dumper=yaml.CSafeDumper, sort_keys=False, default_flow_style=False).rstrip("\n")
