"""Manifests as the API serves them: text in, wire shapes out. Every call is about one organization."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from mixpeek_operator.core.catalog import Catalog, Need
from mixpeek_operator.core.clock import Clock
from mixpeek_operator.core.errors import BadRequestError, MixpeekError, NotFoundError, Problem, SpecError
from mixpeek_operator.core.kind import KindSchema
from mixpeek_operator.core.resource import Resource
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.manifest import export, results
from mixpeek_operator.manifest.acceptance import Acceptance
from mixpeek_operator.manifest.apply import Applied, Applier
from mixpeek_operator.manifest.generate import Generator
from mixpeek_operator.manifest.lint import ERROR, Advice, View, lint, response
from mixpeek_operator.manifest.model import Entry, Manifest
from mixpeek_operator.manifest.parse import parse_files
from mixpeek_operator.manifest.plan import Plan, plan
from mixpeek_operator.manifest.progress import ApplyTasks
from mixpeek_operator.manifest.registry import in_order
from mixpeek_operator.manifest.resolve import Existing, Want, resolve
from mixpeek_operator.manifest.secrets import missing, missing_names, problems_of, unmet
from mixpeek_operator.manifest.seed import Seeds
from mixpeek_operator.manifest.text import MAX_BYTES, path_text
from mixpeek_operator.ports.resources import ResourceStore
from mixpeek_operator.ports.secrets import Secrets
from mixpeek_operator.ports.sql import Databases

Files = Sequence[tuple[str | None, str | bytes]]
"""(file name, content) of each file of a manifest."""

T = TypeVar("T")

_DEFAULT_WAIT_S = 30.0
_DEFAULT_SEED_WAIT_S = 900.0
_KEPT_MANIFESTS = 4
_THREAD_BYTES = 64 * 1024
"""Longer manifests are worked on in a thread, so that other requests are answered meanwhile."""


class Held(Protocol):
    """What collections hold; ingestion.documents.Documents is one."""

    async def statistics(self, scope: Scope, collection: str) -> dict[str, Any]:
        """Return `document_count`, and `fields` with their types and most common values."""
        ...


@dataclass(slots=True)
class _Checked:
    manifest: Manifest
    existing: Existing
    plan: Plan = field(default_factory=Plan)
    problems: list[Problem] = field(default_factory=list)
    missing_secrets: list[str] = field(default_factory=list)
    unmet: list[tuple[Entry, Need]] = field(default_factory=list)


class ManifestService:
    """Everything behind `/v1/manifest`. `seeds`, `acceptance` and `documents` need a data plane and may be absent.

    `wants` holds each kind's own check of a declaration together with what it refers to.
    """

    def __init__(
        self,
        *,
        store: ResourceStore,
        secrets: Secrets,
        databases: Databases,
        schemas: Mapping[str, KindSchema],
        catalog: Catalog,
        applier: Applier,
        clock: Clock,
        generator: Generator,
        wants: Mapping[str, Want] | None = None,
        seeds: Seeds | None = None,
        acceptance: Acceptance | None = None,
        documents: Held | None = None,
        tasks: ApplyTasks | None = None,
        max_bytes: int = MAX_BYTES,
        wait_s: float = _DEFAULT_WAIT_S,
    ) -> None:
        self._store = store
        self._secrets = secrets
        self._databases = databases
        self._schemas = in_order(schemas)
        self._catalog = catalog
        self._applier = applier
        self._clock = clock
        self._generator = generator
        self._wants = wants
        self._seeds = seeds
        self._acceptance = acceptance
        self._documents = documents
        self._tasks = tasks
        self._max_bytes = max_bytes
        self._wait_s = wait_s
        self._manifests: dict[bytes, Manifest] = {}
        self._running: set[asyncio.Task[dict[str, Any]]] = set()

    async def validate(
        self, organization: str, files: Files, *, values: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return `ValidateResult`: every mistake of the manifest, without changing anything."""
        checked = await self._check(organization, files, values)
        problems = [*checked.problems, *checked.plan.problems]
        return results.validated(checked.manifest, self._schemas, problems, checked.missing_secrets)

    async def lint(
        self,
        organization: str,
        files: Files,
        *,
        values: Mapping[str, Any] | None = None,
        skip_rules: Collection[str] = (),
    ) -> dict[str, Any]:
        """Return `LintResponse`: advice, after everything that would keep the manifest from being applied."""
        checked = await self._check(organization, files, values)
        secrets = await self._secrets.names(organization)
        view = View(checked.manifest, self._schemas, secrets, checked.existing.resources, checked.unmet)
        advice = lint(view, {rule.upper() for rule in skip_rules})
        ruled = {found.code for found in advice} | {rule.upper() for rule in skip_rules}
        errors = [_as_advice(problem) for problem in checked.problems if problem.code.upper() not in ruled]
        return response([*errors, *advice])

    async def diff(self, organization: str, files: Files, *, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return `DiffResult`. SpecError with every problem when the manifest is wrong."""
        checked = await self._check(organization, files, values)
        problems = [problem for problem in checked.problems if problem.code != "missing_secret"]
        if problems:
            raise SpecError.of(problems)
        return results.compared(checked.plan)

    async def apply(
        self,
        organization: str,
        files: Files,
        *,
        values: Mapping[str, Any] | None = None,
        mode: str = results.UPSERT,
        dry_run: bool = False,
        deadline_s: float | None = None,
        wait_for_seed: bool = False,
        run_acceptance: bool = False,
    ) -> dict[str, Any]:
        """Return `ApplyResult`; `success` false when anything failed, and then nothing of it remains.

        Without `deadline_s` what is not ready after the default wait is `pending`; with it that is an error and
        the resources stay. Once begun an apply goes on even if the caller goes away.
        """
        if mode not in results.MODES:
            raise BadRequestError(f"unknown mode {mode!r}; use one of {', '.join(results.MODES)}", code="unknown_mode")
        work = asyncio.ensure_future(
            self._apply(organization, files, values, mode, dry_run, deadline_s, wait_for_seed, run_acceptance)
        )
        self._running.add(work)
        work.add_done_callback(self._running.discard)
        return await asyncio.shield(work)

    async def export(
        self,
        organization: str,
        *,
        namespaces: Sequence[str] | None = None,
        format: str = "yaml",
        manifest_name: str | None = None,
        detail: str = "config",
    ) -> str:
        """Return what exists as a manifest, in YAML or JSON; NotFoundError for an unknown namespace."""
        resources = await self._store.find(organization)
        known = [item for item in resources if item.kind == "Namespace" and not item.deleting]
        for given in namespaces or ():
            if not any(given in (item.id, item.name) for item in known):
                raise NotFoundError(f"no namespace {given!r}")
        statistics = None
        if detail == "stats":
            if not namespaces:
                raise BadRequestError("detail=stats needs a namespace_id", code="namespace_required")
            statistics = await self._statistics(organization, resources, namespaces)
        body = export.exported(
            resources,
            self._schemas,
            namespaces=namespaces,
            manifest_name=manifest_name,
            statistics=statistics,
        )
        return export.to_json(body) if format == "json" else export.to_yaml(body)

    async def generate(self, organization: str, description: str, *, manifest_name: str) -> str:
        """Return a valid manifest for a description, as YAML."""

        async def check(text: str) -> Sequence[Problem]:
            checked = await self._check(organization, ((None, text),), None)
            # A secret may be created after the manifest was reviewed.
            return [problem for problem in checked.problems if problem.code != "missing_secret"]

        return await self._generator.generate(organization, description, manifest_name=manifest_name, check=check)

    async def recover(self) -> int:
        """Finish or undo the applies that a killed process left; returns how many."""
        found = await self._applier.recover()
        if self._tasks is not None:
            for item in found:
                await self._tasks.recovered(item.organization, item.id, undone=item.undone)
        return len(found)

    # -- checking ----------------------------------------------------------------------------------------------

    async def _check(self, organization: str, files: Files, values: Mapping[str, Any] | None) -> _Checked:
        resources = await self._store.find(organization)
        secrets = await self._secrets.names(organization)
        connections = await self._databases.names(organization)
        size = sum(len(text) for _, text in files)

        def work() -> _Checked:
            manifest = self._parsed(files, values)
            existing = Existing(resources)
            resolved = resolve(manifest, existing, self._schemas, self._catalog, self._wants)
            lack = unmet(manifest, self._catalog, secrets, connections)
            lack_problems = [*missing(manifest, secrets), *problems_of(manifest, lack)]
            problems = [*manifest.problems, *resolved.problems, *lack_problems]
            found = plan(manifest, resolved, existing, self._schemas) if not manifest.problems else Plan()
            return _Checked(manifest, existing, found, problems, missing_names(lack_problems), lack)

        return await _worked(work, size)

    def _parsed(self, files: Files, values: Mapping[str, Any] | None) -> Manifest:
        """Return the manifest; validate, diff and apply of one text, one after the other, parse it once."""
        digest = _digest(files, values)
        found = self._manifests.get(digest)
        if found is None:
            found = parse_files(files, self._schemas, values=values, max_bytes=self._max_bytes)
            self._manifests[digest] = found
            while len(self._manifests) > _KEPT_MANIFESTS:
                self._manifests.pop(next(iter(self._manifests)), None)
        return found

    # -- applying ----------------------------------------------------------------------------------------------

    async def _apply(
        self,
        organization: str,
        files: Files,
        values: Mapping[str, Any] | None,
        mode: str,
        dry_run: bool,
        deadline_s: float | None,
        wait_for_seed: bool,
        run_acceptance: bool,
    ) -> dict[str, Any]:
        began = self._clock.monotonic()
        async with self._applier.turn(organization):
            checked = await self._check(organization, files, values)
            manifest = checked.manifest
            if run_acceptance and manifest.acceptance is None and not manifest.problems:
                raise BadRequestError(
                    "run_acceptance needs an 'acceptance' section, and the manifest has none", code="no_acceptance"
                )
            if checked.problems:
                return results.invalid(checked.problems, dry_run=dry_run)
            errors = results.refusals(checked.plan, mode)
            if errors:
                return results.refused(checked.plan, mode, errors, dry_run=dry_run)
            if dry_run:
                return results.previewed(checked.plan)
            outcome, answer = await self._carry_out(organization, checked, mode, deadline_s)
        if not outcome.rolled_back and (manifest.seed or run_acceptance):
            end = began + (_DEFAULT_SEED_WAIT_S if deadline_s is None else deadline_s)
            await self._prove(organization, manifest, answer, end, wait_for_seed, run_acceptance, outcome)
        return answer

    async def _carry_out(
        self, organization: str, checked: _Checked, mode: str, deadline_s: float | None
    ) -> tuple[Applied, dict[str, Any]]:
        todo = results.executed(checked.plan, mode)
        wait_s = self._wait_s if deadline_s is None else deadline_s
        if self._tasks is None:
            outcome = await self._applier.apply(organization, todo, wait_s=wait_s)
            return outcome, _answer(checked, mode, outcome, organization, deadline_s)
        progress = await self._tasks.begin(organization, checked.plan, mode)
        try:
            outcome = await self._applier.apply(organization, todo, wait_s=wait_s, id=progress.id)
        except MixpeekError as error:
            await self._tasks.broke(progress, error.message)
            raise
        answer = _answer(checked, mode, outcome, organization, deadline_s)
        answer["task_id"] = await self._tasks.end(progress, answer)
        return outcome, answer

    async def _prove(
        self,
        organization: str,
        manifest: Manifest,
        answer: dict[str, Any],
        end: float,
        wait_for_seed: bool,
        run_acceptance: bool,
        outcome: Applied,
    ) -> None:
        """Ingest the seeds, then run the acceptance steps; neither changes `success`, which is about resources."""
        resources = await self._store.find(organization)
        scopes = {item.name: Scope(organization, item.id, item.name) for item in resources if item.kind == "Namespace"}
        blocked = f"{len(outcome.pending)} resources are not ready" if outcome.pending else None
        if manifest.seed:
            batches = await self._ingest(manifest, resources, scopes, end, wait_for_seed or run_acceptance)
            answer["seed_batches"] = batches
            for item in batches:
                if item["error"] or (item["terminal"] and not item["usable"]):
                    why = item["error"] or item["status"]
                    answer["errors"].append(f"seed of bucket {item['bucket']}: {why}")
                elif wait_for_seed and not item["terminal"]:
                    answer["errors"].append(f"seed of bucket {item['bucket']} did not finish in time: {item['status']}")
            if not all(item["usable"] for item in batches):
                blocked = blocked or "not run: a seed batch did not complete"
        if run_acceptance and manifest.acceptance is not None:
            if self._acceptance is None:
                raise BadRequestError(
                    "this server runs no acceptance steps: it has no data plane", code="no_acceptance"
                )
            judged = await self._acceptance.run(manifest.acceptance, scopes, deadline=end, blocked=blocked)
            answer["acceptance"] = judged
            failed = [step["name"] for step in judged["steps"] if not step["passed"]]
            if failed:
                answer["errors"].append(f"acceptance failed: {', '.join(failed)}")

    async def _ingest(
        self,
        manifest: Manifest,
        resources: Sequence[Resource],
        scopes: Mapping[str, Scope],
        end: float,
        wait: bool,
    ) -> list[dict[str, Any]]:
        if self._seeds is None:
            raise BadRequestError("this server ingests no seeds: it has no data plane", code="no_seed")
        buckets = {(item.namespace, item.name): item for item in resources if item.kind == "Bucket"}
        started = [
            await self._seeds.start(scopes[seed.namespace], seed, buckets[seed.namespace, seed.bucket].metadata.uid)
            for seed in manifest.seed
        ]
        timeout_s = max(end - self._clock.monotonic(), 0.0) if wait else 0.0
        return await self._seeds.wait(started, timeout_s=timeout_s)

    async def _statistics(
        self, organization: str, resources: Sequence[Resource], namespaces: Sequence[str]
    ) -> dict[str, Any]:
        counts: dict[str, Any] = {}
        chosen = {
            item.name: item.id
            for item in resources
            if item.kind == "Namespace" and (item.name in namespaces or item.id in namespaces)
        }
        for item in resources:
            if item.kind == "Collection" and item.namespace in chosen and self._documents is not None:
                scope = Scope(organization, chosen[item.namespace], item.namespace)
                counts.setdefault(item.namespace, {})[item.name] = await self._documents.statistics(scope, item.name)
        return {"collections": counts}


def _answer(
    checked: _Checked, mode: str, outcome: Applied, organization: str, deadline_s: float | None
) -> dict[str, Any]:
    if deadline_s is not None and outcome.pending:
        late = ", ".join(f"{key} ({why})" for key, why in sorted(outcome.pending.items()))
        outcome.errors.append(f"not ready within deadline_seconds={deadline_s:g}: {late}")
    answer = results.applied(checked.manifest, checked.plan, mode, outcome, organization)
    if not outcome.rolled_back:
        seen = {item.key: item for item in checked.existing.resources} | outcome.written
        answer["readiness"] = results.readiness(checked.manifest, seen.values())
    return answer


async def _worked(work: Callable[[], T], size: int) -> T:
    return await asyncio.to_thread(work) if size > _THREAD_BYTES else work()


def _digest(files: Files, values: Mapping[str, Any] | None) -> bytes:
    digest = hashlib.sha256(json.dumps(values, sort_keys=True, default=repr).encode())
    for name, text in files:
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        digest.update(f"\0{name}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.digest()


def _as_advice(problem: Problem) -> Advice:
    location = path_text(problem.location) or problem.place.path or "manifest"
    return Advice(problem.code.upper(), ERROR, str(problem), location, "Correct it; the manifest cannot be applied")
