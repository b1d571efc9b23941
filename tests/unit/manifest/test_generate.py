"""Generation against a local server that speaks the chat completions protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from tests.servers.language import Models, Reply

from mixpeek_operator.adapters.language_models import HttpLanguageModels
from mixpeek_operator.core.errors import BadRequestError, RateLimitedError, RefusedError, SpecError, UnavailableError
from mixpeek_operator.core.settings import Settings
from mixpeek_operator.manifest.generate import Generator
from mixpeek_operator.manifest.registry import schemas


@pytest.fixture
def model() -> Iterator[Models]:
    pytest.importorskip("pydantic_ai", reason="needs the extra llm")
    made = Models()
    yield made
    made.close()


@pytest.fixture
async def service(world) -> AsyncIterator:
    """A service for settings; the clients it opens are closed."""
    opened = []

    def make(**settings):
        language = HttpLanguageModels(Settings(llm_retries=0, **settings), world.secrets, backoff_s=0.0)
        opened.append(language)
        return world.service(generator=Generator(language=language, schemas=schemas(), catalog=world.catalog))

    yield make
    for language in opened:
        await language.close()


def _generate(service):
    return service.generate("int_test", "search my products", manifest_name="shop")


async def test_a_good_answer_is_returned(world, service, manifest, model):
    model.script = [Reply(f"Here it is:\n```yaml\n{manifest}```\nEnjoy.")]
    text = await _generate(service(**model.settings("openai")))

    assert text == manifest
    (asked,) = model.asked
    assert (asked.key, asked.model) == ("sk-openai", "gpt-4o-mini")
    assert "text_extractor" in asked.system and "feature_search" in asked.system
    assert await world.all() == {}


async def test_a_wrong_answer_is_sent_back_with_its_problems(world, service, manifest, model):
    wrong = manifest.replace("bucket_ids: [products]", "bucket_ids: [product]")
    model.script = [Reply(wrong), Reply(manifest)]

    text = await _generate(service(**model.settings("openai")))

    assert text == manifest
    assert model.asked[1].messages[1] == ("assistant", wrong)
    assert "did you mean 'products'" in model.asked[1].messages[2][1]


async def test_after_three_wrong_answers_the_problems_are_reported(service, model):
    model.script = [Reply("buckets: {a: b")]

    with pytest.raises(SpecError) as caught:
        await _generate(service(**model.settings("openai")))

    assert caught.value.code == "generation_failed" and caught.value.problems
    assert len(model.asked) == 3


async def test_without_a_model_it_says_what_to_set(service):
    with pytest.raises(BadRequestError) as caught:
        await _generate(service())

    assert caught.value.code == "no_model_configured"
    assert "MIXPEEK_LLM_BASE_URL" in str(caught.value)


@pytest.mark.parametrize(
    ("status", "error"), [(401, RefusedError), (429, RateLimitedError), (500, UnavailableError), (404, RefusedError)]
)
async def test_a_refusal_of_the_model_is_mapped(service, model, status, error):
    model.script = [Reply("wrong key sk-openai", status=status)]

    with pytest.raises(error) as caught:
        await _generate(service(**model.settings("openai")))

    assert "sk-openai" not in str(caught.value)


async def test_a_model_that_is_away_is_named(service):
    with pytest.raises(UnavailableError) as caught:
        await _generate(service(llm_base_url="http://127.0.0.1:9/v1", llm_model="m"))

    assert caught.value.code == "model_unreachable"
