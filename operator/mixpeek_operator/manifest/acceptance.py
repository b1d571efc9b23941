"""`acceptance` steps of a manifest: executed after an apply and judged. Judging is pure.

What a step could never do is refused when the manifest is read, before anything is applied.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from mixpeek_operator.core.errors import MixpeekError
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.manifest.model import AcceptanceSpec, AcceptanceStep, Expect

_MISSING: Any = object()
_COUNTED = frozenset({"documents", "min_documents", "max_documents"})
_JUDGED = {"query": frozenset(Expect.model_fields) - _COUNTED, "documents": _COUNTED}
_NEEDS = {"query": "retriever", "documents": "collection"}
_TAKES = {"query": frozenset({"retriever", "inputs", "filters", "limit"}), "documents": frozenset({"collection"})}


def refusals(spec: AcceptanceSpec) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """Yield (path below `acceptance`, code, message) of everything that would fail, or not act, at run time."""
    for index, step in enumerate(spec.steps):
        where: tuple[str | int, ...] = ("steps", index)
        if step.kind not in _NEEDS:
            yield (
                (*where, "kind"),
                "not_supported",
                f"the step {step.name!r} is of kind {step.kind}, and this server runs {' and '.join(_NEEDS)} steps "
                "only; remove it, or check the same with one of these",
            )
            continue
        needed = _NEEDS[step.kind]
        if getattr(step, needed) is None:
            yield (*where, needed), "missing_field", f"a {step.kind} step needs {needed!r}"
        others = frozenset().union(*_TAKES.values()) - _TAKES[step.kind]
        for name in sorted(others & step.model_fields_set):
            yield (*where, name), "not_supported", f"{name!r} does not act in a {step.kind} step; remove it"
        for name in sorted(step.expect.model_fields_set - _JUDGED[step.kind]):
            path = (*where, "expect", name)
            yield path, "not_supported", f"{name!r} is never judged in a {step.kind} step; remove it"


class Queries(Protocol):
    """Runs a retriever, by name or id, as `POST /v1/retrievers/{id}/execute` does."""

    async def execute(self, scope: Scope, retriever: str, request: Mapping[str, Any]) -> Mapping[str, Any]: ...


class Counts(Protocol):
    """Counts the documents of a collection, by name or id."""

    async def count_documents(self, scope: Scope, collection: str) -> int: ...


class Acceptance:
    """Runs steps in order."""

    def __init__(self, *, queries: Queries, counts: Counts, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._queries = queries
        self._counts = counts
        self._monotonic = monotonic

    async def run(
        self, spec: AcceptanceSpec, scopes: Mapping[str, Scope], *, deadline: float, blocked: str | None = None
    ) -> dict[str, Any]:
        """Return the wire's `AcceptanceResult`; `scopes` holds the scope of each namespace by name.

        `deadline` is in monotonic seconds; `blocked` says why no step can run, when a seed failed.
        """
        steps: list[dict[str, Any]] = []
        spent = 0.0
        for step in spec.steps:
            why = blocked
            if why is None and self._monotonic() >= deadline:
                why = "not run: the deadline was reached"
            if why is None and spec.max_cost_usd is not None and spent > spec.max_cost_usd:
                why = f"not run: the steps before cost {spent:g} USD, more than max_cost_usd"
            if why is not None:
                steps.append(_result(step, [], None, why))
                continue
            result, cost = await self._step(step, scopes[step.namespace])
            spent += cost
            steps.append(result)
        if spec.max_cost_usd is not None:
            passed = spent <= spec.max_cost_usd
            steps.append(
                {
                    "name": "cost",
                    "kind": "cost",
                    "passed": passed,
                    "expected": {"max_cost_usd": spec.max_cost_usd},
                    "observed": {"spent_usd": spent},
                    "error": None if passed else f"the steps cost {spent:g} USD",
                }
            )
        return {"passed": all(step["passed"] for step in steps), "steps": steps}

    async def _step(self, step: AcceptanceStep, scope: Scope) -> tuple[dict[str, Any], float]:
        try:
            if step.kind == "query":
                return await self._query(step, scope)
            documents = await self._counts.count_documents(scope, str(step.collection))
            return _result(step, judge_documents(step.expect, documents), {"documents": documents}), 0.0
        except MixpeekError as error:
            return _result(step, [], None, f"the step could not run: {error}"), 0.0

    async def _query(self, step: AcceptanceStep, scope: Scope) -> tuple[dict[str, Any], float]:
        # A cached answer would prove what was true before this apply.
        request: dict[str, Any] = {"inputs": step.inputs, "skip_cache": True}
        if step.filters is not None:
            request["filters"] = step.filters
        if step.limit is not None:
            request["limit"] = step.limit
        began = self._monotonic()
        answer = await self._queries.execute(scope, str(step.retriever), request)
        latency_ms = (self._monotonic() - began) * 1000
        documents = [item for item in answer.get("documents") or () if isinstance(item, Mapping)]
        problems = judge_query(step.expect, documents, latency_ms)
        if answer.get("status") not in (None, "completed"):
            problems.insert(0, f"the execution ended {answer.get('status')}: {answer.get('error') or 'a stage failed'}")
        observed: dict[str, Any] = {
            "results": len(documents),
            "top_score": documents[0].get("score") if documents else None,
            "latency_ms": round(latency_ms, 3),
        }
        if step.expect.top_field is not None:
            value = field_of(documents[0], step.expect.top_field) if documents else _MISSING
            observed["top_value"] = None if value is _MISSING else value
        # Only what is billed counts; a server of one's own reports no price.
        cost = (answer.get("budget") or {}).get("cost_usd")
        return _result(step, problems, observed), float(cost) if isinstance(cost, (int, float)) else 0.0


def judge_query(expect: Expect, documents: Sequence[Mapping[str, Any]], latency_ms: float) -> list[str]:
    """Return every expectation of an answer that does not hold."""
    problems = _bounds("results", len(documents), expect.results, expect.min_results, expect.max_results)
    for wanted in expect.contains or ():
        if not any(_matches(document, wanted) for document in documents):
            problems.append(f"no result has {wanted}")
    for unwanted in expect.excludes or ():
        if any(_matches(document, unwanted) for document in documents):
            problems.append(f"a result has {unwanted}")
    top = documents[0] if documents else None
    if expect.top is not None and (top is None or not _matches(top, expect.top)):
        problems.append(f"the first result does not have {expect.top}")
    if expect.top_field is not None:
        value = field_of(top, expect.top_field) if top is not None else _MISSING
        if value is _MISSING or value != expect.top_value:
            found = "nothing" if value is _MISSING else repr(value)
            problems.append(f"{expect.top_field} of the first result is {found}, expected {expect.top_value!r}")
    scores = [score for document in documents if isinstance(score := document.get("score"), (int, float))]
    if expect.min_top_score is not None and (not scores or scores[0] < expect.min_top_score):
        problems.append(
            f"the top score is {scores[0] if scores else 'missing'}, expected at least {expect.min_top_score}"
        )
    if expect.max_top_score is not None and scores and scores[0] > expect.max_top_score:
        problems.append(f"the top score is {scores[0]}, expected at most {expect.max_top_score}")
    if expect.min_score is not None and scores and min(scores) < expect.min_score:
        problems.append(f"the lowest score is {min(scores)}, expected at least {expect.min_score}")
    if expect.max_latency_ms is not None and latency_ms > expect.max_latency_ms:
        problems.append(f"it took {latency_ms:.1f} ms, expected at most {expect.max_latency_ms:g} ms")
    return problems


def judge_documents(expect: Expect, documents: int) -> list[str]:
    """Return every expectation of a collection's number of documents that does not hold."""
    return _bounds("documents", documents, expect.documents, expect.min_documents, expect.max_documents)


def field_of(document: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path of a document, a marker that equals nothing when it is absent."""
    if path in document:
        return document[path]
    value: Any = document
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return _MISSING
        value = value[part]
    return value


def _matches(document: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    for path, value in wanted.items():
        found = field_of(document, path)
        if found == value:
            continue
        if not isinstance(found, list) or value not in found:
            return False
    return True


def _bounds(noun: str, count: int, exact: int | None, least: int | None, most: int | None) -> list[str]:
    problems = []
    if exact is not None and count != exact:
        problems.append(f"{count} {noun}, expected {exact}")
    if least is not None and count < least:
        problems.append(f"{count} {noun}, expected at least {least}")
    if most is not None and count > most:
        problems.append(f"{count} {noun}, expected at most {most}")
    return problems


def _result(
    step: AcceptanceStep, problems: Sequence[str], observed: Mapping[str, Any] | None, error: str | None = None
) -> dict[str, Any]:
    return {
        "name": step.name,
        "kind": step.kind,
        "passed": error is None and not problems,
        "expected": step.expect.model_dump(exclude_unset=True),
        "observed": None if observed is None else dict(observed),
        "error": error or ("; ".join(problems) or None),
    }
