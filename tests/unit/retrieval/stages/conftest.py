"""A world whose language models are a scripted server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.servers.language import Models

from mixpeek_operator.adapters.language_models import HttpLanguageModels
from mixpeek_operator.core.settings import Settings


@pytest.fixture
def models() -> Iterator[Models]:
    pytest.importorskip("pydantic_ai", reason="needs the extra llm")
    made = Models()
    yield made
    made.close()


@pytest.fixture
async def speaking(world: Any, models: Models, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """The world of all retrieval tests, with language models."""
    settings = Settings(**models.settings(), llm_retries=0)
    language = HttpLanguageModels(settings, world.secrets, backoff_s=0.0)
    monkeypatch.setattr(world.retrieval, "_language", language)
    yield world
    await language.close()
