"""`summarize` with a scripted model."""

from __future__ import annotations

from typing import Any

import pytest
from tests.servers.language import Models, Reply, data
from tests.unit.retrieval.stages.running import refused
from tests.unit.retrieval.stages.test_llm_filter import documents_of

FIVE = {"stage_id": "limit", "parameters": {"limit": 5}}


def stage(**parameters: Any) -> dict[str, Any]:
    own = {"prompt": "Answer {{INPUT.query}}.", "content_field": "title"}
    return {"stage_id": "summarize", "parameters": {**own, **parameters}}


QUERY = {"inputs": {"query": "what is loud?"}}


@pytest.mark.parametrize("provider", ["openai", "anthropic", "google"])
async def test_one_text_with_its_sources(speaking: Any, models: Models, provider: str) -> None:
    models.script = [Reply("Radios are loud [2][4]. So it is said [99].", tokens=(300, 30))]
    before = (await speaking.run([FIVE]))["documents"]
    (made,) = (await speaking.run([FIVE, stage(provider=provider)], QUERY))["documents"]
    assert made["summary"] == "Radios are loud [2][4]. So it is said [99]."
    assert made["citations"] == [
        {"index": number, "document_id": before[number - 1]["document_id"], "title": before[number - 1]["title"]}
        for number in (2, 4)
    ]
    assert made["source_document_ids"] == [item["document_id"] for item in before]
    assert (made["tokens_used"], made["document_count"]) == (330, 5)
    assert made["model"] == f"{provider}:{models.asked[0].model}"
    (asked,) = models.asked
    assert asked.prompt.startswith("Answer what is loud?.\n\n<document")
    assert documents_of(asked) == [item["title"] for item in before]
    assert "[1]" in asked.system


async def test_own_places_in_the_prompt(speaking: Any, models: Models) -> None:
    models.script = [Reply("ok")]
    prompt = "{{DOC_COUNT}} documents:\n{{ DOCUMENTS }}\nAnswer {INPUT.query}"
    parameters = {"prompt": prompt, "document_template": "{{INDEX}}: {{DOC.content}} of {{DOC.category}}"}
    before = (await speaking.run([FIVE]))["documents"]
    (made,) = (await speaking.run([FIVE, stage(**parameters, include_citations=False)], QUERY))["documents"]
    asked = models.asked[0]
    assert asked.prompt.startswith("5 documents:\n<document")
    assert asked.prompt.endswith("</document>\nAnswer what is loud?")
    assert documents_of(asked)[2] == f"3: {before[2]['title']} of {before[2]['category']}"
    assert made.keys() == {"summary", "model", "tokens_used", "document_count"}
    assert "[1]" not in asked.system


async def test_each_document_its_own(speaking: Any, models: Models) -> None:
    models.script = [lambda asked: Reply(f"about {documents_of(asked)[0]}")]
    answer = await speaking.run([FIVE, stage(mode="per_document", output_field="short")], QUERY)
    assert [item["short"] for item in answer["documents"]] == [f"about {item['title']}" for item in answer["documents"]]
    assert len(models.asked) == 5


async def test_a_text_for_each_group(speaking: Any, models: Models) -> None:
    models.script = [lambda asked: Reply(f"{len(documents_of(asked))} of {asked.prompt.split()[1]}")]
    parameters = {"prompt": "About {{GROUP_VALUE}} here", "group_by": "category", "content_field": "title"}
    answer = await speaking.run([{"stage_id": "summarize", "parameters": parameters}], QUERY)
    counts: dict[str, int] = {}
    for item in speaking.products:
        counts[item["category"]] = counts.get(item["category"], 0) + 1
    assert {made["group"]: made["summary"] for made in answer["documents"]} == {
        name: f"{count} of {name}" for name, count in counts.items()
    }


async def test_nothing_to_summarize(speaking: Any, models: Models) -> None:
    none = {"stage_id": "attribute_filter", "parameters": {"field": "document_id", "value": "none"}}
    (made,) = (await speaking.run([none, stage()], QUERY))["documents"]
    assert (made["summary"], made["citations"]) == ("", [])
    assert not models.asked


@pytest.mark.parametrize(
    ("strategy", "sent"), [("drop_last", ["1", "2", "3"]), ("smart", ["3", "4", "5"]), ("truncate_each", list("12345"))]
)
async def test_the_budget_of_tokens_holds(speaking: Any, models: Models, strategy: str, sent: list[str]) -> None:
    bodies = [
        {"document_id": f"n{index}", "title": f"{index} " + "word " * 38, "supplier_id": "x", "rank": index}
        for index in range(1, 6)
    ]
    await speaking.put("suppliers", bodies)
    models.script = [Reply("ok")]
    pipeline = [
        {"stage_id": "attribute_filter", "parameters": {"field": "supplier_id", "value": "x"}},
        {"stage_id": "sort_attribute", "parameters": {"sort_field": "rank", "order": "asc"}},
        {"stage_id": "score_normalize", "parameters": {"score_field": "rank", "output_field": "score"}},
        stage(max_input_tokens=130, truncation_strategy=strategy),
    ]
    answer = await speaking.run(pipeline, QUERY, collections=("suppliers",))
    texts = documents_of(models.asked[0])
    assert [text.split()[0] for text in texts] == sent
    assert sum(len(text.split()) for text in texts) <= 130
    assert "raise max_input_tokens" in answer["warnings"][-1]
    assert answer["documents"][0]["document_count"] == len(sent)


async def test_an_answer_by_a_schema(speaking: Any, models: Models) -> None:
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
    models.script = [data({"answer": "42"})]
    (made,) = (await speaking.run([FIVE, stage(output_schema=schema)], QUERY))["documents"]
    assert made["summary"] == {"answer": "42"}


def test_what_is_refused_when_it_is_declared() -> None:
    refused("summarize", {"prompt": "p", "mode": "all"}, "aggregate")
    refused("summarize", {"prompt": "{{INPUT.}}"}, "expected name")
    refused("summarize", {"prompts": "p"}, "did you mean 'prompt'")
