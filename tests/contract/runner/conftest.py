"""Runners under contract. A runner joins by one more parameter of `runner`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from mixpeek_operator.adapters.bm25 import EdgeBm25
from mixpeek_operator.extraction.inference import LocalInference
from mixpeek_operator.extraction.models.registry import ModelRegistry
from mixpeek_operator.extraction.registry import ExtractorRegistry
from mixpeek_operator.extraction.runner import InProcessRunner
from mixpeek_operator.ports.compute import Runner

pytest.importorskip("torch", reason="needs mixpeek-operator[models]")


class NoCache:
    """A cache that keeps nothing."""

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        return [None] * len(keys)

    async def set_many(self, items: Sequence[tuple[str, bytes]], *, ttl_s: float) -> None:
        return None


def in_process(served: str) -> tuple[Runner, LocalInference]:
    """A runner whose extractors are declared with the packaged model, and inference that serves `served`."""
    registry = ExtractorRegistry(ModelRegistry(default="all-MiniLM-L6-v2"))
    inference = LocalInference(ModelRegistry(default=served), EdgeBm25(), NoCache(), threads=1)
    return InProcessRunner(registry, inference), inference


RUNNERS = {"in-process": in_process}


@pytest.fixture(params=sorted(RUNNERS))
async def runner(request: pytest.FixtureRequest) -> AsyncIterator[Runner]:
    runner, inference = RUNNERS[request.param]("all-MiniLM-L6-v2")
    yield runner
    await inference.close()


@pytest.fixture(params=sorted(RUNNERS))
async def runner_without_model(request: pytest.FixtureRequest) -> AsyncIterator[Runner]:
    runner, inference = RUNNERS[request.param]("absent-model")
    yield runner
    await inference.close()
