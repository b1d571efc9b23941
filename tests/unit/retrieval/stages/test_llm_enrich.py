"""`llm_enrich` with a scripted model."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from tests.servers.language import Asked, Models, Reply, data
from tests.unit.retrieval.stages.running import refused
from tests.unit.retrieval.stages.test_llm_filter import documents_of

from mixpeek_operator.core.errors import RefusedError

FIVE = {"stage_id": "limit", "parameters": {"limit": 5}}
SCHEMA = {
    "type": "object",
    "properties": {"word": {"type": "string"}, "length": {"type": "integer", "minimum": 1}},
    "required": ["word", "length"],
}


def last_word(asked: Asked) -> Reply:
    """The last word of each document, by the schema that is asked for."""
    words = [text.split()[-1] for text in documents_of(asked)]
    made: list[Any] = list(words)
    if "length" in str(asked.tools):
        made = [{"word": word, "length": len(word)} for word in words]
    if not asked.tools:
        return Reply(words[0])
    if "document_1" not in asked.tools["answer"]["properties"]:
        return data(made[0])
    return data({f"document_{index}": value for index, value in enumerate(made, start=1)})


def stage(**parameters: Any) -> dict[str, Any]:
    own = {"prompt": "Which is its last word?", "content_field": "title"}
    return {"stage_id": "llm_enrich", "parameters": {**own, **parameters}}


@pytest.mark.parametrize("size", [1, 2, 5])
async def test_each_document_gets_its_own_text(speaking: Any, models: Models, size: int) -> None:
    models.script = [last_word]
    answer = await speaking.run([FIVE, stage(batch_size=size, output_field="a.b")])
    assert [item["a"]["b"] for item in answer["documents"]] == [
        item["title"].split()[-1] for item in answer["documents"]
    ]
    assert len(models.asked) == -(-5 // size)
    # A single document needs no tool: models that have none can answer.
    assert all(bool(asked.tools) == (len(documents_of(asked)) > 1) for asked in models.asked)
    prompt = max((asked.prompt for asked in models.asked), key=len)
    assert prompt.count("Which is its last word?") == 1


@pytest.mark.parametrize("provider", ["openai", "anthropic", "google"])
@pytest.mark.parametrize("size", [1, 3])
async def test_data_by_a_schema(speaking: Any, models: Models, provider: str, size: int) -> None:
    models.script = [last_word]
    answer = await speaking.run([FIVE, stage(batch_size=size, output_schema=SCHEMA, provider=provider)])
    for item in answer["documents"]:
        word = item["title"].split()[-1]
        assert item["extracted"] == {"word": word, "length": len(word)}
    assert answer["stage_statistics"]["stages"]["llm_enrich"]["metadata"]["model"].startswith(f"{provider}:")


async def test_stages_of_other_fields_ask_at_the_same_time(speaking: Any, models: Models) -> None:
    both = threading.Barrier(2, timeout=60)

    def meet(asked: Asked) -> Reply:
        both.wait()
        return last_word(asked)

    models.script = [meet]
    one, other = stage(output_field="one"), {**stage(output_field="other"), "stage_name": "other"}
    answer = await speaking.run([FIVE, one, other])
    for item in answer["documents"]:
        assert item["one"] == item["other"] == item["title"].split()[-1]


async def test_a_declared_size_of_batches_is_told_as_one_run(speaking: Any, models: Models) -> None:
    models.script = [last_word]
    answer = await speaking.run([FIVE, {**stage(batch_size=1), "batch_size": 2}])
    told = answer["stage_statistics"]["stages"]["llm_enrich"]["metadata"]
    assert (told["llm_calls"], told["input_tokens"]) == (5, 500)
    assert len(answer["documents"]) == 5


async def test_a_schema_with_references_is_asked_for_document_by_document(speaking: Any, models: Models) -> None:
    schema = {"type": "object", "properties": {"word": {"$ref": "#/$defs/w"}}, "$defs": {"w": {"type": "string"}}}
    models.script = [lambda asked: data({"word": documents_of(asked)[0].split()[-1]})]
    answer = await speaking.run([FIVE, stage(output_schema=schema)])
    assert len(models.asked) == 5
    assert answer["documents"][4]["extracted"]["word"] == answer["documents"][4]["title"].split()[-1]


async def test_what_does_not_fit_is_refused(speaking: Any, models: Models) -> None:
    models.script = [data({"word": "x", "length": 0})]
    with pytest.raises(RefusedError, match="less than the minimum"):
        await speaking.run([FIVE, stage(batch_size=1, output_schema=SCHEMA, max_concurrency=1)])


async def test_only_documents_that_satisfy_when(speaking: Any, models: Models) -> None:
    models.script = [last_word]
    when = {"field": "category", "operator": "eq", "value": "audio"}
    twenty = {"stage_id": "limit", "parameters": {"limit": 20}}
    documents = (await speaking.run([twenty, stage(when=when)], {"limit": 20}))["documents"]
    assert {item["category"] == "audio" for item in documents} == {True, False}
    assert all(("extracted" in item) == (item["category"] == "audio") for item in documents)
    sent = [text for asked in models.asked for text in documents_of(asked)]
    assert sorted(sent) == sorted(item["title"] for item in documents if item["category"] == "audio")


async def test_templates_of_both_spellings(speaking: Any, models: Models) -> None:
    models.script = [last_word]
    await speaking.run(
        [FIVE, stage(prompt="Is {DOC.title} a {{INPUT.thing}}?", batch_size=1)], {"inputs": {"thing": "lamp"}}
    )
    for asked in models.asked:
        assert asked.prompt.startswith(f"Is {documents_of(asked)[0]} a lamp?")


async def test_a_long_document_is_cut(speaking: Any, models: Models) -> None:
    await speaking.put("suppliers", [{"document_id": "long", "title": "word " * 9000, "supplier_id": "s9"}])
    models.script = [Reply("ok")]
    only = {"stage_id": "attribute_filter", "parameters": {"field": "document_id", "value": "long"}}
    await speaking.run([only, stage()], collections=("suppliers",))
    (text,) = documents_of(models.asked[0])
    assert text.endswith(" …")
    assert 5_000 < len(text) < 12_000


async def test_no_documents_no_call(speaking: Any, models: Models) -> None:
    none = {"stage_id": "attribute_filter", "parameters": {"field": "document_id", "value": "none"}}
    assert (await speaking.run([none, stage()]))["documents"] == []
    assert not models.asked


def test_what_is_refused_when_it_is_declared() -> None:
    refused("llm_enrich", {}, "'prompt' is required")
    refused("llm_enrich", {"prompt": ""}, "at least 1 character")
    refused("llm_enrich", {"prompt": "p", "output_schema": {"topic": "string"}}, "JSON schema")
    refused("llm_enrich", {"prompt": "p", "output_schema": {"type": "strin"}}, "JSON schema")
    refused("llm_enrich", {"prompt": "p", "output_schema": {"$ref": "http://10.0.0.1/x"}}, "leads out of the schema")
    refused("llm_enrich", {"prompt": "p", "output_schema": {"type": "string", "pattern": "(?=a)"}}, "pattern")
    refused("llm_enrich", {"prompt": "p", "batch_size": 0}, "greater than or equal to 1")
    refused("llm_enrich", {"prompt": "p", "models": "m"}, "did you mean 'model'")
