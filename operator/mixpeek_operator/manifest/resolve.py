"""What a manifest's entries refer to: found, translated from ids to names, and put in order. Pure.

Every reference is looked for in the manifest first, then among what exists, always inside one Mixpeek namespace.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mixpeek_operator.core import conditions
from mixpeek_operator.core.catalog import Catalog
from mixpeek_operator.core.errors import MixpeekError, Problem, SpecError
from mixpeek_operator.core.graph import CycleError, find_cycles, order
from mixpeek_operator.core.kind import KindSchema, Reference
from mixpeek_operator.core.lifecycle import Refs, Subject
from mixpeek_operator.core.normal import nearest
from mixpeek_operator.core.refs import references, translate
from mixpeek_operator.core.resource import Metadata, Resource
from mixpeek_operator.manifest.lint import View, extractors_not_in_namespace
from mixpeek_operator.manifest.model import Entry, Manifest

Identity = tuple[str, str, str]
"""(kind, name of the Mixpeek namespace or "", name)."""

Want = Callable[[Subject], Any]
"""A kind's own idea of what should be there; raises SpecError when the declaration cannot be meant."""

_RANKS = ("Namespace", "Extractor", "Bucket", "Collection", "Retriever", "Cluster", "Taxonomy")
_RANK = {kind: rank for rank, kind in enumerate(_RANKS)}


@dataclass(slots=True)
class Resolved:
    """A manifest's entries, each after everything it refers to, and every problem with their references."""

    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


@dataclass(slots=True)
class Existing:
    """What exists in the organization, by identity and by id."""

    resources: Sequence[Resource]
    by_identity: dict[Identity, Resource] = field(init=False)
    by_id: dict[str, Resource] = field(init=False)

    def __post_init__(self) -> None:
        self.by_identity = {identity_of(resource): resource for resource in self.resources}
        self.by_id = {resource.id: resource for resource in self.resources if resource.id}


def identity_of(item: Entry | Resource) -> Identity:
    """Return what makes a resource the same one in a manifest and in a store."""
    return item.kind, item.namespace or "", item.name


def resolve(
    manifest: Manifest,
    existing: Existing,
    schemas: Mapping[str, KindSchema],
    catalog: Catalog | None = None,
    wants: Mapping[str, Want] | None = None,
) -> Resolved:
    """Return the entries in dependency order with references as names, and every problem found.

    With a catalog, extractors, stages and parameters are checked too; with the kinds' own `want`, also what needs the
    resources referred to (feature URIs), as the engine will do it. What the engine has checked already is not checked
    again. Without order (a cycle) the entries keep the manifest's.
    """
    result = Resolved()
    proven: set[Identity] = set()
    declared = {identity_of(entry): entry for entry in manifest.entries}
    finder = _Finder(declared, existing)
    edges: dict[Identity, set[Identity]] = {}
    declared_targets: dict[Identity, set[Identity]] = {}
    translated: dict[Identity, Entry] = {}
    for entry in manifest.entries:
        schema = schemas[entry.kind]
        found = references(schema, entry.spec)
        needs: set[Identity] = set()
        targets = declared_targets.setdefault(identity_of(entry), set())
        names: dict[tuple[str, str], str] = {}
        for reference in found:
            target = finder.find(entry, reference)
            if target is None:
                result.problems.append(_missing(manifest, entry, reference, finder))
                continue
            if target in declared:
                targets.add(target)
            if target[2] != reference.value:
                names[reference.kind, reference.value] = target[2]
            if reference.ordered and target in declared and target != identity_of(entry):
                needs.add(target)
            elif reference.ordered and target == identity_of(entry):
                result.problems.append(_problem(manifest, entry, reference, "dependency_cycle", "refers to itself"))
        identity = identity_of(entry)
        edges[identity] = needs
        if names:
            entry = replace(entry, spec=translate(entry.spec, found, names))
        translated[identity] = entry
        if _is_proven(entry, existing):
            proven.add(identity)
        elif catalog is not None:
            result.problems += _catalog_problems(manifest, entry, schema, catalog)
    if catalog is not None and wants:
        wrong = {problem.place.resource for problem in [*manifest.problems, *result.problems]}
        sound = {identity for identity, entry in translated.items() if entry.label not in wrong}
        unsure = {
            identity: entry
            for identity, entry in translated.items()
            # What it refers to may be changed by this manifest.
            if identity in sound and not (identity in proven and declared_targets[identity] <= proven)
        }
        result.problems += _unwanted(manifest, translated, unsure, sound, existing, schemas, catalog, wants)
    result.problems += _extractors(manifest, existing, schemas)
    result.problems += _sections(manifest, finder)
    try:
        result.entries = [translated[identity] for identity in order(edges, _order_key)]
    except CycleError:
        result.entries = list(translated.values())
        result.problems += [_cycle(manifest, translated, path) for path in find_cycles(edges, _order_key)]
    return result


@dataclass(slots=True)
class _Finder:
    declared: Mapping[Identity, Entry]
    existing: Existing

    def find(self, entry: Entry, reference: Reference) -> Identity | None:
        namespace = "" if reference.kind == "Namespace" else entry.namespace or ""
        identity = (reference.kind, namespace, reference.value)
        if identity in self.declared or identity in self.existing.by_identity:
            return identity
        resource = self.existing.by_id.get(reference.value)
        if resource is not None and resource.kind == reference.kind and (resource.namespace or "") == namespace:
            return identity_of(resource)
        return None

    def elsewhere(self, reference: Reference) -> str | None:
        """Namespace of a resource that the reference would name if it could leave its own."""
        resource = self.existing.by_id.get(reference.value)
        if resource is not None and resource.kind == reference.kind:
            return resource.namespace
        for kind, namespace, name in (*self.declared, *self.existing.by_identity):
            if kind == reference.kind and name == reference.value:
                return namespace
        namespace, _, name = reference.value.replace(".", "/").partition("/")
        if name and any(
            identity in known
            for identity in ((reference.kind, namespace, name),)
            for known in (self.declared, self.existing.by_identity)
        ):
            return namespace
        return None

    def names(self, kind: str, namespace: str) -> list[str]:
        every: Iterable[Identity] = (*self.declared, *self.existing.by_identity)
        return sorted({name for found, inside, name in every if found == kind and inside == namespace})


def _missing(manifest: Manifest, entry: Entry, reference: Reference, finder: _Finder) -> Problem:
    if reference.kind != "Namespace":
        other = finder.elsewhere(reference)
        if other is not None and other != entry.namespace:
            text = f"is in namespace {other!r}; a reference cannot leave its namespace {entry.namespace!r}"
            return _problem(manifest, entry, reference, "other_namespace", text)
    inside = "" if reference.kind == "Namespace" else entry.namespace or ""
    guess = nearest(reference.value, finder.names(reference.kind, inside))
    hint = f"; did you mean {guess!r}?" if guess else "; declare it or correct the name"
    return _problem(manifest, entry, reference, "missing_reference", f"does not exist{hint}")


def _problem(manifest: Manifest, entry: Entry, reference: Reference, code: str, text: str) -> Problem:
    message = f"{reference.kind.lower()} {reference.value!r} {text}"
    return Problem(code, message, manifest.place(entry, reference.path), location=(*entry.path, *reference.path))


def _cycle(manifest: Manifest, entries: Mapping[Identity, Entry], path: Sequence[Identity]) -> Problem:
    first = entries[path[0]]
    shown = " → ".join(entries[identity].label for identity in path)
    return Problem("dependency_cycle", f"dependency cycle: {shown}", manifest.place(first), location=first.path)


def _is_proven(entry: Entry, existing: Existing) -> bool:
    """Whether the engine found exactly this declaration good: being ready, it passed every check that is left."""
    before = existing.by_identity.get(identity_of(entry))
    if before is None or before.spec != entry.spec or not conditions.is_ready(before):
        return False
    return bool(before.status.get("observed_generation") == before.metadata.generation)


def _order_key(identity: Identity) -> tuple[int, str, str, str]:
    return _RANK.get(identity[0], len(_RANK)), *identity


def _catalog_problems(manifest: Manifest, entry: Entry, schema: KindSchema, catalog: Catalog) -> list[Problem]:
    return [
        Problem(
            problem.code,
            problem.message,
            manifest.place(entry, problem.location),
            problem.severity,
            (*entry.path, *problem.location),
        )
        for problem in schema.check(entry.spec, catalog)
    ]


def _unwanted(
    manifest: Manifest,
    entries: Mapping[Identity, Entry],
    unsure: Mapping[Identity, Entry],
    sound: Collection[Identity],
    existing: Existing,
    schemas: Mapping[str, KindSchema],
    catalog: Catalog,
    wants: Mapping[str, Want],
) -> list[Problem]:
    """Return what the kinds themselves find wrong once everything they refer to is known.

    Entries with mistakes of their own are left out, and so is what refers to them: it would only repeat them.
    """
    if not unsure:
        return []
    resources = {identity: _as_resource(entry, existing) for identity, entry in entries.items()}
    problems: list[Problem] = []
    for identity, entry in unsure.items():
        want = wants.get(entry.kind)
        if want is None:
            continue
        found: dict[tuple[str, str], Resource] = {}
        broken = False
        for reference in references(schemas[entry.kind], entry.spec):
            target = (reference.kind, "" if reference.kind == "Namespace" else entry.namespace or "", reference.value)
            resource = resources.get(target) or existing.by_identity.get(target)
            broken = broken or (target in resources and target not in sound)
            if resource is not None:
                found[reference.kind, reference.value] = resource
        if broken:
            continue
        home = ("Namespace", "", entry.namespace or "")
        owner = resources.get(home) or existing.by_identity.get(home)
        subject = Subject(resources[identity], Refs(found), catalog, owner.id if owner is not None else "")
        try:
            want(subject)
        except MixpeekError as error:
            listed = error.problems if isinstance(error, SpecError) else ()
            for problem in listed or (Problem(error.code, error.message),):
                place = manifest.place(entry, problem.location)
                location = (*entry.path, *problem.location)
                problems.append(Problem(problem.code, problem.message, place, problem.severity, location))
    return problems


def _as_resource(entry: Entry, existing: Existing) -> Resource:
    before = existing.by_identity.get(identity_of(entry))
    if before is not None:
        return before.with_spec({**before.spec, **entry.spec})
    return Resource(entry.kind, Metadata(entry.metadata_name, ""), entry.spec)


def _extractors(manifest: Manifest, existing: Existing, schemas: Mapping[str, KindSchema]) -> list[Problem]:
    return [
        Problem(
            "extractor_not_in_namespace",
            f"namespace {entry.namespace!r} does not list extractor {name!r}{f' {version}' if version else ''}; "
            "add it to the namespace's feature_extractors",
            manifest.place(entry, ("feature_extractor",)),
            location=(*entry.path, "feature_extractor"),
        )
        for entry, name, version in extractors_not_in_namespace(View(manifest, schemas, (), existing.resources))
    ]


def _sections(manifest: Manifest, finder: _Finder) -> list[Problem]:
    """Check the names in `seed` and `acceptance`, which are no resources and so have no references of their own."""
    problems: list[Problem] = []

    def check(path: tuple[str | int, ...], kind: str, namespace: str, name: str | None) -> None:
        if name is None:
            return
        identity = (kind, namespace, name)
        if identity in finder.declared or identity in finder.existing.by_identity:
            return
        guess = nearest(name, finder.names(kind, namespace))
        hint = f"; did you mean {guess!r}?" if guess else ""
        message = f"{kind.lower()} {name!r} does not exist in namespace {namespace!r}{hint}"
        place = next((source.place(path) for source in manifest.sources if _has(source.documents, path)), None)
        problems.append(Problem("missing_reference", message, place or manifest.sources[0].place(path), location=path))

    for index, seed in enumerate(manifest.seed):
        check(("seed", index, "bucket"), "Bucket", seed.namespace, seed.bucket)
        for number, name in enumerate(seed.collections or ()):
            check(("seed", index, "collections", number), "Collection", seed.namespace, name)
    for index, step in enumerate(manifest.acceptance.steps if manifest.acceptance else ()):
        path = ("acceptance", "steps", index)
        check((*path, "retriever"), "Retriever", step.namespace, step.retriever)
        check((*path, "collection"), "Collection", step.namespace, step.collection)
    return problems


def _has(documents: Sequence[object], path: Sequence[str | int]) -> bool:
    return any(isinstance(document, dict) and path[0] in document for document in documents)
