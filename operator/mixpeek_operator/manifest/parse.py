"""A manifest file, or a stream of Kubernetes documents, becomes entries in canonical form.

Every problem is reported at once, each with file, line, column, resource and path. References, the catalog and
secrets are not looked at here: that needs more than one file to decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ValidationError

from mixpeek_operator.core.errors import Place, Problem
from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.core.normal import nearest, normalise
from mixpeek_operator.core.resource import API_GROUP, API_VERSION
from mixpeek_operator.manifest import kubernetes, parameters
from mixpeek_operator.manifest.acceptance import refusals
from mixpeek_operator.manifest.model import VERSION, AcceptanceSpec, Entry, Manifest, ParameterSpec, SeedSpec
from mixpeek_operator.manifest.text import MAX_BYTES, Path, Source, read

_HEADER = ("version", "metadata", "parameters", "seed", "acceptance", "status")
_IGNORED_SECTION = "status"
"""Written by an export with statistics; says nothing that could be applied."""


def parse(
    text: str | bytes,
    schemas: Mapping[str, KindSchema],
    *,
    file: str | None = None,
    values: Mapping[str, Any] | None = None,
    max_bytes: int = MAX_BYTES,
) -> Manifest:
    """Return the manifest of one file; see `parse_files`."""
    return parse_files(((file, text),), schemas, values=values, max_bytes=max_bytes)


def parse_files(
    files: Sequence[tuple[str | None, str | bytes]],
    schemas: Mapping[str, KindSchema],
    *,
    values: Mapping[str, Any] | None = None,
    max_bytes: int = MAX_BYTES,
) -> Manifest:
    """Return the manifest that one or several files make together, with all its problems.

    `values` are those of the declared parameters. Raises TooLargeError before reading files that are together
    longer than `max_bytes`.
    """
    sources: list[Source] = []
    for file, text in files:
        source = read(text, file=file, max_bytes=max_bytes)
        max_bytes = max(max_bytes - len(source.text), 0)
        sources.append(source)
    manifest = Manifest(sources, problems=[problem for source in sources for problem in source.problems])
    _Reader(manifest, schemas, values or {}).run()
    _check_names(manifest)
    return manifest


@dataclass(frozen=True, slots=True)
class _Document:
    """One document: its file, its number there, and what it holds."""

    source: int
    index: int
    body: Any


@dataclass(slots=True)
class _Reader:
    manifest: Manifest
    schemas: Mapping[str, KindSchema]
    values: Mapping[str, Any]
    substitutes: bool = False
    bound: Mapping[str, Any] | None = None
    default_namespace: str | None = None

    def run(self) -> None:
        sources = self.manifest.sources
        documents = [
            _Document(number, index, body)
            for number, source in enumerate(sources)
            for index, body in enumerate(source.documents)
            if body is not None
        ]
        if not documents:
            if not self.manifest.problems:
                self.manifest.problems.append(
                    Problem("empty_manifest", "the manifest is empty", Place(sources[0].file if sources else None))
                )
            return
        self.substitutes = self.manifest.mentions("${{")
        headers = [item for item in documents if kubernetes.is_header(item.body)]
        plain = [item for item in documents if not kubernetes.is_document(item.body)]
        sections = [self._kubernetes_header(item) for item in headers] + [self._header(item) for item in plain]
        self._bind(sections)
        self.default_namespace = self._only_namespace(documents)
        for document in documents:
            if document in headers:
                self._trailer(kubernetes.read_header(document.body)[0], document)
            elif kubernetes.is_document(document.body):
                self._kubernetes(document)
            else:
                self._manifest(document)

    # -- the manifest dialect ----------------------------------------------------------------------------------

    def _header(self, document: _Document) -> tuple[list[ParameterSpec], _Document]:
        body = document.body
        if not isinstance(body, dict):
            self.report("wrong_type", f"a manifest is a mapping of sections, not {_type_name(body)}", (), document)
            return [], document
        sections = {schema.plural for schema in self.schemas.values()}
        for key in body:
            if key not in sections and key not in _HEADER:
                guess = nearest(key, [*sorted(sections), *_HEADER])
                hint = f"did you mean {guess!r}?" if guess else f"sections are {', '.join(sorted(sections))}"
                self.report("unknown_key", f"unknown section {key!r}; {hint}", (key,), document)
        version = body.get("version", VERSION)
        if isinstance(version, bool) or str(version) not in (VERSION, "1"):
            self.report(
                "unsupported_version", f'version {version!r} is not known; write "{VERSION}"', ("version",), document
            )
        metadata = body.get("metadata")
        if metadata is not None and not isinstance(metadata, dict):
            self.report("wrong_type", f"metadata is a mapping, not {_type_name(metadata)}", ("metadata",), document)
        elif metadata:
            name = metadata.get("name")
            if name is not None and not isinstance(name, str):
                message = f"the manifest's name is text, not {_type_name(name)}; put it in quotes"
                self.report("wrong_type", message, ("metadata", "name"), document)
            self.manifest.metadata = {**metadata, **self.manifest.metadata}
        return self._models("parameters", body.get("parameters"), ParameterSpec, document), document

    def _manifest(self, document: _Document) -> None:
        body = document.body
        if not isinstance(body, dict):
            return
        for schema in self.schemas.values():
            entries = body.get(schema.plural)
            if entries is None:
                continue
            if not isinstance(entries, list):
                message = f"{schema.plural} is a list of entries, not {_type_name(entries)}"
                self.report("wrong_type", message, (schema.plural,), document)
                continue
            for index, entry in enumerate(entries):
                self._entry(schema, entry, (schema.plural, index), document)
        self._trailer(body, document)

    def _trailer(self, body: Mapping[str, Any], document: _Document) -> None:
        seeds = self._filled(body.get("seed"), ("seed",), document)
        self.manifest.seed += self._models("seed", seeds, SeedSpec, document)
        acceptance = self._filled(body.get("acceptance"), ("acceptance",), document)
        if isinstance(acceptance, list):
            acceptance = {"steps": acceptance}
        if isinstance(acceptance, dict) and isinstance(acceptance.get("steps"), list):
            acceptance = {**acceptance, "steps": [self._with_namespace(item) for item in acceptance["steps"]]}
        if acceptance is None:
            return
        found = self._model(AcceptanceSpec, acceptance, ("acceptance",), document)
        for path, code, message in refusals(found) if found is not None else ():
            self.report(code, message, ("acceptance", *path), document)
        if self.manifest.acceptance is not None:
            self.report("duplicate_key", "a manifest has one acceptance section", ("acceptance",), document)
        self.manifest.acceptance = self.manifest.acceptance or found

    def _entry(self, schema: KindSchema, body: Any, path: Path, document: _Document) -> None:
        if not isinstance(body, dict):
            self.report("wrong_type", f"an entry is a mapping, not {_type_name(body)}", path, document)
            return
        extra: dict[str, Any] = {}
        if "kubernetes" in body:
            extra = self._kubernetes_extra(body["kubernetes"], (*path, "kubernetes"), document)
            body = {key: value for key, value in body.items() if key != "kubernetes"}
        self._add(schema, body, path, document, extra)

    def _add(
        self, schema: KindSchema, body: dict[str, Any], path: Path, document: _Document, extra: Mapping[str, Any]
    ) -> None:
        if self.substitutes:
            body = self._filled(body, path, document)
        if schema.name != "Namespace":
            body = self._with_namespace(body)
        spec, problems = normalise(schema, body)
        entry = Entry(schema.name, spec, path, document.source, document.index, extra)
        self.manifest.entries.append(entry)
        for problem in problems:
            place = self.manifest.place(entry, problem.location)
            location = (*path, *problem.location)
            self.manifest.problems.append(Problem(problem.code, problem.message, place, problem.severity, location))

    def _with_namespace(self, body: Any) -> Any:
        if self.default_namespace is None or not isinstance(body, dict) or body.get("namespace") is not None:
            return body
        return {**body, "namespace": self.default_namespace}

    def _only_namespace(self, documents: list[_Document]) -> str | None:
        """A manifest of one namespace need not repeat its name in every entry."""
        names: list[Any] = []
        for document in documents:
            body = document.body
            if kubernetes.is_document(body):
                if body.get("kind") == "Namespace" and not kubernetes.is_header(body):
                    names.append(kubernetes.name_of(body))
            elif isinstance(body, dict) and isinstance(body.get("namespaces"), list):
                names += [item.get("name") if isinstance(item, dict) else None for item in body["namespaces"]]
        return names[0] if len(names) == 1 and isinstance(names[0], str) else None

    # -- Kubernetes documents ----------------------------------------------------------------------------------

    def _kubernetes_header(self, document: _Document) -> tuple[list[ParameterSpec], _Document]:
        header, problems = kubernetes.read_header(document.body)
        for key, message in problems:
            self.report("wrong_type", message, ("data", key), document)
        self.manifest.metadata = {**(header.get("metadata") or {}), **self.manifest.metadata}
        return self._models("parameters", header.get("parameters"), ParameterSpec, document), document

    def _kubernetes(self, document: _Document) -> None:
        body = document.body
        if body.get("apiVersion") != API_VERSION:
            shown = body.get("apiVersion")
            if not str(shown).startswith(f"{API_GROUP}/"):
                message = f"apiVersion {shown!r} is not ours; a manifest holds resources of {API_VERSION} only"
            else:
                message = f"apiVersion {shown!r} is not known; use {API_VERSION}"
            self.report("unknown_kind", message, ("apiVersion",), document)
            return
        schema = self.schemas.get(body.get("kind", ""))
        if schema is None:
            guess = nearest(str(body.get("kind")), list(self.schemas))
            hint = f"did you mean {guess!r}?" if guess else f"kinds are {', '.join(self.schemas)}"
            self.report("unknown_kind", f"unknown kind {body.get('kind')!r}; {hint}", ("kind",), document)
            return
        for key in body:
            if key not in kubernetes.DOCUMENT_KEYS:
                self.report(
                    "unknown_key",
                    f"unknown key {key!r}; known keys are apiVersion, kind, metadata and spec",
                    (key,),
                    document,
                )
        spec = body.get("spec") if body.get("spec") is not None else {}
        metadata = body.get("metadata")
        if not isinstance(spec, dict):
            self.report("wrong_type", f"spec is a mapping, not {_type_name(spec)}", ("spec",), document)
            return
        if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
            self.report("missing_field", "metadata.name is required", ("metadata", "name"), document)
            return
        if spec.get("name") is None:
            spec = {**spec, "name": metadata["name"]}
        extra = self._kubernetes_extra(kubernetes.extra_of(metadata), ("metadata",), document)
        self._add(schema, spec, ("spec",), document, extra)
        entry = self.manifest.entries[-1]
        if extra.get("name") == kubernetes.derived_name(entry):
            remaining = {key: value for key, value in extra.items() if key != "name"}
            self.manifest.entries[-1] = replace(entry, kubernetes=remaining)

    def _kubernetes_extra(self, body: Any, path: Path, document: _Document) -> dict[str, Any]:
        found = self._model(kubernetes.Extra, body, path, document)
        return found.model_dump(exclude_none=True, exclude_unset=True) if found is not None else {}

    # -- pieces ------------------------------------------------------------------------------------------------

    def _bind(self, sections: list[tuple[list[ParameterSpec], _Document]]) -> None:
        specs = [spec for found, _ in sections for spec in found]
        document = next((document for found, document in sections if found), None)
        self.manifest.parameters = specs

        def place(path: Path) -> Place:
            return Place() if document is None else self.place(path, document)

        self.bound, problems = parameters.bind(specs, self.values, place)
        self.manifest.problems += problems

    def _filled(self, value: Any, path: Path, document: _Document) -> Any:
        if not self.substitutes:
            return value
        filled, problems = parameters.substitute(
            value, self.manifest.parameters, self.bound or {}, lambda inner: self.place((*path, *inner), document)
        )
        self.manifest.problems += problems
        return filled

    def place(self, path: Path, document: _Document) -> Place:
        return self.manifest.sources[document.source].place(path, document=document.index)

    def _models(self, section: str, body: Any, model: type[Any], document: _Document) -> list[Any]:
        if body is None:
            return []
        if not isinstance(body, list):
            self.report("wrong_type", f"{section} is a list, not {_type_name(body)}", (section,), document)
            return []
        fill = section != "parameters"
        found = [
            self._model(model, self._with_namespace(item) if fill else item, (section, index), document)
            for index, item in enumerate(body)
        ]
        return [item for item in found if item is not None]

    def _model(self, model: type[Any], body: Any, path: Path, document: _Document) -> Any:
        try:
            return model.model_validate(body)
        except ValidationError as error:
            for item in error.errors(include_url=False):
                location = (*path, *item["loc"])
                self.report(*_explain(model, item), location, document)
            return None

    def report(self, code: str, message: str, path: Path, document: _Document) -> None:
        self.manifest.problems.append(Problem(code, message, self.place(path, document), location=path))


def _explain(model: type[BaseModel], item: Any) -> tuple[str, str]:
    name = str(item["loc"][-1]) if item["loc"] else ""
    if item["type"] == "missing":
        return "missing_field", f"{name} is required"
    if item["type"] == "extra_forbidden":
        guess = nearest(name, list(model.model_fields))
        return "unknown_key", f"unknown key {name!r}" + (f"; did you mean {guess!r}?" if guess else "")
    return "invalid_value", f"{item['msg'][:1].lower()}{item['msg'][1:]}, found {_type_name(item['input'])}"


def _check_names(manifest: Manifest) -> None:
    """Names are unique per kind and namespace, and so are the names Kubernetes knows them by."""
    seen: dict[tuple[str, str | None, str], Entry] = {}
    stored: dict[tuple[str, str], Entry] = {}
    for entry in manifest.entries:
        if not entry.name or (entry.kind != "Namespace" and not entry.namespace):
            continue
        first = seen.setdefault(entry.identity, entry)
        clash = stored.setdefault((entry.kind, entry.metadata_name), entry)
        if first is not entry:
            message = f"{entry.label} is declared twice; the first is at {_where(manifest, first)}"
        elif clash is not entry:
            message = (
                f"{entry.label} and {clash.label} at {_where(manifest, clash)} are both stored as "
                f"{entry.metadata_name!r}; rename one ('_', ' ' and '-' are the same there, and so is case)"
            )
        else:
            continue
        where = ("name",) if "name" in entry.spec else ()
        location = (*entry.path, *where)
        manifest.problems.append(Problem("duplicate_name", message, manifest.place(entry, where), location=location))


def _where(manifest: Manifest, entry: Entry) -> str:
    place = manifest.place(entry, ("name",))
    if place.line is None:
        return entry.location
    return f"{place.file}:{place.line}:{place.column}" if place.file else f"line {place.line}, column {place.column}"


def _type_name(value: Any) -> str:
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    names = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "a mapping"}
    return names.get(type(value), "nothing")
