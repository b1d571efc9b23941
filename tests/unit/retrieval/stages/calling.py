"""Running a stage that calls out, through the real guarded client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from tests.unit.retrieval.stages.running import REGISTRY, NoStore, Outcome

from mixpeek_operator.adapters.outbound import GuardedClient
from mixpeek_operator.core.clock import SystemClock
from mixpeek_operator.core.directory import NamespaceInfo
from mixpeek_operator.core.errors import NotFoundError, SpecError
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.retrieval.stage import Context, State


class KnownSecrets:
    """The secrets of one organization."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    async def value(self, organization: str, name: str) -> str:
        if name not in self._values or organization != "int_test":
            raise NotFoundError(f"there is no secret named {name!r}", code="secret_not_found")
        return self._values[name]

    async def names(self, organization: str) -> list[str]:
        return sorted(self._values)


async def call(
    stage_id: str,
    documents: Sequence[Mapping[str, Any]],
    parameters: Mapping[str, Any],
    inputs: Mapping[str, Any] | None = None,
    *,
    secrets: Mapping[str, str] | None = None,
    allow_cidrs: str = "127.0.0.0/8",
    first: bool = False,
    **ports: Any,
) -> Outcome:
    """Declare the stage and run it as one of several; a stage never changes what it was given."""
    declared, problems = REGISTRY.declare([{"stage_id": stage_id, "parameters": dict(parameters)}])
    if problems:
        raise SpecError.of(problems)
    nothing: Any = NoStore()
    outbound = GuardedClient(allow_cidrs=allow_cidrs)
    given = {
        "scope": Scope("int_test", "ns_test000001", "shop"),
        "namespace": NamespaceInfo("ns_test000001", "shop", "int_test", "ns_test000001"),
        "collections": (),
        "clock": SystemClock(),
        "outbound": outbound,
        "secrets": KnownSecrets(secrets or {}),
        "names": {"INPUT": dict(inputs or {}), "CONTEXT": {}, "STAGE": {"name": stage_id}},
        **ports,
    }
    needed = {item.name for item in fields(Context) if item.default is item.default_factory is MISSING}
    context = Context(**{**dict.fromkeys(needed, nothing), **given})
    before = repr(documents)
    state = State([dict(document) for document in documents], first=first)
    try:
        outcome = Outcome(await declared[0].stage.run(state, declared[0].params, context))
    finally:
        await outbound.close()
    assert repr(documents) == before
    outcome.metadata, outcome.warnings, outcome.aggregations = state.metadata, context.warnings, context.aggregations
    return outcome
