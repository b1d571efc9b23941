"""Runner and inference by namespace: its own Ray cluster where it has one, else what all share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from mixpeek_operator.extraction.inference import LocalInference
from mixpeek_operator.extraction.ray.endpoints import FindEndpoints
from mixpeek_operator.extraction.ray.serve import RayServeInference
from mixpeek_operator.ports.compute import RowFailure, Runner, Segment, SourceRow
from mixpeek_operator.ports.inference import Inference, Scores
from mixpeek_operator.ports.vectors import Vector


class RoutedRunner:
    """Serves `ports.compute.Runner`; a namespace with a cluster of its own never runs on the shared one."""

    def __init__(self, shared: Runner, own: Runner, endpoints: FindEndpoints) -> None:
        self._shared = shared
        self._own = own
        self._endpoints = endpoints

    def run(
        self,
        *,
        extractor: str,
        version: str,
        parameters: Mapping[str, Any],
        namespace_id: str,
        rows: AsyncIterator[Sequence[SourceRow]],
        run_id: str | None = None,
    ) -> AsyncIterator[Sequence[Segment | RowFailure]]:
        """Yield one block of results per block of rows, in order."""
        runner = self._own if self._endpoints(namespace_id) else self._shared
        return runner.run(
            extractor=extractor,
            version=version,
            parameters=parameters,
            namespace_id=namespace_id,
            rows=rows,
            run_id=run_id,
        )


class RoutedInference:
    """Serves `ports.inference.Inference`; the queries of a namespace are embedded where its documents are."""

    def __init__(
        self, shared: LocalInference | RayServeInference, own: RayServeInference, endpoints: FindEndpoints
    ) -> None:
        self._shared = shared
        self._own = own
        self._endpoints = endpoints

    async def embed(self, model: str, inputs: Sequence[str], *, purpose: str, namespace_id: str) -> list[Vector]:
        """One vector per input."""
        return await self._of(namespace_id).embed(model, inputs, purpose=purpose, namespace_id=namespace_id)

    async def score(self, model: str, query: str, texts: Sequence[str], *, namespace_id: str) -> Scores:
        """One score per text."""
        return await self._of(namespace_id).score(model, query, texts, namespace_id=namespace_id)

    async def identity(self, model: str, *, namespace_id: str) -> str:
        """What `embed` computes with."""
        return await self._of(namespace_id).identity(model, namespace_id=namespace_id)

    async def warm(self) -> None:
        """Load what all share."""
        await self._shared.warm()

    async def health(self) -> None:
        """Whether what all share can embed; a namespace's own cluster is in the namespace's conditions."""
        await self._shared.health()

    async def close(self) -> None:
        """Close both."""
        await self._shared.close()
        await self._own.close()

    def _of(self, namespace_id: str) -> Inference:
        return self._own if self._endpoints(namespace_id) else self._shared
