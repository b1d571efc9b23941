"""Running one stage on given documents, as a pipeline runs it, without stores."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import settings

from mixpeek_operator.core.clock import SystemClock
from mixpeek_operator.core.directory import NamespaceInfo
from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.retrieval.registry import StageRegistry
from mixpeek_operator.retrieval.stage import Context, State

REGISTRY = StageRegistry()
LAWS = settings(max_examples=50, deadline=None)


class Outcome(list[dict[str, Any]]):
    """The documents a stage made, with what else it tells."""

    metadata: dict[str, Any]
    warnings: list[str]
    aggregations: dict[str, Any]


class NoStore:
    """Stands where a stage must not look: any use fails the test."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the stage used {name}")


def run(
    stage_id: str,
    documents: Sequence[Mapping[str, Any]],
    parameters: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Any] | None = None,
    **ports: Any,
) -> Outcome:
    """Declare the stage and run it with these fields of its context; a stage never changes what it was given."""
    declared, problems = REGISTRY.declare([{"stage_id": stage_id, "parameters": dict(parameters or {})}])
    if problems:
        raise SpecError.of(problems)
    nothing: Any = NoStore()
    context = Context(
        scope=Scope("int_test", "ns_test000001", "shop"),
        namespace=NamespaceInfo("ns_test000001", "shop", "int_test", "ns_test000001"),
        collections=(),
        vectors=nothing,
        inference=nothing,
        clock=SystemClock(),
        find_collection=nothing,
        nested=nothing,
        embedders=nothing,
        feedback=nothing,
        outbound=nothing,
        secrets=nothing,
        sandbox=nothing,
        find_taxonomy=nothing,
        names={"INPUT": dict(inputs or {}), "CONTEXT": {}, "STAGE": {}},
    )
    for name, port in ports.items():
        setattr(context, name, port)
    before = repr(documents)
    state = State([dict(document) for document in documents], first=False)
    outcome = Outcome(asyncio.run(declared[0].stage.run(state, declared[0].params, context)))
    assert repr(documents) == before
    outcome.metadata, outcome.warnings, outcome.aggregations = state.metadata, context.warnings, context.aggregations
    return outcome


def refused(stage_id: str, parameters: Mapping[str, Any], match: str) -> None:
    """Check that the parameters are refused when the retriever is declared."""
    _, problems = REGISTRY.declare([{"stage_id": stage_id, "parameters": dict(parameters)}])
    assert problems, f"{stage_id} accepts {parameters}"
    text = "; ".join(str(problem) for problem in problems)
    assert match in text, text
    with pytest.raises(SpecError):
        run(stage_id, [], parameters)
