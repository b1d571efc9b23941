"""`CONTEXT` in templates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixpeek_operator.retrieval.execute import Execution


class ExecutionContext(Mapping[str, Any]):
    """`CONTEXT` in templates: what the execution knows of itself, computed when it is asked for."""

    __slots__ = ("_execution", "_extra")

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._extra: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        if key in self._extra:
            return self._extra[key]
        execution = self._execution
        pipeline = execution.pipeline
        if key == "budget_remaining":
            return None if pipeline.max_credits is None else pipeline.max_credits - execution.credits
        if key == "credits_used":
            return execution.credits
        if key == "time_elapsed_ms":
            return execution.elapsed_ms()
        values = {
            "namespace_id": pipeline.namespace.id,
            "namespace": pipeline.namespace.name,
            "internal_id": pipeline.namespace.organization,
            "retriever_id": pipeline.retriever.id,
            "retriever_name": pipeline.retriever.name,
            "execution_id": execution.id,
            "document_count": len(execution.documents),
        }
        return values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(
            (*self._extra, "budget_remaining", "credits_used", "time_elapsed_ms", "namespace_id", "execution_id")
        )

    def __len__(self) -> int:
        return len(list(iter(self)))

    def keep(self, alias: str, value: Any) -> None:
        """Make a stage's output available as `CONTEXT.<alias>`."""
        self._extra[alias] = value
