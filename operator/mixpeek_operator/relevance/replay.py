"""Asking a retriever a known query, to judge the answer; such executions stay out of its history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mixpeek_operator.core.clock import Clock
from mixpeek_operator.core.errors import SpecError
from mixpeek_operator.core.scope import Scope
from mixpeek_operator.retrieval.service import Retrieval


@dataclass(frozen=True, slots=True)
class Answer:
    """A ranking and how long it took."""

    ranking: list[str]
    """Distinct document ids, best first."""
    duration_ms: float
    stages_ms: Mapping[str, float]


class Replayer:
    """Runs queries without caches."""

    def __init__(self, retrieval: Retrieval, clock: Clock) -> None:
        self._retrieval = retrieval
        self._clock = clock

    async def ask(
        self, scope: Scope, retriever_id: str, query: Mapping[str, Any], *, depth: int, user_id: str | None = None
    ) -> Answer:
        """Return the first `depth` documents of the answer. Raises SpecError when they have no ids.

        `query` holds the inputs, or a whole request as `{inputs, filters}`.
        """
        whole = isinstance(query.get("inputs"), Mapping)
        request: dict[str, Any] = dict(query) if whole else {"inputs": dict(query)}
        request = {key: request[key] for key in ("inputs", "filters") if key in request}
        request |= {"skip_cache": True, "pagination": {"method": "offset", "limit": depth, "offset": 0}}
        if user_id is not None:
            request["user_id"] = user_id
        began = self._clock.monotonic()
        answer = await self._retrieval.execute(scope, retriever_id, request, recorded=False)
        duration_ms = (self._clock.monotonic() - began) * 1000
        ranking = [str(item["document_id"]) for item in answer["documents"] if "document_id" in item]
        if answer["documents"] and not ranking:
            raise SpecError(
                "the documents of the answer have no document_id to judge them by; a stage has reshaped them",
                code="no_document_ids",
            )
        stages = answer["stage_statistics"]["stages"]
        return Answer(
            list(dict.fromkeys(ranking)), duration_ms, {name: float(stages[name]["duration_ms"]) for name in stages}
        )
