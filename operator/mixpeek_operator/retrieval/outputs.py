"""Outputs of stages that are kept: found by what was declared, the inputs used, what came before and the index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import orjson

from mixpeek_operator import __version__
from mixpeek_operator.core.filters import Filter, to_wire
from mixpeek_operator.retrieval import paths
from mixpeek_operator.retrieval.compile import Step
from mixpeek_operator.retrieval.dependencies import Dependencies
from mixpeek_operator.retrieval.keeping import digest
from mixpeek_operator.retrieval.kept import Shelf
from mixpeek_operator.retrieval.stage import Context, State
from mixpeek_operator.retrieval.withheld import Withheld

Documents = list[dict[str, Any]]


@dataclass(slots=True)
class Output:
    """What a stage made, and what it told on the way."""

    documents: Documents
    searched: list[str] = field(default_factory=list)
    facets: list[dict[str, Any]] = field(default_factory=list)
    aggregations: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    limits: list[dict[str, Any]] = field(default_factory=list)
    signals: list[dict[str, Any]] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    credits: float = 0.0
    cached_at: float | None = None
    """Unix time at which it was kept, when it was found."""

    def take(self, output: Output) -> None:
        """Add what a stage told to what others have."""
        self.facets += output.facets
        self.aggregations |= output.aggregations
        self.warnings += output.warnings
        self.limits += output.limits
        self.signals += output.signals


def output_of(documents: Documents, state: State, context: Context) -> Output:
    """Return what a stage made and told; what it told is nobody else's."""
    return Output(
        documents,
        context.searched,
        context.facets,
        context.aggregations,
        context.warnings,
        context.limits,
        context.signals,
        state.metadata,
        state.credits,
    )


def merged(document: dict[str, Any], changed: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """Return the document with the fields that a stage wrote into its copy of it."""
    for path in fields:
        value = paths.read(changed, path)
        if value is not paths.ABSENT:
            document = paths.write(document, path, value)
    return document


class Trail:
    """Where in a pipeline an execution is: equal trails, equal documents. None once nothing can say so."""

    def __init__(self, stamp: str, inputs: Mapping[str, Any], filter: Filter | None) -> None:
        self._inputs = inputs
        self._stamp = stamp
        self._filter = filter
        self._begun = False
        self._at: str | None = None
        self._passed: list[Sequence[Step]] = []

    @cached_property
    def _base(self) -> str:
        return digest([__version__, self._stamp, to_wire(self._filter)])

    @property
    def at(self) -> str | None:
        """The trail so far; what was passed by is taken into it only when somebody asks."""
        if not self._begun:
            self._begun, self._at = True, self._base
        for steps in self._passed:
            if self._at is not None and all(step.rule.repeatable for step in steps):
                self._at = digest([self._after(step, self._at) for step in steps])
            else:
                self._at = None
        self._passed.clear()
        return self._at

    def key(self, step: Step, documents: Documents, searched: Sequence[str]) -> str:
        """Return what the step's output depends on."""
        at = self.at
        if at is None:
            at = digest([self._base, documents, list(searched)])
        return self._after(step, at)

    def known_key(self, step: Step) -> str | None:
        """The same without documents; None where only they would tell."""
        at = self.at
        return None if at is None else self._after(step, at)

    def pass_by(self, steps: Sequence[Step]) -> None:
        """Go on behind steps that ran on the same documents."""
        self._passed.append(steps)

    def lose(self) -> None:
        """Something happened that another execution may not see."""
        self._passed.clear()
        self._begun, self._at = True, None

    def _after(self, step: Step, at: str) -> str:
        names = step.rule.inputs
        used = self._inputs if names is None else {name: self._inputs.get(name) for name in names}
        return digest([at, step.rule.digest, used])


class StageOutputs:
    """The kept outputs of one retriever for one execution; see Shelf."""

    def __init__(
        self, shelf: Shelf, prefix: str, dependencies: Dependencies, withheld: Withheld, *, fresh: bool
    ) -> None:
        self._shelf = shelf
        self._withheld = withheld
        self._prefix = prefix
        self._dependencies = dependencies
        self._fresh = fresh

    async def find(self, key: str) -> Output | None:
        """Return what is kept, unless the execution is to be fresh or what it depends on has changed."""
        if self._fresh:
            return None
        value = await self._shelf.get(self._prefix + key)
        if value is None:
            return None
        kept = orjson.loads(value)
        if not await self._dependencies.hold(kept.pop("marks")):
            return None
        gaps = kept.pop("gaps", None)
        if gaps:
            kept["documents"] = await self._withheld.put_back(kept["documents"], gaps)
            if kept["documents"] is None:
                return None
        return Output(**kept)

    def keep(self, key: str, output: Output, ttl_s: float) -> None:
        """Keep what a stage made; what does not fit into JSON is left."""
        body = {
            "documents": output.documents,
            "searched": output.searched,
            "facets": output.facets,
            "aggregations": output.aggregations,
            "warnings": output.warnings,
            "limits": output.limits,
            "signals": output.signals,
            "metadata": output.metadata,
            "cached_at": self._shelf.now(),
            "marks": self._dependencies.snapshot(),
        }

        async def made() -> bytes | None:
            if self._withheld:
                taken = await self._withheld.taken_out(
                    output.documents, output.facets, output.aggregations, output.signals, output.metadata
                )
                if taken is None:
                    return None
                body["documents"], body["gaps"] = taken
            return _encoded(body)

        self._shelf.put_later(self._prefix + key, made, ttl_s)


def _encoded(body: Any) -> bytes | None:
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:
        return None  # NumPy values and the like: the next execution computes it again
